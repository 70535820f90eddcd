"""The statistics of the norms as values: gathered by strips, merged, applied as a map is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..network.design import NORM_EPS
from .convolution import Scratch, on_cpu

# A pixel of which the mask covers less than this does not count for the range of the painted area.
_COVERED = 0.5


@dataclass(frozen=True, slots=True)
class Norm:
    """An instance norm whose statistics are known: factor and offset, [N, C, 1, 1] float32.

    Attributes:
        low, high: with a mask, the range of the painted area, to which everything else is clamped.
            What lies outside may be far out of range by the painted area's statistics, and would
            reach into it, stronger with every layer.
    """

    factor: Tensor
    offset: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    def apply(self, rows: Tensor, out: Tensor) -> Tensor:
        """Rows [N, C, h, W] of the raw map, normalised, in `out`, which may be the same."""
        if self.low is not None:
            rows = torch.clamp(rows.float(), self.low, self.high)
        return torch.addcmul(self.offset, rows, self.factor, out=out)


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and centred second moment of each channel, [N, C], and the weight [N, 1] they stand for.

    With a mask the weight of a pixel is its mask value, and `low` and `high` [N, C] are the range
    of what it covers; without one the weight is 1, and `count` the number of pixels.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    @staticmethod
    def of(rows: Tensor, weight: Tensor | None, scratch: Scratch) -> Moments:
        """Those of [N, C, h, W], each pixel weighted by [N, 1, h, W]; on the rows' device."""
        images, channels, height, width = rows.shape
        rows = rows.float()
        if on_cpu(rows.device):
            centred = scratch.take("a", images, height, width, channels).permute(0, 3, 1, 2)
        else:
            centred = torch.empty_like(rows)
        low = high = None
        if weight is None:
            count = torch.full((images, 1), height * width, device=rows.device).float()
            mean = rows.sum((2, 3)) / count
        else:
            count = weight.sum((2, 3))
            # Where a strip counts for nothing any mean will do.
            least = torch.finfo(torch.float32).tiny
            mean = torch.mul(rows, weight, out=centred).sum((2, 3)) / count.clamp_min(least)
            outside = weight < _COVERED
            low = torch.where(outside, torch.inf, rows).amin((2, 3))
            high = torch.where(outside, -torch.inf, rows).amax((2, 3))
        torch.sub(rows, mean[:, :, None, None], out=centred).square_()
        if weight is not None:
            centred.mul_(weight)
        return Moments(count, mean, centred.sum((2, 3)), low, high)

    def norm(self, scale: Tensor, shift: Tensor) -> Norm:
        """The published norm with these statistics, on the device of `scale` [C]."""
        factor = scale.to("cpu", torch.float64) / (self.m2 / self.count + NORM_EPS).sqrt()
        offset = shift.to("cpu", torch.float64) - self.mean * factor
        values = [factor, offset]
        if self.low is not None and self.high is not None:
            # Where nothing is covered enough there is no range, and nothing is clamped.
            none = self.low > self.high
            values += [
                self.low.masked_fill(none, -torch.inf),
                self.high.masked_fill(none, torch.inf),
            ]
        return Norm(*(v[:, :, None, None].to(torch.float32).to(scale.device) for v in values))


class Gathering:
    """The moments of a map, strip by strip.

    They are kept in one tensor: many small ones, each made between large ones that come and go,
    would keep the heap from using the room of those again.
    """

    def __init__(self, strips: int) -> None:
        self._strips, self._seen = strips, 0
        self._table: Tensor | None = None  # [5, strips, N, C]: count, mean, m2, low, high

    def add(self, rows: Tensor, weight: Tensor | None, scratch: Scratch) -> None:
        """Count the next strip [N, C, h, W], its pixels weighted by [N, 1, h, W]."""
        part = Moments.of(rows, weight, scratch)
        if self._table is None:
            self._table = part.mean.new_zeros(5, self._strips, *part.mean.shape)
        for row, value in zip(self._table, (part.count, part.mean, part.m2), strict=False):
            row[self._seen] = value
        if part.low is not None and part.high is not None:
            self._table[3, self._seen], self._table[4, self._seen] = part.low, part.high
        self._seen += 1

    def merged(self, *, ranged: bool) -> Moments:
        """All strips as one, by the formula of Chan, Golub and LeVeque (1979), in float64.

        On the CPU, since not every device has float64: one transfer for each pass over the image.
        `ranged` says that there were weights, and so that low and high are known.
        """
        assert self._table is not None and self._seen == self._strips
        count, mean, m2, low, high = self._table.to("cpu", torch.float64)
        total = count.sum(0)
        overall = (count * mean).sum(0) / total
        second = (m2 + count * (mean - overall).square()).sum(0)
        if not ranged:
            return Moments(total, overall, second)
        return Moments(total, overall, second, low.amin(0), high.amax(0))
