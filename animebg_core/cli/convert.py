"""`animebg convert`: a checkpoint as safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import OptionError
from ..network.checkpoint import convert
from .background import begin, finish
from .terminal import result

HELP = "Write a .pth checkpoint as .safetensors."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From where, and where to."""
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("target", type=Path, metavar="OUT")


def run(args: argparse.Namespace) -> int:
    """Write one checkpoint anew; returns the exit status."""
    source: Path = args.source
    target: Path = args.target
    if target.exists():
        raise OptionError(f"{target} exists: name another output, or remove it first")
    finish(begin(lambda: convert(source, target)))
    result(str(target))
    return 0
