"""A painting by the network: at the photo's size, or at a smaller one and brought back to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .engine import stream
from .engine.device import Device
from .engine.plan import RunPlan
from .engine.statistics import Statistics
from .engine.transfers import Transfers
from .images import extend, to_image, to_network, to_unit
from .masks import fill_outside, fit_mask, statistics_weight
from .network.generator import Generator
from .upsampling import fit, painted_size, shrink, upsample

Write = Callable[[int, Tensor], None]  # takes a first row, and rows [N, h, W, 3] float32 from it on

# Work of reading a pixel of a photo to shrink it, and of bringing the painting to it: as many
# multiplications of the network as take the same time on two cores.
SHRINK_WORK, UPSAMPLE_WORK = 4_000, 12_000
_TINY = torch.finfo(torch.float32).tiny
_ROWS = 64  # of the full-size photo at a time


@dataclass(frozen=True, slots=True)
class Brush:
    """What pictures are painted with, at whatever size.

    Attributes:
        generator: the style.
        plan: for the largest size that is painted.
        statistics: those that all are painted under; None: each picture's own.
        step: called with the work done in every strip; may raise to stop.
        transfers: to the generator's device and from it.
    """

    generator: Generator
    plan: RunPlan
    statistics: Statistics | None
    step: Callable[[int], None]
    transfers: Transfers

    def paint(self, photo: Tensor, mask: Tensor | None, write: Write) -> None:
        """Paint photos [N, H, W, C] of floats together, at their own size, wherever their masks
        [N, H, W] are not 0 and beyond.
        """
        height, width = photo.shape[1:3]
        device, side = Device.of(self.generator), self.generator.design.min_side
        colours = photo[..., :3]
        image = extend(colours if mask is None else fill_outside(colours, mask), side)
        if self.statistics is None:
            colour = to_network(image.mean((1, 2), True, dtype=torch.float32))[:, :, 0, 0]
        else:
            colour = self.statistics.colour

        def finish(start: int, rows: Tensor) -> None:
            rows = rows[:, :, : max(0, height - start), :width]
            if rows.shape[2]:  # the network's output is rounded up
                write(start, to_image(rows))

        weight = None
        if mask is not None and self.statistics is None:
            seen = extend(statistics_weight(mask)[..., None], side)
            weight = seen.permute(0, 3, 1, 2)
        stream.paint(
            self.generator,
            self.plan,
            picture_of(image, colour, device, self.transfers, weight),
            finish,
            statistics=self.statistics,
            step=self.step,
        )

    def paint_small(
        self,
        photo: Tensor,
        mask: Tensor | None,
        size: tuple[int, int],
        room: Tensor | None,
        write: Write,
        preview: Callable[[Tensor], None] | None,
    ) -> None:
        """Paint photos [N, H, W, C] of floats or bytes at `size`, and bring that to their own.

        Args:
            photo, mask, write: as for `paint`.
            size: height and width, both of them no larger.
            room: [N, H, W, C] of floats: the full-size painting is laid there, and guides; None:
                the photo guides.
            preview: called with the small painting [N, h, w, 3].
        """
        small, spread, seen = self._shrunk(photo, mask, size)
        painting = torch.empty_like(small)

        def keep(start: int, rows: Tensor) -> None:
            painting[:, start : start + rows.shape[1]] = rows

        self.paint(small, seen, keep)
        if preview:
            preview(painting)
        guide = photo
        if room is not None:
            guide = room[..., :3]

            def lay(start: int, rows: Tensor) -> None:
                guide[:, start : start + rows.shape[1]] = rows.to(guide)

            self.paint(photo, mask, lay)
            small, spread, seen = self._shrunk(guide, mask, size)
        if seen is not None:
            small = fill_outside(small, seen)
        height, width = photo.shape[1:3]
        maps = fit(*(part.movedim(-1, 1) for part in (small, painting, spread)))
        for start in range(0, height, _ROWS):
            stop = min(start + _ROWS, height)
            rows = upsample(maps, _colours(guide, start, stop, self.transfers), start, height)
            write(start, rows.movedim(1, -1))
            self.step((stop - start) * width * UPSAMPLE_WORK)

    def _shrunk(
        self, image: Tensor, mask: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `_smaller`, on the generator's device."""
        width = image.shape[2]

        def step(rows: int) -> None:
            self.step(rows * width * SHRINK_WORK)

        return _smaller(image, mask, size, self.transfers, step)


def _smaller(
    image: Tensor,
    mask: Tensor | None,
    size: tuple[int, int],
    transfers: Transfers,
    step: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images [N, H, W, C] at `size`: [N, h, w, 3] float32 where transfers go, the variance within
    each pixel [N, h, w, 1], and their masks [N, h, w].

    What a mask leaves out counts for nothing.
    """
    height, width = image.shape[1:3]

    def read(start: int, stop: int) -> Tensor:
        colours = _colours(image, start, stop, transfers)
        parts = [colours, colours.square().mean(1, keepdim=True)]
        if mask is None:
            return torch.cat(parts, 1)
        amount = transfers.up(mask[:, start:stop])[:, None]
        counts = (amount > 0).float()
        return torch.cat([*(part * counts for part in parts), counts, amount], 1)

    made = shrink(read, height, width, size, rows=_ROWS, step=step)
    means, seen = made[:, :4], None
    if mask is not None:
        means, seen = means / made[:, 4:5].clamp_min(_TINY), made[:, 5]
    small = means[:, :3]
    spread = (means[:, 3:] - small.square().mean(1, keepdim=True)).clamp_min(0)
    return small.movedim(1, -1).contiguous(), spread.movedim(1, -1), seen


def shrunk(
    image: Tensor, painting_size: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """An image [N, H, W, 3 or 4] of floats, and its mask [N, H, W], as the network sees them at
    that painting size: [N, h, w, 3]; themselves, where that is their own.
    """
    height, width = image.shape[1:3]
    size = painted_size(height, width, painting_size)
    if size == (height, width):
        return image, mask
    small, _, seen = _smaller(image, mask, size, Transfers(image.device))
    return small, seen


def samples(
    images: Sequence[Tensor], masks: Sequence[Tensor] | None, painting_size: int, side: int
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Images [B, H, W, 3 or 4] as the pictures [1, h, w, 3] that statistics are gathered from, and
    what each of their pixels counts for, [1, 1, h, w] or None.

    Those of which a mask leaves nothing are not among them, unless it leaves nothing of any: then
    all are, as if there were no masks.
    """
    alone = [image.detach()[at : at + 1] for image in images for at in range(image.shape[0])]
    seen: list[tuple[Tensor, Tensor | None]] = []
    if masks is not None:
        fitted = [fit_mask(mask, image) for mask, image in zip(masks, images, strict=True)]
        parts = [part[None] for mask in fitted for part in mask]
        seen = [(one, part) for one, part in zip(alone, parts, strict=True) if bool(part.any())]
    pictures: list[Tensor] = []
    weights: list[Tensor | None] = []
    for image, mask in seen or [(image, None) for image in alone]:
        small, part = shrunk(image[..., :3], painting_size, mask)
        if part is None:
            weights.append(None)
        else:
            small = fill_outside(small, part)
            weights.append(extend(statistics_weight(part)[..., None], side).permute(0, 3, 1, 2))
        pictures.append(extend(small, side))
    return pictures, weights


def picture_of(
    image: Tensor,
    colour: Tensor,
    device: Device,
    transfers: Transfers,
    weight: Tensor | None = None,
) -> stream.Picture:
    """An image [N, H, W, 3] as the engine reads it: less its mean colour [1 or N, 3].

    The first convolution pads by reflection, so that taking a colour off changes each of its
    channels by a constant, which the norm behind it takes away. What is left is small where a
    picture is nearly flat, and there rounding errors would be blown up otherwise.
    """
    images, height, width, _ = image.shape
    # A whole row of it, since rows are taken off rows faster than channel by channel.
    mean = colour.to(device.device)[:, :, None, None].expand(-1, -1, 1, width)
    mean = mean.contiguous(memory_format=torch.channels_last)
    if weight is not None:
        weight = weight.to(device.device)

    def read(start: int, stop: int) -> Tensor:
        rows = to_network(transfers.up(image[:, start:stop]))
        return rows.sub_(mean).to(device.arithmetic)

    return stream.Picture(height, width, read, weight, images)


def _colours(image: Tensor, start: int, stop: int, transfers: Transfers) -> Tensor:
    """Rows of an image [N, H, W, C] as [N, 3, rows, W] float32 in [0, 1], where transfers go."""
    rows = to_unit(transfers.up(image[:, start:stop, :, :3]))
    return rows.to(torch.float32).clamp(0, 1).movedim(-1, 1)
