"""The pictures that a style is learned from: a folder, or a film; which of them, and in memory."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, TrainingError, VideoError
from ..files.photos import PHOTO_SUFFIXES, read_photo
from ..files.video.names import FILM_SUFFIXES
from .data import shrunk

LONGEST = 720  # pixels; windows to train on are not larger
MOST = 400  # pictures kept, 0.9 MB each
_GLANCE = (16, 9)  # columns and rows of the smallest picture that tells two frames apart
# Levels of 255, root mean square over the glances. Of two films in the public domain, frames of
# one still shot differ by 0.2 to 3, those of two shots by 20 and more.
_ALIKE = 6.0
_DARK = 8.0  # the mean of the lightest tenth: below it, nothing can be seen
_FLAT = 4.0  # the deviation over the whole picture: below it, it is of one colour

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures in memory.

    Attributes:
        pixels: uint8 RGB [H, W, 3] each, at most `LONGEST` pixels long, by a name.
        notes: what was left out, and why, a line each.
    """

    pixels: Mapping[Path, Pixels]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def names(self) -> list[Path]:
        """In their order."""
        return list(self.pixels)

    def read(self, name: Path, longest: int) -> Image.Image:
        """As `data.scaled`, of a picture in memory."""
        return shrunk(Image.fromarray(self.pixels[name]), longest)

    def sha256(self) -> str:
        """Of all their pixels, in any order."""
        digests = sorted(map(_digest, self.pixels.values()))
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def shared_with(self, other: Pictures) -> int:
        """How many of them are also in `other`, pixel by pixel."""
        theirs = set(map(_digest, other.pixels.values()))
        return sum(_digest(pixels) in theirs for pixels in self.pixels.values())


def read_pictures(source: Path, what: str, *, fewest: int) -> Pictures:
    """The pictures in a folder or a film, without black ones, flat ones and near-duplicates.

    Of more than `MOST`, evenly many from all parts. A damaged one is left out, with a note.

    Args:
        what: what they are, for messages: "frames" or "photos".
        fewest: with fewer it is an error.

    Raises:
        TrainingError: there is no such folder or film, or too few pictures are in it.
    """
    if not os.path.exists(source):
        raise TrainingError(f"{what}: there is no {source}")
    notes: list[str] = []
    found = _from_film(source, notes) if os.path.isfile(source) else _from_folder(source, notes)
    kept, left_out = chosen(found)
    notes += [f"{source}: {number} {reason} left out" for reason, number in left_out.items()]
    if len(kept) < fewest:
        why = f" ({'; '.join(_short(notes))})" if notes else ""
        raise TrainingError(
            f"{source}: {len(kept)} {what} that can be learned from, and at least {fewest} are"
            f" needed{why}"
        )
    return Pictures(kept, tuple(notes))


def chosen(found: Iterable[tuple[Path, Pixels]]) -> tuple[dict[Path, Pixels], dict[str, int]]:
    """Those that show something new, and how many do not, by the reason."""
    kept: dict[Path, Pixels] = {}
    glances: list[NDArray[np.float32]] = []
    left_out: dict[str, int] = {}
    every, number = 1, 0  # with many, every second of those kept so far, and of those to come
    for name, pixels in found:
        reason = _shows_nothing(pixels)
        glance = _glance(pixels)
        if not reason and any(_distance(glance, other) < _ALIKE for other in glances):
            reason = "nearly the same as others"
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        number += 1
        if number % every:
            continue
        kept[name] = pixels
        glances.append(glance)
        if len(kept) > MOST:
            kept = dict(list(kept.items())[::2])
            glances = glances[::2]
            every *= 2
    return kept, left_out


def _shows_nothing(pixels: Pixels) -> str:
    light = pixels.max(axis=2)
    if np.mean(light[light >= np.quantile(light, 0.9)]) < _DARK:
        return "black"
    if np.sqrt(pixels.reshape(-1, 3).var(axis=0).mean()) < _FLAT:
        return "of one colour"
    return ""


def _glance(pixels: Pixels) -> NDArray[np.float32]:
    small = Image.fromarray(pixels).resize(_GLANCE, Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def _distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(one - other).mean()))


def _from_folder(folder: Path, notes: list[str]) -> Iterator[tuple[Path, Pixels]]:
    """Every picture in a folder and in those in it, by name; links to folders are not followed."""
    names: list[Path] = []
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [
            Path(top, name)
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES
        ]
    for name in names:
        try:
            if not os.path.isfile(name):
                raise ImageError("no regular file")
            pixels = read_photo(name, longest=LONGEST).pixels
        except ImageError as error:
            notes.append(f"{name}: {error}")
            continue
        if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
            notes.append(f"{name}: it has transparency, which a frame has not")
            continue
        yield name, np.ascontiguousarray(pixels[..., :3])


def _from_film(path: Path, notes: list[str]) -> Iterator[tuple[Path, Pixels]]:
    """Frames of a film, by their times."""
    if path.suffix.lower() not in FILM_SUFFIXES:
        raise TrainingError(f"{path} is neither a folder of pictures nor a film")
    if importlib.util.find_spec("av") is None:
        raise TrainingError("frames of a film need PyAV: pip install 'animebg[video]'")
    from ..files.video.reading import Film

    try:
        film = Film(path, LONGEST)
        # Key frames are decoded in no time, and of a long film they suffice.
        times = [time for time, _ in film.frames(keys=True)]
        keys = len(times) >= MOST
        last: NDArray[np.float32] | None = None
        for time, frame in film.frames(keys=keys):
            # Most frames are like the one before: a glance tells, without their pixels.
            glance = frame.glance() * 255
            if last is not None and _distance(glance, last) < _ALIKE:
                continue
            last = glance
            pixels = frame.pixels()[..., :3]
            seconds = float(time * film.shape.time_base)
            yield path / f"{seconds:.3f}", (pixels >> 8).astype(np.uint8)
    except VideoError as error:
        raise TrainingError(f"{path}: {error}") from error
    notes += [f"{path}: {note}" for note in film.notes]


def _short(notes: Sequence[str]) -> list[str]:
    few = [" ".join(note.split()) for note in notes[:3]]
    return [*few, f"and {len(notes) - 3} more"] if len(notes) > 3 else few


def _digest(pixels: Pixels) -> str:
    shape = np.asarray(pixels.shape, np.int64).tobytes()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()
