"""Paints what a node, the command, a film or a cluster's worker has, in the memory there is: the
plan, and the smaller plan where memory runs out all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .engine.device import Device, empty_cache, out_of_memory
from .engine.plan import RunPlan, plan_run
from .engine.statistics import Statistics
from .errors import ImageError, MemoryBudgetError
from .network.generator import Generator
from .pipeline import (
    Detail,
    Progress,
    gather_statistics,
    plan_size,
    stylize,
    stylize_bytes,
)
from .upsampling import painted_size

Preview = Callable[[Tensor], None]  # as for `stylize`
Pixels = NDArray[Any]  # [H, W, 3 or 4] uint8 or uint16

_log = logging.getLogger(__name__)


class Memory(Protocol):
    """The memory in which a network runs, as whoever manages it tells of it."""

    def free(self) -> int | None:
        """Bytes that a run may take; None where nobody knows."""
        ...

    def reserve(self, count: int) -> None:
        """Make so many bytes free, as far as that can be done, just before a run takes them."""
        ...

    def exhausted(self, error: BaseException) -> bool:
        """Whether an error says that there was no room left."""
        ...

    def release(self) -> None:
        """Give back what a failed run left in caches."""
        ...


class OwnMemory:
    """The memory of a generator's device, where this process manages it alone."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def free(self) -> int | None:
        """See `Memory`."""
        return Device.of(self._generator).free_memory()

    def reserve(self, count: int) -> None:
        """Nothing else is there that could go."""
        del count

    def exhausted(self, error: BaseException) -> bool:
        """See `Memory`."""
        return out_of_memory(error)

    def release(self) -> None:
        """See `Memory`."""
        empty_cache(self._generator.device)


@dataclass(frozen=True, slots=True)
class Painter:
    """A style, and how everything is painted in it.

    Attributes:
        generator: the style.
        strength: 0 is the photo, 1 the painting, between them a mixture.
        mask: [1, H, W] float32 of any size, 1 where to paint; None for everywhere.
        painting_size, detail, colour: as for `stylize`.
        memory_limit: bytes that a run may take; None for what `memory` says is free.
        memory: None: the generator's device, managed by this process alone.
    """

    generator: Generator
    strength: float = 1.0
    mask: Tensor | None = None
    painting_size: int = 0
    detail: Detail = "photo"
    colour: float = 1.0
    memory_limit: int | None = None
    memory: Memory = field(default=None)  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        # The default needs the generator, which a default factory does not see.
        if self.memory is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "memory", OwnMemory(self.generator))

    def paint(
        self,
        pixels: Pixels,
        *,
        statistics: Statistics | None = None,
        progress: Progress | None = None,
    ) -> Pixels:
        """Pixels painted: a new array of the same shape and type.

        Args:
            pixels: [H, W, 3 or 4] uint8 or uint16, RGB or RGB and straight alpha, which is kept.
            statistics: as for `stylize`.
            progress: as for `stylize`; a smaller plan begins anew.

        Raises:
            MemoryBudgetError: not even the most frugal way fits the memory.
        """
        size = pixels.shape[0], pixels.shape[1]
        smaller = painted_size(*size, self.painting_size) != size
        if smaller and self.detail == "photo" and pixels.dtype == np.uint8:
            # No picture of floats at full size: a quarter of the memory there.
            images = torch.from_numpy(np.ascontiguousarray(pixels)[None])  # pyright: ignore[reportUnknownMemberType]
            return self._paint(images, statistics, progress, None)[0].cpu().numpy()
        image = image_of(pixels)
        return pixels_of(self.paint_images(image, statistics=statistics, progress=progress), pixels)

    def paint_images(
        self,
        images: Tensor,
        *,
        statistics: Statistics | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Tensor:
        """`stylize` of images [B, H, W, C], by the fastest plan that fits the memory.

        Raises:
            MemoryBudgetError: not even the most frugal way fits the memory.
        """
        return self._paint(images, statistics, progress, preview)

    def _paint(
        self,
        images: Tensor,
        statistics: Statistics | None,
        progress: Progress | None,
        preview: Preview | None,
    ) -> Tensor:
        """As `paint_images`, of floats or, to be guided by the photo from a smaller size, bytes."""
        run = partial(
            stylize_bytes if images.dtype == torch.uint8 else partial(stylize, detail=self.detail),
            strength=self.strength,
            mask=self.mask,
            statistics=statistics,
            progress=progress,
            painting_size=self.painting_size,
            colour=self.colour,
            preview=preview,
        )
        plan = self._plan(images)
        while True:
            _log.debug("%dx%d: %s", images.shape[2], images.shape[1], plan)
            self.memory.reserve(plan.peak_bytes)
            try:
                return run(images, self.generator, plan=plan)
            except (RuntimeError, MemoryError) as error:
                if not self.memory.exhausted(error):
                    raise
            # Not above: while the error lives, its traceback holds the tensors of the failed try.
            self.memory.release()
            plan = self._smaller(plan, images)

    def gather(
        self,
        pictures: Sequence[Pixels],
        *,
        masks: Sequence[Tensor] | None = None,
        progress: Progress | None = None,
    ) -> Statistics:
        """The statistics of pictures [H, W, 3 or 4] uint8 or uint16 together, of what their masks
        paint; see `gather_statistics`. (The painter's own mask plays no part.)
        """
        budget = self.memory_limit or self.memory.free()
        images = [image_of(pixels) for pixels in pictures]
        return gather_statistics(
            images,
            self.generator,
            budget=budget,
            progress=progress,
            painting_size=self.painting_size,
            masks=masks,
        )

    def _plan(self, images: Tensor) -> RunPlan:
        """The fastest plan for the limit, or where there is none for what can be had.

        Raises:
            MemoryBudgetError: there is none, even after room has been made.
        """
        if self.memory_limit:
            return self._within(images, self.memory_limit)
        try:
            return self._within(images, self.memory.free())
        except MemoryBudgetError as error:
            # Others stay where a slower plan fits beside them; where none does, they go.
            self.memory.reserve(error.needed)
        return self._within(images, self.memory.free())

    def _within(self, images: Tensor, budget: int | None) -> RunPlan:
        batch, *size = images.shape[:3]
        height, width = plan_size(size[0], size[1], self.painting_size, self.detail)
        masked = self.mask is not None
        if budget is None:
            budget = 1 << 62  # nobody knows: the fastest plan, and smaller ones when it fails
        return plan_run(self.generator, height, width, batch=batch, budget=budget, masked=masked)

    def _smaller(self, plan: RunPlan, images: Tensor) -> RunPlan:
        """A plan for less memory than one that ran out: half the batch, then 3/4 of the bytes, or
        as much of them as the most frugal plans need.

        Raises:
            MemoryBudgetError: there is none.
        """
        if plan.batch > 1:
            return replace(plan, batch=plan.batch // 2, peak_bytes=plan.peak_bytes // 2)
        try:
            return self._within(images[:1], plan.peak_bytes * 3 // 4)
        except MemoryBudgetError:
            return self._within(images[:1], plan.peak_bytes - 1)


def image_of(pixels: Pixels) -> Tensor:
    """Pixels [H, W, C] uint8 or uint16 as an image [1, H, W, C] float32 in [0, 1].

    The inverse of `pixels_of`.

    Raises:
        ImageError: another type.
    """
    if str(pixels.dtype) not in ("uint8", "uint16"):
        raise ImageError(f"expected pixels of 8 or 16 bits, uint8 or uint16, got {pixels.dtype}")
    largest = np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(np.divide(pixels, largest, dtype=np.float32)[None])  # pyright: ignore[reportUnknownMemberType]


def pixels_of(image: Tensor, like: Pixels) -> Pixels:
    """An image [1, H, W, C] in [0, 1] as pixels [H, W, C] of the type of `like`, rounded.

    The image may be overwritten.
    """
    values = image[0].cpu().numpy()
    np.multiply(values, np.iinfo(like.dtype).max, out=values)
    np.rint(values, out=values)
    return values.astype(like.dtype)
