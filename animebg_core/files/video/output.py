"""What is made of a film's segments: a film, an animation, or numbered pictures."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import OptionError
from ..whole import part_file, whole_file
from .colour import layout_of
from .formats import CODECS, Encoding, choose_codec, encoding
from .names import ANIMATIONS, CONTAINERS, is_numbered, numbered, writes_clip
from .reading import Shape
from .writing import Trim, join


@dataclass(frozen=True, slots=True)
class FilmOutput:
    """Where a film goes, and how.

    Attributes:
        target: its name gives the format; with %05d in it, or the like, each frame is a picture.
        encoding: of the segments; where they are not packets of the result, a lossless one.
        bytes_per_pixel: of the segments, and of the result, a generous guess.
        quality: of pictures in JPEG and WebP.
    """

    target: Path
    encoding: Encoding
    bytes_per_pixel: float
    quality: int = 95

    def join(
        self,
        segments: Sequence[Path],
        source: Path | None,
        *,
        folder: Path,
        times: Sequence[int],
        last: int,
        time_base: Fraction,
        trim: Trim,
        progress: Callable[[int, int], None],
    ) -> list[str]:
        """Make the result of whole segments, whole or not at all (numbered pictures: each whole).

        Args:
            folder: where it lies until it is complete, on the same disk.
            others: see `writing.join`.

        Returns:
            What could not be kept, a line each.
        """
        if self.target.suffix.lower() in CONTAINERS:
            with part_file(self.target, folder=folder) as part:
                notes = join(
                    part,
                    self.target.suffix.lower(),
                    segments,
                    source,
                    times=times,
                    last=last,
                    time_base=time_base,
                    trim=trim,
                    progress=progress,
                )
            return notes
        pictures = self._pictures(segments, len(times), progress)
        if is_numbered(self.target):
            for number, picture in enumerate(pictures, 1):
                self._numbered(number, picture)
            return []
        self._animation(pictures, times, last, time_base, folder)
        return []

    def _pictures(
        self, segments: Sequence[Path], total: int, progress: Callable[[int, int], None]
    ) -> Iterator[Image.Image]:
        from .segments import segment_frames

        for done, pixels in enumerate(segment_frames(segments, self.encoding), 1):
            yield Image.fromarray(_eight(pixels))
            progress(done, total)

    def _numbered(self, number: int, picture: Image.Image) -> None:
        kind = Image.registered_extensions()[self.target.suffix.lower()]
        options = {"quality": self.quality} if kind in ("JPEG", "WEBP") else {}
        with whole_file(numbered(self.target, number)) as file:
            picture.save(file, kind, **options)

    def _animation(
        self,
        pictures: Iterator[Image.Image],
        times: Sequence[int],
        last: int,
        time_base: Fraction,
        folder: Path,
    ) -> None:
        ends = [*times[1:], times[-1] + max(last, 1)]
        # Each from its rounded time to the next, so that no error adds up.
        marks = [round(1000 * (time - times[0]) * time_base) for time in (*times, ends[-1])]
        durations = [max(1, b - a) for a, b in zip(marks, marks[1:], strict=False)]
        suffix = self.target.suffix.lower()
        options: dict[str, Any] = {"duration": durations, "loop": 0, "save_all": True}
        if suffix == ".gif":
            options |= {"disposal": 2 if self.encoding.pixels.alpha else 1, "optimize": False}
            pictures = map(_palette, pictures)
        elif suffix == ".webp":
            options |= {"quality": self.quality}
        first, others = next(pictures), pictures
        if suffix == ".apng":
            others = list(others)  # Pillow goes through them twice
        with whole_file(self.target, folder=folder) as file:
            first.save(file, ANIMATIONS[suffix], append_images=others, **options)


def _eight(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _palette(picture: Image.Image) -> Image.Image:
    """256 colours of the picture's own, dithered; half transparent becomes one or the other."""
    if picture.mode == "RGBA":
        return picture.quantize(method=Image.Quantize.FASTOCTREE)
    return picture.quantize(method=Image.Quantize.MEDIANCUT)


def film_output(
    target: Path,
    shape: Shape,
    *,
    codec: str | None = None,
    crf: int | None = None,
    quality: int = 95,
    vectors: bool,
) -> FilmOutput:
    """How a clip of `shape` is written to `target`.

    Args:
        codec, crf: None for the usual ones of the format.
        vectors: the processor is an x86 with AVX2.

    Raises:
        OptionError: a name, codec or crf that does not go with the others.
        VideoError: transparency that the format cannot keep.
    """
    suffix = target.suffix.lower()
    if suffix in CONTAINERS:
        name = choose_codec(codec, suffix, shape)
        encoded = encoding(name, crf, shape, vectors=vectors)
        return FilmOutput(target, encoded, CODECS[name].bytes_per_pixel)
    if not writes_clip(target):
        known = " ".join([*CONTAINERS, ".gif .webp .apng"])
        raise OptionError(f"-o {os.fspath(target)}: clips are written as {known}")
    if codec is not None or crf is not None:
        raise OptionError(f"--codec and --crf are for films, not for {suffix}")
    name = "gbrap" if shape.alpha else "gbrp"
    layout = layout_of(name)
    assert layout is not None
    rgb = Shape(
        shape.height, shape.width, shape.aspect, shape.rate, shape.time_base, shape.colours, layout
    )
    encoded = encoding("ffv1", None, rgb, vectors=vectors)
    return FilmOutput(target, encoded, CODECS["ffv1"].bytes_per_pixel, quality)
