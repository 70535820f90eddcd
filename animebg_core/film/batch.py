"""A batch of images that are a film in order: cuts, statistics and steadiness as for a clip."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files.video.pictures import picture_shape
from ..files.video.reading import Frame, Shape, glance_of
from ..files.video.writing import Trim
from ..images import check_image
from ..masks import check_strength, fit_mask, mix
from ..painter import Painter
from .frames import Frames
from .motion import find_motion
from .steady import check_steadiness
from .work import Work, make_plan

_DEPTH = 65535


@dataclass(frozen=True, slots=True)
class _Image:
    values: Tensor  # [H, W, 3 or 4]

    def pixels(self) -> NDArray[np.uint16]:
        levels = self.values.float().clamp(0, 1).mul(_DEPTH).round().to(torch.int32)
        return levels.cpu().numpy().astype(np.uint16)

    def glance(self) -> NDArray[np.float32]:
        return glance_of(self.values.float().clamp(0, 1).cpu().numpy()).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Batch:
    images: Tensor
    notes: list[str] = dataclasses.field(default_factory=list[str])
    last_ticks: int = 0

    @property
    def shape(self) -> Shape:
        return picture_shape(self.images.shape[1:], Fraction(25))

    def identity(self) -> object:
        return None

    def frames(self) -> Iterator[tuple[int, Frame]]:
        for number, image in enumerate(self.images):
            yield number, _Image(image)


def paint_batch(
    images: Tensor,
    painter: Painter,
    *,
    steadiness: float = 1.0,
    tell: Callable[[float], None] | None = None,
    finished: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Paint images as the frames of a film; see `FilmRun`.

    A shot's statistics are those of what its masks paint.

    Args:
        images: [B, H, W, 3 or 4] of floats in [0, 1], in the order of the film.
        painter: style, strength, and one mask or one for each image.
        steadiness: as for `FilmRun`.
        tell: called with the images that are done, with a fraction for the one being painted; may
            raise to stop.
        finished: called with each image [1, H, W, 3] in [0, 1], unmixed, as soon as it is painted.

    Returns:
        [B, H, W, 3 or 4] of the images' dtype, on the CPU, to 16 bits.

    Raises:
        ImageError, MaskError, OptionError: as for `stylize`, or a steadiness outside 0..1.
        MemoryBudgetError: an image does not fit the memory.
    """
    check_image(images)
    strength = check_strength(painter.strength)
    check_steadiness(steadiness)
    images = images.detach().cpu()
    masks = None if painter.mask is None else fit_mask(painter.mask, images)
    if strength == 0:
        return images.clone()
    clip, result, done, told = _Batch(images), images.clone(), 0, 0.0

    def progress(share: float) -> None:
        nonlocal told
        told = max(told, done + min(share, 0.99))  # frames are painted before others are done
        if tell:
            tell(told)

    with tempfile.TemporaryDirectory(prefix="animebg-") as folder:
        frames = Frames(
            clip,
            make_plan(clip, Trim(), step=lambda: progress(0)),
            Work(Path(folder) / "batch", {}),
            dataclasses.replace(painter, strength=1.0, mask=None),
            strength=1.0,
            steadiness=steadiness,
            motion=find_motion(),
            tell=progress,
            masks=masks,
        )
        with closing(frames.looks()) as looks:
            for index, pixels in frames.composed(range(len(images)), looks):
                painted = torch.from_numpy(pixels[..., :3].astype(np.float32) / _DEPTH)[None]
                one = slice(index, index + 1)
                amount = strength if masks is None else masks[one] * strength
                result[one] = mix(images[one].float(), painted, amount).to(result.dtype)
                done += 1
                if finished:
                    finished(painted)
                progress(0)
    return result
