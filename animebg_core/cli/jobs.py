"""Which file becomes which: folders are walked, and nothing is written over what is needed."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..errors import AnimeBGError, OptionError
from ..files.addresses import Address, Location, files_in, is_folder, location
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

    source: Location
    target: Location


Failure = Callable[[str, str], None]  # a path, and why it comes to nothing
Passed = dict[str, list[str]]  # why files in folders are passed over, and their paths


def plan_jobs(
    inputs: Sequence[str], output: str, mask: Path | None, failure: Failure, passed: Passed
) -> list[Job]:
    """What is to be painted, and where to; what is passed over is added to `passed`.

    Raises:
        OptionError: no photo, several for one file, two with one output, an output that is an
            input, or an output format that is not written.
        AddressError: an address that cannot be looked into.
    """
    if "" in (*inputs, output):  # such as a variable of the shell that is not set
        raise OptionError("a path is empty: name a photo or a folder, and an output")
    for given in map(location, (*inputs, output)):
        if isinstance(given, Address) and is_numbered(given):
            raise OptionError(f"{given}: numbered pictures are read and written in folders here")
    root = location(output)
    named = root.suffix.lower() in PHOTO_SUFFIXES | FILM_SUFFIXES or writes_clip(root)
    if named and not output.endswith(("/", os.sep)) and not os.path.isdir(root):
        first = location(inputs[0])
        if len(inputs) > 1 or is_folder(first):
            raise OptionError(f"-o {output} is one file, for one photo or clip: name a folder")
        return _checked([_job(first, root)], mask)
    unread: list[str] = []

    def failed(path: str, reason: str) -> None:
        unread.append(path)
        failure(path, reason)

    found = [item for given in inputs for item in _found(location(given), root, failed, passed)]
    if not found and not unread:
        raise OptionError(f"no photos or clips in {', '.join(inputs)}")
    return _checked(_named(found, root), mask)


def _job(source: Location, target: Location) -> Job:
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


def _found(
    given: Location, root: Location, failure: Failure, passed: Passed
) -> Iterator[tuple[Location, Path]]:
    """Each photo and clip in `given`, itself or in it as a folder, and its place in the output.

    Passed over in folders: hidden names, what is not named as either, what is no regular file, and
    the output folder. Links to folders are followed after all others, and no folder is walked
    twice.
    """
    if isinstance(given, Address):
        yield from _found_at(given, root, passed)
        return
    if not os.path.isdir(given):
        yield given, Path(given.name)
        return

    def unlisted(error: OSError) -> None:
        failure(str(error.filename), error.strerror or str(error))

    def over(reason: str, path: Path) -> None:
        passed.setdefault(reason, []).append(str(path))

    seen: set[tuple[int, int] | None] = set()
    ahead = [given]
    while ahead:
        top = ahead.pop(0)
        if _identity(top) in seen or (top != given and _holds(top, given)):
            over("folders linked to more than once", top)
            continue
        for folder, folders, files in os.walk(top, onerror=unlisted):
            seen.add(_identity(Path(folder)))
            walked: list[str] = []
            for name in sorted(folders):
                path = Path(folder, name)
                if name.startswith("."):
                    over("hidden", path)
                elif os.path.islink(path):
                    if not _same(path, root):
                        ahead.append(path)
                elif not _same(path, root) and _identity(path) not in seen:
                    walked.append(name)
            folders[:] = walked
            for name in sorted(files):
                path = Path(folder, name)
                reason = _passed_over(path)
                if reason:
                    over(reason, path)
                else:
                    yield path, path.relative_to(given)


def _found_at(given: Address, root: Location, passed: Passed) -> Iterator[tuple[Address, Path]]:
    """`_found`, at an address."""
    if not is_folder(given):
        yield given, Path(given.name)
        return
    for address, within in files_in(given):
        if isinstance(root, Address) and f"{address}/".startswith(f"{root}/") and root != given:
            continue
        hidden = any(part.startswith(".") for part in within.parts)
        reason = "hidden" if hidden else _misnamed(within)
        if ".." in within.parts or within.is_absolute():
            reason = "named to lie elsewhere"  # a bucket's keys may be so; no file of ours is
        if reason:
            passed.setdefault(reason, []).append(str(address))
        else:
            yield address, Path(within)


def _passed_over(path: Path) -> str | None:
    """Why a file in a folder is not taken for a photo or a clip, or None."""
    if reason := _misnamed(path):
        return reason
    if os.path.exists(path) and not os.path.isfile(path):
        return "no regular files"
    return None


def _misnamed(path: PurePath) -> str | None:
    """`_passed_over`, by the name alone."""
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in PHOTO_SUFFIXES | FILM_SUFFIXES | {".apng"}:
        return "not named as pictures"
    return None


def _holds(folder: Path, other: Path) -> bool:
    """`other` lies in `folder`, through links too."""
    return Path(os.path.realpath(other)).is_relative_to(os.path.realpath(folder))


def passed_over(passed: Passed) -> str:
    """What was passed over and why, in a line."""
    parts: list[str] = []
    for reason, paths in passed.items():
        suffixes = {Path(path).suffix.lower() or "no suffix" for path in paths}
        few = ", ".join(sorted(suffixes)[:5]) + (" ..." if len(suffixes) > 5 else "")
        named = f" ({few})" if reason == "not named as pictures" else ""
        parts.append(f"{len(paths)} {reason}{named}")
    return f"passed over: {'; '.join(parts)}"


def _named(found: Sequence[tuple[Location, Path]], root: Location) -> list[Job]:
    """A target for each: where two would have one, what changes its format keeps its whole name."""
    places = [(source, within, _target_name(source, within)) for source, within in found]
    wanted = Counter(target for _, _, target in dict.fromkeys(places))
    jobs: list[Job] = []
    for source, within, target in places:
        if wanted[target] > 1 and target != within:
            target = within.with_name(within.name + target.suffix)
        jobs.append(Job(source, root / target))
    return jobs


def _target_name(source: Location, within: Path) -> Path:
    """The input's own name where its format is written, else as .png, and for films as .mp4."""
    suffix = within.suffix.lower()
    if suffix in FORMATS or suffix in CONTAINERS or is_numbered(within):
        return within
    if suffix in ANIMATIONS and is_animation(source):
        return within
    if suffix in FILM_SUFFIXES:
        return within.with_suffix(".mp4")
    stem = within.stem if suffix in PHOTO_SUFFIXES else within.name
    return within.with_name(f"{stem}.png")


def _checked(jobs: Sequence[Job], mask: Path | None) -> list[Job]:
    """The jobs, each once, if no output is another's output or any input."""
    kept: dict[str, Job] = {}
    for job in jobs:
        other = kept.setdefault(os.path.normcase(os.path.abspath(job.target)), job)
        if other.source != job.source and not _same(other.source, job.source):
            raise OptionError(
                f"{other.source} and {job.source} would both become {job.target}: run them apart,"
                " each with an output folder of its own"
            )
    inputs = ({_identity(job.source) for job in jobs} | {_identity(mask)}) - {None}
    addresses = {str(job.source) for job in jobs if isinstance(job.source, Address)}
    for job in kept.values():
        if _identity(job.target) in inputs or str(job.target) in addresses:
            raise OptionError(f"{job.target} is an input, never overwritten: name another output")
        if os.path.exists(job.target) and not os.path.isfile(job.target):
            what = "a folder" if os.path.isdir(job.target) else "no regular file"
            raise OptionError(f"{job.target} is {what}, but a photo is to be written there")
    return list(kept.values())


def _same(one: Location, other: Location) -> bool:
    """They are one and the same existing file or folder."""
    if isinstance(one, Address) or isinstance(other, Address):
        return str(one) == str(other)
    return _identity(one) == _identity(other) is not None


def _identity(path: Location | None) -> tuple[int, int] | None:
    """What two names of one file share, through links too; None where there is no file."""
    try:
        found = os.stat(path) if path else None
    except OSError:
        found = None
    return (found.st_dev, found.st_ino) if found else None


def make_folder(folder: Location) -> None:
    """Make the output folder, and find out before any painting whether it can be written.

    At an address there may be no such thing as a folder, and only writing tells.
    """
    if isinstance(folder, Address):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnimeBGError(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AnimeBGError(f"the folder {folder} cannot be written: no permission")


def blocked(target: Location) -> str | None:
    """Why a file of that name cannot be written, as far as can be told before it is painted."""
    if isinstance(target, Address):
        return None
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except OSError as error:
        return f"{target} cannot be written: {error.strerror}"
    folder = target.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{target} cannot be written: no permission in {folder}"
    return None


def chosen(jobs: Sequence[Job], only: Path) -> list[Job]:
    """Those jobs whose photo, or a folder that it is in, stands in the list `only`.

    Raises:
        OptionError: the list cannot be read.
    """
    try:
        lines = only.read_bytes().splitlines()
    except OSError as error:
        raise OptionError(f"--retry {only}: {error.strerror}") from error
    wanted = {Path(os.path.abspath(_listed_path(line))) for line in lines if line.strip()}

    def named(job: Job) -> bool:
        path = Path(os.path.abspath(job.source))
        return not wanted.isdisjoint((path, *path.parents))

    return [job for job in jobs if named(job)]


def check_list(path: Path) -> None:
    """Refuse before any work a place for a list that cannot be written, or holds something else.

    Raises:
        OptionError: it is named as a picture or a film, is no regular file, or no list of paths.
        AnimeBGError: its folder cannot be made or written.
    """
    if path.suffix.lower() in PHOTO_SUFFIXES | FILM_SUFFIXES:
        raise OptionError(f"--failures {path} is the name of a picture or a film: name a .txt")
    if os.path.exists(path):
        if not os.path.isfile(path):
            what = "a folder" if os.path.isdir(path) else "no regular file"
            raise OptionError(f"--failures {path} is {what}: name another")
        with path.open("rb") as file:
            if b"\0" in file.read(1 << 16):  # no path has one, and hardly any other file has none
                raise OptionError(f"--failures {path} is no list, never overwritten: name another")
    make_folder(path.parent)
    if reason := blocked(path):
        raise AnimeBGError(f"--failures {reason}")


def listed(paths: Sequence[str]) -> bytes:
    """Paths, one a line; one with a line break in it as a JSON string."""
    lines = [json.dumps(path) if len(path.splitlines()) != 1 else path for path in paths]
    return b"".join(os.fsencode(line) + b"\n" for line in lines)


def _listed_path(line: bytes) -> str:
    """The inverse of `listed`, of one line."""
    text = os.fsdecode(line)
    if text.startswith('"') and text.endswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(text))
    return text
