"""Which file becomes which: folders are walked, and nothing is written over what is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import AnimeBGError, OptionError
from ..files.photos import FORMATS, PHOTO_SUFFIXES
from ..files.video.names import (
    ANIMATIONS,
    CONTAINERS,
    FILM_SUFFIXES,
    is_animation,
    is_numbered,
    writes_clip,
)


@dataclass(frozen=True, slots=True)
class Job:
    """One photo or clip to paint, and the file to make of it."""

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
    named = root.suffix.lower() in PHOTO_SUFFIXES | FILM_SUFFIXES or writes_clip(root)
    if named and not output.endswith(("/", os.sep)) and not os.path.isdir(root):
        if len(inputs) > 1 or os.path.isdir(inputs[0]):
            raise OptionError(f"-o {output} is one file, for one photo or clip: name a folder")
        return _checked([_job(Path(inputs[0]), root)], mask)
    unread: list[str] = []

    def failed(path: str, reason: str) -> None:
        unread.append(path)
        failure(path, reason)

    found = [item for given in inputs for item in _found(Path(given), root, failed)]
    if not found and not unread:
        raise OptionError(f"no photos or clips in {', '.join(inputs)}")
    jobs = [Job(source, root / _target_name(source, place)) for source, place in found]
    return _checked(jobs, mask)


def _job(source: Path, target: Path) -> Job:
    """One file to one file.

    Raises:
        OptionError: nothing of that name can be made of it.
    """
    suffix = target.suffix.lower()
    clip = is_numbered(source) or source.suffix.lower() in FILM_SUFFIXES
    if clip or suffix in FILM_SUFFIXES or is_numbered(target):
        if not writes_clip(target):
            known = " ".join([*CONTAINERS, *ANIMATIONS])
            raise OptionError(f"-o {target}: clips are written as {known}, or as frame-%05d.png")
        if not clip and not is_animation(source):
            raise OptionError(f"-o {target} is a clip, and {source} is none")
    elif suffix not in FORMATS and not (suffix in ANIMATIONS and is_animation(source)):
        raise OptionError(f"-o {target}: written are {' '.join(FORMATS)}")
    return Job(source, target)


def _found(given: Path, root: Path, failure: Failure) -> Iterator[tuple[Path, Path]]:
    """Each photo and clip in `given`, itself or in it as a folder, and its place in the output.

    Passed over in folders: hidden names, what is not named as either, and the output folder.
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
            known = path.suffix.lower() in PHOTO_SUFFIXES | FILM_SUFFIXES | {".apng"}
            if not name.startswith(".") and known:
                yield path, path.relative_to(given)


def _target_name(source: Path, place: Path) -> Path:
    """The input's own name where its format is written, else as .png, and for films as .mp4."""
    suffix = place.suffix.lower()
    if suffix in FORMATS or suffix in CONTAINERS or is_numbered(place):
        return place
    if suffix in ANIMATIONS and is_animation(source):
        return place
    if suffix in FILM_SUFFIXES:
        return place.with_suffix(".mp4")
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
