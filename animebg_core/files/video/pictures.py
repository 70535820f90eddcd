"""Clips that are pictures: animations that Pillow reads, and files with numbers."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from ...errors import ImageError, VideoError
from ..photos import read_photo
from .colour import RGB, Colours, layout_of
from .containers import source_identity
from .names import numbered_files
from .reading import Frame, Shape, glance_of

_TICK = Fraction(1, 1000)
_USUAL_DURATION = 100  # milliseconds, as browsers show what names none


@dataclass(frozen=True, slots=True)
class _Picture:
    values: NDArray[np.uint8]

    def pixels(self) -> NDArray[np.uint16]:
        return self.values.astype(np.uint16) * np.uint16(257)

    def glance(self) -> NDArray[np.float32]:
        return (glance_of(self.values) / 255).astype(np.float32)


def picture_shape(size: Sequence[int], rate: Fraction) -> Shape:
    """Of a clip that is RGB pictures of that height, width and number of channels, 3 or 4."""
    height, width, channels = size
    layout = layout_of("gbrap" if channels == 4 else "gbrp")
    assert layout is not None
    return Shape(height, width, Fraction(1), rate, _TICK, Colours(RGB, True), layout)


@dataclass(slots=True)
class Animation:
    """An animated GIF, WebP or PNG.

    Raises, when opened: VideoError, in one line that does not name the file.
    """

    source: Path
    longest: int | None = None
    shape: Shape = field(init=False)
    notes: list[str] = field(init=False, default_factory=list[str])
    last_ticks: int = field(init=False, default=0)
    _clear: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        durations: list[int] = []
        first: NDArray[np.uint8] | None = None
        # All of them, since any may be the first with transparency.
        for duration, values in self._values():
            first = values if first is None else first
            durations.append(duration)
            self._clear = self._clear or bool(values[..., 3].min() < 255)
        if first is None:
            raise VideoError("it holds no picture")
        rate = Fraction(1000 * len(durations), max(1, sum(durations)))
        self.shape = picture_shape((first if self._clear else first[..., :3]).shape, rate)

    def identity(self) -> object:
        """See `Clip`."""
        return source_identity(self.source)

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """Every picture, complete, and when it is shown, in milliseconds."""
        time = 0
        for duration, values in self._values():
            yield time, _Picture(values if self._clear else values[..., :3])
            time += duration
            self.last_ticks = duration

    def _values(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        try:
            with Image.open(self.source) as image:
                for part in ImageSequence.Iterator(image):
                    shown = part.convert("RGBA")
                    if self.longest and max(shown.size) > self.longest:
                        shown.thumbnail((self.longest, self.longest), Image.Resampling.LANCZOS)
                    duration = round(float(part.info.get("duration", 0) or _USUAL_DURATION))
                    yield duration, np.asarray(shown)
        except (OSError, ValueError, SyntaxError) as error:
            raise VideoError(f"damaged, or no animation: {error}") from error


@dataclass(slots=True)
class NumberedPictures:
    """Pictures frame-00001.png, frame-00002.png and so on, by the name frame-%05d.png.

    Raises, when opened: VideoError, in one line that does not name the file.
    """

    source: Path
    longest: int | None = None
    rate: Fraction = Fraction(24)
    shape: Shape = field(init=False)
    notes: list[str] = field(init=False, default_factory=list[str])
    last_ticks: int = field(init=False, default=0)
    _files: list[Path] = field(init=False)

    def __post_init__(self) -> None:
        self._files = numbered_files(self.source)
        if not self._files:
            raise VideoError("there are no such pictures")
        self.shape = picture_shape(self._read(self._files[0]).shape, self.rate)
        self.last_ticks = self._time(1) - self._time(0)

    def _time(self, number: int) -> int:
        return round(number / self.rate / _TICK)

    def identity(self) -> object:
        """See `Clip`."""
        return [source_identity(path) for path in self._files]

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """Every picture, and when it is shown, in milliseconds."""
        for number, path in enumerate(self._files):
            values = self._read(path)
            if values.shape[:2] != (self.shape.height, self.shape.width):
                raise VideoError(
                    f"{path.name} is {values.shape[1]}x{values.shape[0]}, the first picture"
                    f" {self.shape.width}x{self.shape.height}: all must be of one size"
                )
            if self.shape.alpha and values.shape[2] == 3:
                opaque = np.full((*values.shape[:2], 1), 255, np.uint8)
                values = np.concatenate([values, opaque], -1)
            elif not self.shape.alpha:
                values = values[..., :3]
            yield self._time(number), _Picture(values)

    def _read(self, path: Path) -> NDArray[np.uint8]:
        try:
            return read_photo(path, longest=self.longest).pixels
        except ImageError as error:
            raise VideoError(f"{path.name}: {error}") from error
