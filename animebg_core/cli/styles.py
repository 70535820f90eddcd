"""`animebg styles`: what there is, and where it is installed."""

from __future__ import annotations

import argparse

from ..files.locate import find_weights
from ..files.styles import LITE_STYLES, STYLES
from .terminal import result

HELP = "List the styles, and where each is installed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""
    del parser


def run(args: argparse.Namespace) -> int:
    """A line for each style; returns the exit status."""
    del args
    rows = [("key", "style", "licence", "installed")]
    for style in (*STYLES.values(), *LITE_STYLES.values()):
        place = find_weights(style)
        rows.append((style.key, style.label, style.licence, str(place or "not installed")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        result("  ".join([*cells, row[3]]))
    return 0
