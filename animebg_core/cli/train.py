"""`animebg train`: a style of one's own, from a folder of frames."""

from __future__ import annotations

import argparse
import datetime
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import OptionError, TrainingError
from ..files.styles import LITE_STYLES, STYLES
from .jobs import make_folder
from .options import load_network, number, share, whole_number
from .terminal import Bar, clear_line, result, say

if TYPE_CHECKING:
    from ..training.loop import Progress

HELP = "Teach a network the palette of a film, and some of its drawing, from a folder of frames."

_SAY_SECONDS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to learn from, on what, and where to."""
    add = parser.add_argument
    add("frames", type=Path, metavar="FRAMES", help="a folder of pictures, or a film")
    add("-o", "--output", type=Path, required=True, metavar="FILE.safetensors")
    text = "what you want to paint (default: the frames stand in for photos)"
    add("--photos", type=Path, metavar="FOLDER", help=text)
    known = ", ".join([*LITE_STYLES, *STYLES])
    text = f"the network to begin with: {known}, or a file (default: %(default)s)"
    add("--start", default="shinkai-lite", metavar="KEY_OR_PATH", help=text)
    text = "how far the colours go: 0 (the start's) to 1 (the frames', default)"
    add("--match", type=share, default=1.0, metavar="F", help=text)
    text = "go on to the drawing, for so long at most (default: colours alone)"
    add("--hours", type=_hours, default=0.0, metavar="H", help=text)
    add("--seed", type=_seed, default=1, metavar="N", help="of all that is drawn (default: 1)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: the fastest")
    add("--weights-dir", metavar="DIR", help="look for networks only here")


def _seed(text: str) -> int:
    return whole_number(text, 0, 2**31 - 1, "a whole number")


def _hours(text: str) -> float:
    return number(text, 0, 10_000, "hours")


def run(args: argparse.Namespace) -> int:
    """Train, or go on; returns the exit status."""
    from ..training import own
    from ..training.pictures import read_pictures

    target: Path = args.output
    if args.hours and not args.photos:
        raise OptionError("--hours needs --photos: a drawing is learned on photographs")
    if target.suffix != ".safetensors":  # also "" and ".", beside which nothing can lie
        raise OptionError(f"-o {target}: a network is written as .safetensors")
    _check_output(target, own.state_folder(target), own.sheet_path(target))
    args.style, args.precision = args.start, "fp32"  # learned in float32, whatever the device
    start = load_network(args)
    frames = read_pictures(args.frames, "frames", fewest=own.FEWEST_FRAMES)
    for note in frames.notes:
        say(note)
    photos = None
    if args.photos:
        photos = read_pictures(args.photos, "photos", fewest=own.FEWEST_PHOTOS)
        for note in photos.notes:
            say(note)
        if shared := photos.shared_with(frames):
            raise TrainingError(
                f"{shared} of the {len(photos)} photos are frames too: give photos of what you want"
                " to paint, or leave --photos away"
            )
    about = f"{len(photos)} photos" if photos else "no photos: the frames stand in for them"
    say(f"{len(frames)} frames, {about}")
    order = own.Order(start, args.start, frames, photos, match=args.match, seed=args.seed)
    training = own.begin(order, target)
    if training.step:
        say(f"going on after step {training.step} of {training.steps}")
    try:
        own.run(training, target, __version__, _Report, hours=args.hours)
    except OSError as error:
        raise TrainingError(
            f"{target} or its state cannot be written: {error.strerror or error}; what was saved"
            " before is kept, run the same again to go on"
        ) from error
    finally:
        clear_line()
    result(str(target))
    result(str(own.sheet_path(target)))
    return 0


def _check_output(target: Path, state: Path, sheet: Path) -> None:
    """Refuse before any work what could not be written at its end."""
    for path in (target, sheet):
        if os.path.lexists(path) and not state.exists():
            raise OptionError(f"{path} exists: name another output, or remove it first")
    make_folder(target.parent)


class _Report:
    """A bar, or a line now and then where there is no terminal."""

    def __init__(self, what: str, steps: int) -> None:
        self._what, self._steps = what, steps
        self._bar, self._said = Bar(), time.monotonic()

    def __call__(self, now: Progress) -> None:
        """After each step."""
        text = f"{self._what}: step {now.step} of {self._steps}"
        self._bar.show(now.step / (now.step + now.left / max(now.pace, 1e-9)), text)
        if not self._bar.visible and time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            say(f"{text}, {datetime.timedelta(seconds=round(now.left))} left")
