"""`animebg export`: a network as ONNX."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import OptionError
from ..network import onnx
from ..network.checkpoint import PRECISIONS, load_generator
from .terminal import DownloadBar, result

HELP = "Write a style as an ONNX file, for other runtimes."

_PRECISIONS = ("fp32", "fp16")  # of those that ONNX runtimes compute in everywhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, where to, and what it takes and gives."""
    add = parser.add_argument
    add("style", metavar="STYLE", help="a key of `animebg styles`, or a checkpoint file")
    add("target", type=Path, metavar="FILE.onnx")
    text = "image: RGB in [0, 1], of the input's size (default); network: BGR in [-1, 1]"
    add("--format", choices=("image", "network"), default="image", help=text)
    add("--precision", choices=_PRECISIONS, default="fp32", help="(default: fp32)")
    add("--weights-dir", metavar="DIR", help="look for networks only here")


def run(args: argparse.Namespace) -> int:
    """Write one network; returns the exit status."""
    target: Path = args.target
    if target.exists():
        raise OptionError(f"{target} exists: name another output, or remove it first")
    generator = load_generator(
        args.style, weights_dir=args.weights_dir, progress=DownloadBar(args.style)
    )
    onnx.export(generator, target, form=args.format, precision=PRECISIONS[args.precision])
    result(str(target))
    return 0
