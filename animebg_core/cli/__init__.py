"""The `animebg` command: arguments, files and progress; the work itself is `pipeline.stylize`.

Results go to standard output (a path per line), everything else to standard error. Exit status:
0 done, 1 something failed and the rest is done, 2 a wrong command, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import logging
import math
import os
import re
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Yields
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from PIL import Image

from .. import __version__
from ..errors import AnimeBGError, ImageError, MaskError, OptionError, StyleError, WeightsError
from ..files.photos import (
    FORMATS,
    MAX_PIXELS,
    PHOTO_SUFFIXES,
    Photo,
    fitted,
    read_mask,
    read_photo,
    write_photo,
)
from ..files.styles import DEFAULT_STYLE, LITE_STYLES, STYLES
from ..files.weights import find_weights, resolve_weights
from ..network.checkpoint import convert, load_generator
from ..network.generator import Generator
from ..painter import Painter

_log = logging.getLogger(__name__)

_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own if None); returns the exit status."""
    args = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        with _orderly_end(), _messages(verbose=getattr(args, "verbose", False)):
            return run(args)
    except (StyleError, OptionError, MaskError) as error:
        _say(f"error: {error}")
        return 2
    except (AnimeBGError, OSError) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; what is finished is whole, run the same again to go on")
        return 130


# --- arguments ---


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(2, f"animebg: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="animebg", description="Photos to anime backgrounds.")
    parser.add_argument("--version", action="version", version=f"animebg {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(run: Callable[[argparse.Namespace], int], name: str, text: str) -> _Parser:
        # No abbreviations: an option added later must not change what one means.
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    _add_stylize_arguments(command(_stylize, "stylize", "Paint photos, or folders of them."))
    command(_styles, "styles", "List the styles, and where each is installed.")
    fetch = command(_download, "download", "Download networks.")
    known = ", ".join(STYLES)
    fetch.add_argument("styles", nargs="*", metavar="STYLE", help=f"{known} (default: all)")
    change = command(_convert, "convert", "Write a .pth checkpoint as .safetensors.")
    change.add_argument("source", type=Path, metavar="IN")
    change.add_argument("target", type=Path, metavar="OUT")
    return parser


def _add_stylize_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    known = ", ".join([*STYLES, *LITE_STYLES])
    precisions = ("auto", *_PRECISIONS)
    add("photos", nargs="+", metavar="PHOTO", help="a photo, or a folder to walk")
    add(
        "-o",
        "--output",
        required=True,
        metavar="FILE_OR_FOLDER",
        help="for one photo a file named .jpg, .png, .webp, .tif or .bmp; else a folder",
    )
    add(
        "--style",
        default=DEFAULT_STYLE,
        metavar="KEY_OR_PATH",
        help=f"{known}, or a checkpoint file (default: %(default)s)",
    )
    add("--strength", type=_strength, default=1.0, metavar="F", help="0 (photo) to 1 (default)")
    add("--mask", type=Path, metavar="FILE", help="paint only where this picture is white")
    add("--longest", type=_pixels, metavar="N", help="first shrink the longer side to N pixels")
    devices = ("auto", "cpu", "cuda", "mps")
    add("--device", choices=devices, default="auto", help="auto: the fastest there is")
    add("--precision", choices=precisions, default="auto", help="auto: fp16 on cuda, else fp32")
    add("--memory-limit", type=_bytes, metavar="SIZE", help="such as 2GB (default: what is free)")
    add("--weights-dir", metavar="DIR", help="look for networks only here")
    add("--quality", type=_quality, default=95, metavar="N", help="of JPEG and WebP (default: 95)")
    add("--overwrite", action="store_true", help="paint again what is finished")
    add("--verbose", action="store_true", help="say what is chosen")


def _number(text: str, low: float, high: float, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # NaN too
        raise argparse.ArgumentTypeError(f"wanted {wanted}, got {text!r}")
    return value


def _strength(text: str) -> float:
    return _number(text, 0, 1, "0 to 1")


def _integer(text: str, low: int, high: float, wanted: str) -> int:
    value = _number(text, low, high, wanted)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"wanted {wanted}, got {text!r}")
    return int(value)


def _pixels(text: str) -> int:
    return _integer(text, 1, 1e9, "a whole number of pixels")


def _quality(text: str) -> int:
    return _integer(text, 1, 100, "1 to 100")


def _bytes(text: str) -> int:
    """Bytes in "2GB" (10^9), "2GiB" (2^30), "512MB" or "1000000"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:([kmgt])(i?))?b?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"wanted a size like 2GB or 512MiB, got {text!r}")
    base = 1024 if match[3] else 1000
    value = int(float(match[1]) * base ** (" kmgt".index(match[2] or " ")))
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted more than 0 bytes, got {text!r}")
    return value


# --- stylize: which photo goes where ---


@dataclass(frozen=True, slots=True)
class Job:
    """One photo to paint, and the file to make of it."""

    source: Path
    target: Path


class _Report:
    """Counts what became of the photos, and says so: a line for each, and a bar in between."""

    def __init__(self) -> None:
        self.total = 0
        self.finished = 0
        self.failed = 0
        self.bar = _Bar()

    def success(self, job: Job) -> None:
        """`job.target` is complete."""
        self.finished += 1
        if self.bar.visible:
            _clear_line()
        else:
            _say(f"{self.finished} of {self.total}: {job.source}")
        _result(str(job.target))

    def failure(self, source: str | Path, reason: object) -> None:
        """`source` came to nothing; the others go on."""
        self.failed += 1
        _say(f"{source}: {reason}")

    def progress(self, index: int, job: Job, done: int, total: int) -> None:
        """Of the photo `job`, number `index` from 0, `done` of `total` is painted."""
        share = done / total
        text = f"{index}/{self.total} photos, {share:.0%} of {job.source.name}"
        self.bar.show((index + share) / self.total, text)


def _jobs(inputs: Sequence[str], output: str, mask: Path | None, report: _Report) -> list[Job]:
    """What is to be painted, and where to.

    Raises:
        OptionError: no photo, several for one file, two with one output, an output that is an
            input, or an output format that is not written.
    """
    root = Path(output)
    is_file = root.suffix.lower() in PHOTO_SUFFIXES and not output.endswith(("/", os.sep))
    if is_file and not os.path.isdir(root):
        if len(inputs) > 1 or os.path.isdir(inputs[0]):
            raise OptionError(f"-o {output} is one file, for one photo: name a folder")
        if root.suffix.lower() not in FORMATS:
            raise OptionError(f"-o {output}: written are {' '.join(FORMATS)}")
        return _checked([Job(Path(inputs[0]), root)], mask)
    found = [item for given in inputs for item in _found(Path(given), root, report)]
    if not found and not report.failed:
        raise OptionError(f"no photos in {', '.join(inputs)}")
    return _checked([Job(source, root / _target_name(place)) for source, place in found], mask)


def _found(given: Path, root: Path, report: _Report) -> Iterator[tuple[Path, Path]]:
    """Each photo in `given`, itself or in it as a folder, and its place below the output folder.

    Passed over in folders: hidden names, what is not named as a photo, and the output folder.
    """
    if not os.path.isdir(given):
        yield given, Path(given.name)
        return

    def unlisted(error: OSError) -> None:
        report.failure(error.filename, error.strerror)

    for folder, folders, files in os.walk(given, onerror=unlisted):
        shown = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in shown if not _same(Path(folder, name), root)]
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in PHOTO_SUFFIXES:
                yield path, path.relative_to(given)


def _target_name(place: Path) -> Path:
    """The input's own name where its format is written, else as .png."""
    suffix = place.suffix.lower()
    if suffix in FORMATS:
        return place
    stem = place.stem if suffix in PHOTO_SUFFIXES else place.name
    return place.with_name(f"{stem}.png")


def _checked(jobs: Sequence[Job], mask: Path | None) -> list[Job]:
    """The jobs, each once, if no output is another's output or any input."""
    kept: dict[str, Job] = {}
    for job in jobs:
        other = kept.setdefault(os.path.normcase(os.path.abspath(job.target)), job)
        if other.source != job.source and not _same(other.source, job.source):
            raise OptionError(
                f"{other.source} and {job.source} would both become {job.target}: run them apart"
            )
    inputs = ({_identity(job.source) for job in jobs} | {_identity(mask)}) - {None}
    for job in kept.values():
        if _identity(job.target) in inputs:
            raise OptionError(f"{job.target} is an input, never overwritten: name another output")
        if job.target.is_dir():
            raise OptionError(f"{job.target} is a folder, but a photo is to be written there")
    return list(kept.values())


def _same(one: Path, other: Path) -> bool:
    """They are one and the same existing file or folder."""
    return _identity(one) == _identity(other) is not None


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What two names of one file share, through links too; None where there is no file."""
    try:
        found = os.stat(path) if path else None
    except OSError:
        found = None
    return (found.st_dev, found.st_ino) if found else None


# --- stylize: the work ---


def _stylize(args: argparse.Namespace) -> int:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses twice that, and warns below
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    report = _Report()
    jobs = _jobs(args.photos, args.output, args.mask, report)
    todo = [job for job in jobs if args.overwrite or not job.target.exists()]
    if len(todo) < len(jobs):
        _say(f"{len(jobs) - len(todo)} finished before, left as they are (see --overwrite)")
    if todo:
        _make_folder(todo[0].target.parent)
        painter = Painter(_generator(args), args.strength, _mask(args.mask), args.memory_limit)
        report.total = len(todo)
        _paint_all(todo, painter, report, longest=args.longest, quality=args.quality)
    if report.failed and len(jobs) > 1:
        _say(f"{report.finished} painted, {report.failed} failed")
    return 1 if report.failed else 0


def _make_folder(folder: Path) -> None:
    """Make the output folder, and find out before any painting whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnimeBGError(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AnimeBGError(f"the folder {folder} cannot be written: no permission")


def _generator(args: argparse.Namespace) -> Generator:
    device = _device(args.device)
    dtype = _dtype(args.precision, device)
    generator = load_generator(
        args.style,
        weights_dir=args.weights_dir,
        device=device,
        dtype=dtype,
        progress=_DownloadBar(args.style),
    )
    _log.debug("style %s on %s, %s", args.style, device, dtype)
    return generator


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
    return _PRECISIONS[name]


def _mask(path: Path | None) -> torch.Tensor | None:
    if path is None:
        return None
    try:
        return torch.as_tensor(read_mask(path))[None]
    except ImageError as error:
        raise MaskError(f"--mask {path}: {error}") from error


def _paint_all(
    jobs: Sequence[Job], painter: Painter, report: _Report, *, longest: int | None, quality: int
) -> None:
    """Read, paint and write every job; meanwhile the next is read and the last one written.

    At most three photos are in memory, one at each step.
    """

    def read(job: Job) -> Photo:
        return fitted(read_photo(job.source, longest=longest), job.target)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(read, jobs[0])
        written: tuple[Job, Future[None]] | None = None
        try:
            for index, job in enumerate(jobs):
                try:
                    photo = ahead.result()
                except ImageError as error:
                    photo = None
                    report.failure(job.source, error)
                if index + 1 < len(jobs):
                    ahead = reader.submit(read, jobs[index + 1])
                if photo is None:
                    continue
                for note in photo.notes:
                    _say(f"{job.source}: {note}")
                try:
                    pixels = painter.paint(
                        photo.pixels, progress=partial(report.progress, index, job)
                    )
                except (AnimeBGError, MemoryError) as error:
                    report.failure(job.source, error or "out of memory")
                    continue
                _settle(written, report)
                written = (
                    job,
                    writer.submit(
                        write_photo,
                        dataclasses.replace(photo, pixels=pixels),
                        job.target,
                        quality=quality,
                    ),
                )
        finally:
            # Interrupted or not, a photo that is being written is finished and counted.
            _settle(written, report)


def _settle(written: tuple[Job, Future[None]] | None, report: _Report) -> None:
    """Wait until a photo is written, and report it."""
    if written is None:
        return
    job, future = written
    try:
        future.result()
    except (AnimeBGError, OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error or "out of memory"
        report.failure(job.source, f"{job.target} cannot be written: {reason}")
    else:
        report.success(job)


# --- the other commands ---


def _styles(args: argparse.Namespace) -> int:
    del args
    rows = [("key", "style", "licence", "installed")]
    for style in (*STYLES.values(), *LITE_STYLES.values()):
        place = find_weights(style)
        rows.append((style.key, style.label, style.licence, str(place or "not installed")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        _result("  ".join([*cells, row[3]]))
    return 0


def _download(args: argparse.Namespace) -> int:
    keys: list[str] = args.styles or list(STYLES)
    known = {**STYLES, **LITE_STYLES}
    if unknown := [key for key in keys if key not in known]:
        raise StyleError(f"unknown style {unknown[0]!r}: choose from {', '.join(known)}")
    failed = False
    for key in keys:
        try:
            path = resolve_weights(key, progress=_DownloadBar(key))
        except WeightsError as error:
            failed = True
            _say(f"{key}: {error}")
        else:
            _result(str(path))
    return 1 if failed else 0


def _convert(args: argparse.Namespace) -> int:
    source: Path = args.source
    target: Path = args.target
    if target.exists():
        raise OptionError(f"{target} exists: name another output, or remove it first")
    convert(source, target)
    _result(str(target))
    return 0


# --- messages ---


class _Bar:
    """How far it is, on the last line of a terminal; nothing where standard error is none."""

    def __init__(self) -> None:
        self.visible = sys.stderr is not None and sys.stderr.isatty()
        self._began: tuple[float, float] | None = None  # time and share when first shown
        self._drawn = 0.0

    def show(self, share: float, text: str) -> None:
        """Draw `share`, 0 to 1, `text` and the time left; at most ten times a second."""
        now = time.monotonic()
        if not self.visible or now - self._drawn < 0.1:
            return
        self._drawn = now
        self._began = self._began or (now, share)
        spent, gained = now - self._began[0], share - self._began[1]
        left = ""
        if spent > 1 and gained > 0:  # before, it is a guess
            seconds = round(spent / gained * (1 - share))
            left = f", {datetime.timedelta(seconds=seconds)} left"
        line = f"[{'#' * int(share * 20):20}] {text}{left}"
        width = shutil.get_terminal_size().columns - 1
        _write(f"\r{line[:width]:{width}}")


class _DownloadBar(_Bar):
    """The `progress` of a download; says that there is one when it begins."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._announced = False

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` bytes have come."""
        if not self._announced:
            self._announced = True
            _say(f"downloading {self._name}, {total / 1e6:.0f} MB")
        self.show(done / total, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")
        if done >= total:
            _clear_line()


@contextmanager
def _messages(verbose: bool) -> Yields[None]:
    """The package's log, and warnings of libraries, as lines on standard error."""
    if not verbose:
        # Read when the hub's library loads; it would tell of every attempt at a connection.
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    handler = _LogHandler()
    log = logging.getLogger("animebg_core")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            yield
    finally:
        log.removeHandler(handler)


def _say_warning(message: Warning | str, *details: object) -> None:
    _say(f"warning: {message}")


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


@contextmanager
def _orderly_end() -> Yields[None]:
    """While this holds, SIGTERM ends the run as Ctrl-C does: nothing half written stays."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    """One line to standard error."""
    _clear_line()
    _write("animebg: " + " ".join(str(text).splitlines()) + "\n")


def _clear_line() -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        _write(f"\r{'':{width}}\r")


def _write(text: str) -> None:
    """Write to standard error, if there is one and anybody reads it: no reason to stop working."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def _result(line: str) -> None:
    """One line to standard output; when nobody reads it any more, the work goes on without."""
    try:
        print(line, flush=True)
    except UnicodeEncodeError:
        # A name that the terminal cannot show, or that is no valid text.
        print(line.encode("ascii", "backslashreplace").decode(), flush=True)
    except BrokenPipeError:
        # So that Python's last flush at exit finds nothing wrong either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
