"""Which file becomes which: folders are walked, and nothing is written over what is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import AnimeBGError, OptionError
from ..files.photos import FORMATS, PHOTO_SUFFIXES


@dataclass(frozen=True, slots=True)
class Job:
    """One photo to paint, and the file to make of it."""

    source: Path
    target: Path


Failure = Callable[[str, str], None]  # a path, and why it comes to nothing


def plan_jobs(inputs: Sequence[str], output: str, mask: Path | None, failure: Failure) -> list[Job]:
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
    unread: list[str] = []

    def failed(path: str, reason: str) -> None:
        unread.append(path)
        failure(path, reason)

    found = [item for given in inputs for item in _found(Path(given), root, failed)]
    if not found and not unread:
        raise OptionError(f"no photos in {', '.join(inputs)}")
    return _checked([Job(source, root / _target_name(place)) for source, place in found], mask)


def _found(given: Path, root: Path, failure: Failure) -> Iterator[tuple[Path, Path]]:
    """Each photo in `given`, itself or in it as a folder, and its place below the output folder.

    Passed over in folders: hidden names, what is not named as a photo, and the output folder.
    """
    if not os.path.isdir(given):
        yield given, Path(given.name)
        return

    def unlisted(error: OSError) -> None:
        failure(str(error.filename), error.strerror or str(error))

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


def make_folder(folder: Path) -> None:
    """Make the output folder, and find out before any painting whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnimeBGError(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AnimeBGError(f"the folder {folder} cannot be written: no permission")
