"""`animebg download`: networks, ahead of the first run that needs them."""

from __future__ import annotations

import argparse

from ..errors import StyleError, WeightsError
from ..files.resolve import resolve_weights
from ..files.styles import LITE_STYLES, STYLES
from .terminal import DownloadBar, result, say

HELP = "Download networks."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which styles."""
    known = ", ".join(STYLES)
    parser.add_argument("styles", nargs="*", metavar="STYLE", help=f"{known} (default: all)")


def run(args: argparse.Namespace) -> int:
    """Each style's file, downloaded if it is not there; returns the exit status."""
    keys: list[str] = args.styles or list(STYLES)
    known = {**STYLES, **LITE_STYLES}
    if unknown := [key for key in keys if key not in known]:
        raise StyleError(f"unknown style {unknown[0]!r}: choose from {', '.join(known)}")
    failed = False
    for key in keys:
        try:
            path = resolve_weights(key, progress=DownloadBar(key))
        except WeightsError as error:
            failed = True
            say(f"{key}: {error}")
        else:
            result(str(path))
    return 1 if failed else 0
