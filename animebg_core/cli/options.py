"""Options that commands share: their values, checked as they are parsed, and what they choose."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
from collections.abc import Sequence

import torch

from ..errors import OptionError
from ..files.styles import DEFAULT_STYLE, LITE_STYLES, STYLES
from ..network.blend import blend_generators
from ..network.checkpoint import PRECISIONS, load_generator, placed_generator
from ..network.generator import Generator
from ..painter import Painter
from ..pipeline import DETAILS
from ..upsampling import DEFAULT_PAINTING_SIZE
from .terminal import DownloadBar

_log = logging.getLogger(__name__)


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network paints, where, and in how much memory; `load_network` reads them."""
    add = parser.add_argument
    known = ", ".join([*STYLES, *LITE_STYLES])
    add(
        "--style",
        default=DEFAULT_STYLE,
        metavar="KEY_OR_PATH",
        help=f"{known}, or a checkpoint file (default: %(default)s); several with their parts are"
        " blended: shinkai:0.7,kon:0.3",
    )
    devices, precisions = ("auto", "cpu", "cuda", "mps"), ("auto", *PRECISIONS)
    add("--device", choices=devices, default="auto", help="auto: the fastest there is")
    add("--precision", choices=precisions, default="auto", help="auto: fp16 on cuda, else fp32")
    size = "such as 2GB (default: what is free)"
    add("--memory-limit", type=byte_count, metavar="SIZE", help=size)
    add("--weights-dir", metavar="DIR", help="look for networks only here")


def add_look_options(parser: argparse.ArgumentParser) -> None:
    """At what size the network paints, whose edges that gets, and whose colours."""
    add = parser.add_argument
    add(
        "--painting-size",
        type=_painting_size,
        default=DEFAULT_PAINTING_SIZE,
        metavar="N",
        help="paint what is larger with N pixels on the longer side, and bring that to its own size"
        " (default: %(default)s; 0: at its own size)",
    )
    text = "whose edges it gets there (default: %(default)s)"
    add("--detail", choices=DETAILS, default=DETAILS[0], help=text)
    text = "0 (the photo's colours, painted lightness) to 1 (default)"
    add("--colour", type=share, default=1.0, metavar="F", help=text)


def add_strength_option(parser: argparse.ArgumentParser) -> None:
    """How much of the painting is mixed in."""
    text = "0 (photo) to 1 (default)"
    parser.add_argument("--strength", type=share, default=1.0, metavar="F", help=text)


def number(text: str, low: float, high: float, wanted: str) -> float:
    """A number from `low` to `high`; `wanted` says so to the user."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # NaN too
        raise argparse.ArgumentTypeError(f"wanted {wanted}, got {text!r}")
    return value


def share(text: str) -> float:
    """A part of a whole."""
    return number(text, 0, 1, "0 to 1")


def whole_number(text: str, low: int, high: float, wanted: str) -> int:
    """A whole number from `low` to `high`; `wanted` says so to the user."""
    value = number(text, low, high, wanted)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"wanted {wanted}, got {text!r}")
    return int(value)


def pixels(text: str) -> int:
    """A side of a picture."""
    return whole_number(text, 1, 1e9, "a whole number of pixels")


def _painting_size(text: str) -> int:
    return whole_number(text, 0, 1e9, "a whole number of pixels, or 0")


def quality(text: str) -> int:
    """What JPEG and WebP call it."""
    return whole_number(text, 1, 100, "1 to 100")


def byte_count(text: str) -> int:
    """Bytes in "2GB" (10^9), "2GiB" (2^30), "512MB" or "1000000"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:([kmgt])(i?))?b?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"wanted a size like 2GB or 512MiB, got {text!r}")
    base = 1024 if match[3] else 1000
    value = int(float(match[1]) * base ** (" kmgt".index(match[2] or " ")))
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted more than 0 bytes, got {text!r}")
    return value


Parts = Sequence[tuple[Generator, float]]  # networks, and how much of each


def load_network(args: argparse.Namespace) -> Generator:
    """The network that the options choose, where they say; a download shows a bar.

    Raises:
        OptionError, StyleError, WeightsError: there is no such device, style or file.
    """
    device = _device(args.device)
    return placed_network(load_parts(args), args, device)


def load_parts(args: argparse.Namespace) -> Parts:
    """The networks of the style, on the CPU in float32; see `load_network`."""
    return [
        (
            load_generator(style, weights_dir=args.weights_dir, progress=DownloadBar(style)),
            part,
        )
        for style, part in style_parts(args.style)
    ]


def placed_network(parts: Parts, args: argparse.Namespace, device: torch.device) -> Generator:
    """The network of `load_parts` on its device, in its precision; the parts may move with it."""
    dtype = _dtype(args.precision, device)
    placed = [(placed_generator(generator, device, dtype), part) for generator, part in parts]
    generator = placed[0][0] if len(placed) == 1 else blend_generators(placed)
    _log.debug("style %s on %s, %s", args.style, device, dtype)
    return generator


def make_painter(
    network: Generator, mask: torch.Tensor | None, args: argparse.Namespace
) -> Painter:
    """A painter as the options say."""
    return Painter(
        network,
        strength=args.strength,
        mask=mask,
        painting_size=args.painting_size,
        detail=args.detail,
        colour=args.colour,
        memory_limit=args.memory_limit,
    )


def style_parts(text: str) -> list[tuple[str, float]]:
    """The styles in "shinkai:0.7,kon:0.3", and how much of each; one alone counts 1.

    What stands behind a part's last colon is its weight only if it is a number, so that a path may
    hold colons, and one that is a file holds whatever it holds.

    Raises:
        OptionError: a part of several without a weight.
    """
    if os.path.exists(text):
        return [(text, 1.0)]
    parts: list[tuple[str, float]] = []
    for name in text.split(","):
        style, colon, weight = name.rpartition(":")
        try:
            parts.append((style, float(weight)) if colon and style else (name, math.nan))
        except ValueError:
            parts.append((name, math.nan))
    if len(parts) > 1:
        if bare := [name for name, part in parts if math.isnan(part)]:
            raise OptionError(
                f"--style {text}: how much of {' and of '.join(bare)}? Wanted: shinkai:0.7,kon:0.3"
            )
        return parts
    return [(parts[0][0], 1.0)]


def _device(name: str) -> torch.device:
    """The device that `--device` names; auto is the fastest there is."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = {"cuda": cuda, "mps": mps, "cpu": True}
    if name == "auto":
        name = next(kind for kind in there if there[kind])
    if not there[name]:
        raise OptionError(f"--device {name}: this torch finds none, try --device auto")
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    """The type that `--precision` names; auto is fp16 where it is faster and safe, on cuda."""
    if name == "auto":
        name = "fp16" if device.type == "cuda" else "fp32"
    return PRECISIONS[name]
