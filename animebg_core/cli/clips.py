"""`animebg stylize` for clips: films, animations and numbered pictures, one after the other."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import AnimeBGError, VideoError
from ..files.addresses import Address, Location, fetched, sent
from ..files.video.names import FILM_SUFFIXES, is_animation, is_numbered, numbered, writes_clip
from ..painter import Painter
from .jobs import Job
from .photos import Told
from .terminal import Bar, say

if TYPE_CHECKING:
    from ..film.film import FilmRun, Progress, Report

_NEED_AV = "clips need PyAV: pip install 'animebg[video]'"


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """What only clips have."""
    add = parser.add_argument_group("clips").add_argument
    add(
        "--steadiness",
        type=_steadiness,
        metavar="F",
        help="0 (each frame for itself) to 1 (default): mix a frame with those around it",
    )
    add("--codec", choices=("h264", "hevc", "av1", "vp9", "prores", "ffv1"), help="of films")
    add("--crf", type=_crf, metavar="N", help="quality of films, less is better (default: 16)")
    add("--trim", type=_trim, metavar="A:B", help="only from second A to B, each may be left out")


def _steadiness(text: str) -> float:
    return _between(text, 0, 1, "0 to 1")


def _crf(text: str) -> int:
    value = _between(text, 0, 63, "a whole number from 0 to 63")
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"wanted a whole number from 0 to 63, got {text!r}")
    return int(value)


def _between(text: str, low: float, high: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"wanted {wanted}, got {text!r}")
    return value


def _trim(text: str) -> tuple[Fraction, Fraction | None]:
    """Seconds from and to in "1.5:3", ":3" or "1.5:"."""
    start, colon, stop = text.partition(":")
    try:
        first = Fraction(start or "0")
        last = Fraction(stop) if stop else None
    except (ValueError, ZeroDivisionError):
        colon = ""
        first, last = Fraction(0), None
    if not colon or first < 0 or (last is not None and last <= first):
        raise argparse.ArgumentTypeError(f"wanted seconds A:B, such as 10:12.5, got {text!r}")
    return first, last


def is_clip(job: Job) -> bool:
    """It is to be painted as a clip, not as a photo."""
    if is_numbered(job.source) or job.source.suffix.lower() in FILM_SUFFIXES:
        return True
    return writes_clip(job.target) and is_animation(job.source)


def is_finished(job: Job) -> bool:
    """The clip's output is there."""
    if isinstance(job.target, Address) or not is_numbered(job.target):
        return job.target.exists()
    return numbered(job.target, 1).exists()


def paint_clips(
    jobs: Sequence[Job], painter: Painter, args: argparse.Namespace, report: Told
) -> None:
    """Paint every clip; one that fails is told of, and the others go on."""
    for job in jobs:
        try:
            with fetched(job.source) as source, sent(job.target) as target:
                for note in film_run(source, target, painter, args, _Teller(job)).whole():
                    report.note(job, note)
        except (AnimeBGError, MemoryError, OSError) as error:
            report.job_failed(job, clip_failure(job.target, error))
        else:
            report.success(job)


def clip_failure(target: Location, error: BaseException) -> str:
    """Why a clip came to nothing, in a line."""
    if isinstance(error, OSError) and not isinstance(error, AnimeBGError):
        reason = error.strerror or error
        return (
            f"{target} cannot be written: {reason}; what is painted is kept, run the same"
            " again to go on"
        )
    return str(error) or "out of memory"


def film_run(
    source: Path,
    target: Path,
    painter: Painter,
    args: argparse.Namespace,
    report: Report | None = None,
) -> FilmRun:
    """A clip as the options say, not yet begun.

    Raises:
        VideoError: it cannot be read.
        OptionError: its output cannot be as the options say.
    """
    if importlib.util.find_spec("av") is None:
        raise VideoError(_NEED_AV)
    from ..files.video.output import film_output
    from ..files.video.pictures import Animation, NumberedPictures
    from ..files.video.reading import Film
    from ..files.video.writing import Trim
    from ..film.film import DEFAULT_STEADINESS, FilmRun

    is_film = source.suffix.lower() in FILM_SUFFIXES and not is_numbered(source)
    if is_film:
        clip = Film(source, args.longest)
    elif is_numbered(source):
        clip = NumberedPictures(source, args.longest)
    else:
        clip = Animation(source, args.longest)
    output = film_output(
        target,
        clip.shape,
        codec=args.codec,
        crf=args.crf,
        quality=args.quality,
        vectors=torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    return FilmRun(
        clip,
        output,
        painter,
        source=source if is_film else None,
        steadiness=DEFAULT_STEADINESS if args.steadiness is None else args.steadiness,
        trim=Trim(*args.trim) if args.trim else Trim(),
        report=report,
    )


class _Teller:
    """Says what a clip will take before it is painted, and how far it is."""

    def __init__(self, job: Job) -> None:
        self._job, self._bar = job, Bar()
        self._stage: str = ""
        self._began: tuple[float, float] | None = None  # when, and with how many frames done
        self._estimated = False

    def __call__(self, progress: Progress) -> None:
        """See `film.Report`."""
        name, now = self._job.source.name, time.monotonic()
        if progress.stage == "reading":
            self._bar.show(0, f"{progress.done:.0f} frames of {name} read")
            return
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._bar, self._began = Bar(), None
            if progress.stage == "painting":
                self._announce(progress)
        self._began = self._began or (now, progress.done)
        spent, done = now - self._began[0], progress.done - self._began[1]
        speed = f", {done / spent:.2g} a second" if spent > 1 and done > 1 else ""
        text = f"{progress.done:.0f} of {progress.total} frames of {name} {progress.stage}{speed}"
        self._bar.show(progress.done / max(progress.total, 1), text)
        if progress.stage == "painting" and done >= 4 and not self._estimated:
            self._estimated = True
            seconds = (progress.total - progress.done) * spent / done
            left = datetime.timedelta(seconds=round(seconds))
            if not self._bar.visible and left.total_seconds() > 10:
                say(f"{self._job.source}: about {left} to go")

    def _announce(self, progress: Progress) -> None:
        kept = f", {progress.kept} of them painted before" if progress.kept else ""
        room = f"; may need {progress.bytes_needed / 1e6:,.0f} MB of disk"
        say(f"{self._job.source}: {progress.total} frames{kept}{room}")
