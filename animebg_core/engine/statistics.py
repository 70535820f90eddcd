"""The statistics of the norms as values: gathered by strips, combined, saved, applied as a map is
read.

Three plain functions: `chunk` takes the moments of some rows, `combine` makes one of several, and
`aggregate` turns them into a norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from ..files.whole import whole_file
from ..network.design import NORM_EPS
from .device import Scratch

# A pixel of which the mask covers less than this does not count for the range of the painted area.
# Not 0.5, which many a pixel is covered by, but for rounding errors.
_COVERED = 0.499
_PARTS = ("count", "mean", "m2", "low", "high")  # of `Moments`


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


def chunk(rows: Tensor, weight: Tensor | None, scratch: Scratch) -> Moments:
    """The moments of rows [N, C, h, W], each pixel weighted by [N, 1, h, W]; float32, on the
    device of the rows.
    """
    images, channels, height, width = rows.shape
    rows = rows.float()
    # Buffer "a" is free again once a kernel has given its rows.
    centred = scratch.take("a", images, height, width, channels).permute(0, 3, 1, 2)
    low = high = None
    if weight is None:
        count = torch.full((images, 1), height * width, dtype=torch.float32, device=rows.device)
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


def combine(parts: Sequence[Moments]) -> Moments:
    """The moments of all parts together, in float64 on the CPU, since not every device has it."""
    low = [part.low for part in parts if part.low is not None]
    high = [part.high for part in parts if part.high is not None]
    return _combined(
        torch.stack([part.count for part in parts]),
        torch.stack([part.mean for part in parts]),
        torch.stack([part.m2 for part in parts]),
        torch.stack(low) if low else None,
        torch.stack(high) if high else None,
    )


def _combined(
    count: Tensor, mean: Tensor, m2: Tensor, low: Tensor | None, high: Tensor | None
) -> Moments:
    """As `combine`, of [parts, N, C] each (counts [parts, N, 1]), by the formula of Chan, Golub and
    LeVeque (1979).
    """
    count, mean, m2 = (part.to("cpu", torch.float64) for part in (count, mean, m2))
    total = count.sum(0)
    overall = (count * mean).sum(0) / total
    second = (m2 + count * (mean - overall).square()).sum(0)
    if low is None or high is None:
        return Moments(total, overall, second)
    lowest = low.to("cpu", torch.float64).amin(0)
    return Moments(total, overall, second, lowest, high.to("cpu", torch.float64).amax(0))


def aggregate(moments: Moments, scale: Tensor, shift: Tensor) -> Norm:
    """The published norm with combined moments, on the device of `scale` [C] and `shift` [C]."""
    return aggregate_all([moments], [scale], [shift])[0]


def aggregate_all(
    moments: Sequence[Moments], scales: Sequence[Tensor], shifts: Sequence[Tensor]
) -> list[Norm]:
    """As `aggregate`, of several norms, with one transfer from the device and one to it."""
    sizes = [scale.numel() for scale in scales]
    own = _parts(torch.cat([*scales, *shifts]).to("cpu", torch.float64), sizes * 2)
    parts = [_norm_values(part, own[at], own[at + len(sizes)]) for at, part in enumerate(moments)]
    values = torch.cat([value.flatten() for part in parts for value in part])
    lengths = [value.numel() for part in parts for value in part]
    there = iter(_parts(values.to(torch.float32).to(scales[0].device), lengths))
    return [Norm(*(next(there).view(*value.shape, 1, 1) for value in part)) for part in parts]


def _parts(values: Tensor, lengths: list[int]) -> tuple[Tensor, ...]:
    return torch.split(values, lengths)


def _norm_values(moments: Moments, scale: Tensor, shift: Tensor) -> list[Tensor]:
    """What a `Norm` holds, [N, C] float64 each."""
    factor = scale / (moments.m2 / moments.count + NORM_EPS).sqrt()
    offset = shift - moments.mean * factor
    if moments.low is None or moments.high is None:
        return [factor, offset]
    # Where nothing is covered enough there is no range, and nothing is clamped.
    none = moments.low > moments.high
    low, high = moments.low.masked_fill(none, -torch.inf), moments.high.masked_fill(none, torch.inf)
    return [factor, offset, low, high]


class Gathering:
    """The moments of a map, strip by strip.

    They are kept in one tensor: many small ones, each made between large ones that come and go,
    would keep the heap from using the room of those again.
    """

    def __init__(self, strips: int) -> None:
        self._strips, self._seen = strips, 0
        self._table: Tensor | None = None  # [3 or 5, strips, N, C]: count, mean, m2, low, high

    def add(self, part: Moments) -> None:
        """Count the next strip."""
        values = (part.count, part.mean, part.m2, part.low, part.high)
        known = [value for value in values if value is not None]
        if self._table is None:
            self._table = part.mean.new_zeros(len(known), self._strips, *part.mean.shape)
        for row, value in zip(self._next(self._table), known, strict=True):
            row.copy_(value)

    def place(self, count: int, images: int, channels: int) -> NDArray[np.float64]:
        """Where to write mean and centred second moment of the next strip, of `count` pixels: the
        last two of [3, N, C].
        """
        if self._table is None:
            shape = 3, self._strips, images, channels
            self._table = torch.zeros(shape, dtype=torch.float64, device="cpu")
        room = self._next(self._table).numpy()
        room[0] = count
        return room

    def parts(self) -> Moments:
        """All strips, combined: one transfer from a device for the whole sweep."""
        assert self._table is not None and self._seen == self._strips
        count, mean, m2, *limits = self._table.to("cpu")
        low, high = limits or (None, None)
        return _combined(count[..., :1], mean, m2, low, high)

    def _next(self, table: Tensor) -> Tensor:
        self._seen += 1
        return table[:, self._seen - 1]


@dataclass(frozen=True, slots=True)
class Statistics:
    """All that a run has to know of a whole picture before it can paint a part of it.

    Gathered by `gather_statistics`, given to `stylize`. Statistics of a stage hold for maps that
    were made under those of the stages before it; so those of several pictures are gathered
    together, and statistics of separate runs cannot be merged afterwards.

    Attributes:
        colour: [N, 3] float32, the mean colour that is taken off when a picture is read, BGR in
            [-1, 1]. N is 1, or the number of pictures of a batch.
        moments: by stage name, [N, C] float64 on the CPU.
    """

    colour: Tensor
    moments: Mapping[str, Moments] = field(default_factory=lambda: MappingProxyType({}))

    def save(self, path: str | PathLike[str]) -> None:
        """Write them to a .safetensors file, in full precision.

        Raises:
            OSError: it cannot be written.
        """
        tensors = {"colour": self.colour.contiguous()}
        for name, moments in self.moments.items():
            for part in _PARTS:
                value = getattr(moments, part)
                if value is not None:
                    tensors[f"{name}.{part}"] = value.contiguous()
        with whole_file(Path(path)) as file:
            file.write(save(tensors))

    @staticmethod
    def load(path: str | PathLike[str]) -> Statistics:
        """What `save` wrote.

        Raises:
            OSError: it cannot be read.
        """
        tensors = load(Path(path).read_bytes())
        colour = tensors.pop("colour")
        stages: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            stage, _, part = name.rpartition(".")
            stages.setdefault(stage, {})[part] = value
        moments = {stage: Moments(**parts) for stage, parts in stages.items()}
        return Statistics(colour, MappingProxyType(moments))
