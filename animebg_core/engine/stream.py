"""The one loop over stages and strips: exact inference in bounded memory.

Each convolution is a stream of rows: asked for rows [start, stop) of its output it asks its source
for those rows it has not seen yet, normalises them as it reads, keeps the few that the next strip
needs, and convolves. Nothing is computed twice within a pass, and the statistics of a norm are
gathered over all strips before anything reads through it, so that the result is that of the whole
image. The whole image is the case of one strip.

Maps are [N, C, rows, W]; rows are counted from the top of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network.design import Conv, Stage, settled
from ..network.generator import ConvWeights, Generator
from .convolution import (
    Scratch,
    compute_dtype,
    make_kernel,
    memory_format,
    on_cpu,
    release_memory,
)
from .plan import RunPlan, pass_work, passes
from .statistics import Gathering, Norm


class Source(Protocol):
    """Rows of a map, each asked for once, from top to bottom."""

    height: int
    width: int

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as [N, C, stop - start, width]."""
        ...


class ImageSource:
    """The image, read through a function of (start, stop)."""

    def __init__(self, height: int, width: int, read: Callable[[int, int], Tensor]) -> None:
        self.height, self.width = height, width
        self._read = read

    def rows(self, start: int, stop: int) -> Tensor:
        return self._read(start, stop)


class MapSource:
    """A map in memory."""

    def __init__(self, data: Tensor) -> None:
        self.data = data
        self.height, self.width = data.shape[2:]

    def rows(self, start: int, stop: int) -> Tensor:
        return self.data[:, :, start:stop]


class ConvStream:
    """One convolution as a source: it reads through the norm before it, pads and convolves."""

    def __init__(
        self,
        source: Source,
        conv: Conv,
        weights: ConvWeights,
        *,
        norm: Norm | None,
        relu: bool,
        dtype: torch.dtype,
        bias: bool,
        crop: Tensor | None,
        scratch: Scratch,
    ) -> None:
        self.height = conv.output_size(source.height)
        self.width = conv.output_size(source.width)
        if crop is not None:  # to the size of the map that it will be added to
            self.height = min(self.height, crop.shape[2])
            self.width = min(self.width, crop.shape[3])
        self._source, self._conv = source, conv
        self._norm, self._relu = norm, relu
        self._dtype, self._device = dtype, weights.weight.device
        self._scratch = scratch
        self._kernel = make_kernel(conv, weights, dtype, self.height * self.width, bias=bias)
        self._columns = (
            conv.padding_before
            + source.width
            + conv.padding_after
            + -self.width % self._kernel.column_grid
        )
        # The window holds source rows [first, last), padding rows included: none yet.
        self._window: Tensor | None = None
        self._first = self._last = -conv.padding_before

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the raw output, before any norm of its own."""
        first, last = self._conv.source_rows(start, stop)
        window = self._slide(first, last, -(stop - start) % self._kernel.row_grid)
        # Where two rows are made of one, those of the first may begin a row too early.
        skip = start % 2 if self._conv.doubles else 0
        return self._kernel.run(window, self._scratch)[
            :, :, skip : skip + stop - start, : self.width
        ]

    def _slide(self, first: int, last: int, extra: int) -> Tensor:
        """Source rows [first, last), normalised and padded, and `extra` rows of anything finite."""
        height = self._source.height
        kept = max(0, self._last - first)
        begin, end = max(first + kept, 0), min(last, height)
        fresh = self._source.rows(begin, end) if begin < end else None
        window = self._make_room(fresh, last - first + extra, first - self._first, kept)
        self._first, self._last = first, last
        if fresh is not None:
            self._normalise(fresh, window[:, :, begin - first : end - first])
        for row in (*range(first + kept, min(0, last)), *range(max(height, first + kept), last)):
            if self._conv.padding == "zeros":
                window[:, :, row - first] = 0
            else:
                mirrored = -row if row < 0 else 2 * (height - 1) - row
                window[:, :, row - first] = window[:, :, mirrored - first]
        return window

    def _make_room(self, fresh: Tensor | None, rows: int, shift: int, kept: int) -> Tensor:
        """The window of so many rows, its rows [shift, shift + kept) moved to the top."""
        old = self._window
        if old is None or old.shape[2] < rows:
            like = fresh if fresh is not None else old
            assert like is not None
            shape = (like.shape[0], like.shape[1], rows, self._columns)
            layout = memory_format(self._device, self._dtype)
            window = torch.empty(
                shape, dtype=self._dtype, device=self._device, memory_format=layout
            )
            # Zeros, since padding columns of zeros are never written again.
            self._window = window.zero_()
        window = self._window
        assert window is not None
        if old is not None and kept:
            # A copy of the few rows, since where they come from and go to may overlap.
            window[:, :, :kept] = old[:, :, shift : shift + kept].clone()
        return window[:, :, :rows]

    def _normalise(self, fresh: Tensor, target: Tensor) -> None:
        """Write rows of the source into the window's, with padding columns."""
        left, width = self._conv.padding_before, self._source.width
        inner = target[..., left : left + width]
        if self._norm is None:
            inner.copy_(fresh)
        else:
            self._norm.apply(fresh.to(self._dtype), inner)
            if self._relu:
                inner.relu_()
        if self._conv.padding == "reflect":
            for k in range(1, left + 1):
                target[..., left - k] = target[..., left + k]
                target[..., left + width - 1 + k] = target[..., left + width - 1 - k]


def paint(
    generator: Generator,
    plan: RunPlan,
    read: Callable[[int, int], Tensor],
    write: Callable[[int, Tensor], None],
    *,
    height: int,
    width: int,
    weight: Tensor | None = None,
    step: Callable[[int], None] | None = None,
) -> None:
    """Run the generator over a picture of `height` x `width`, at least 5 x 5 pixels, as `plan`
    says.

    Args:
        generator: the network.
        plan: levels, strips and dtypes, from `plan_run`.
        read: gives rows [start, stop) of the picture, BGR [N, 3, rows, width] in [-1, 1], on the
            generator's device. Called from top to bottom, in each pass that begins with the
            picture.
        write: takes a first row and rows [N, 3, rows, W] in [-1, 1], from top to bottom. The
            output's size is the picture's rounded up to multiples of 4 (of 2 by `lite_table`).
        weight: [N, 1, height, width] float32 on the generator's device: what each pixel counts for
            in the statistics of the norms. None: each counts 1, as published.
        step: called after every strip with the work done in it, which adds up to `total_work`; may
            raise to stop.
    """
    dtype = compute_dtype(generator.device, generator.dtype)
    pyramid = None if weight is None else _pyramid(weight)
    scratch = Scratch()
    norms: dict[str, Norm] = {}
    source: Source = ImageSource(height, width, read)
    unread: Stage | None = None  # the stage whose norm is still to be applied as `source` is read
    held: dict[str, Tensor] = {}  # maps that a later stage adds
    added = {stage.adds for stage in generator.stages}
    settling = settled(generator.stages)
    spare: Tensor | None = None  # a map each of whose rows may be overwritten once it has been read

    for run in passes(generator.stages, plan.level):
        chain, before = source, unread
        for stage in run.stages:
            for index, conv in enumerate(stage.convs):
                is_last = index + 1 == len(stage.convs)
                chain = ConvStream(
                    chain,
                    conv,
                    generator.weights(stage).conv(index),
                    norm=norms[before.name] if before else None,
                    relu=before is not None and before.relu,
                    dtype=dtype,
                    bias=not (stage.norm and is_last),
                    crop=held[stage.adds] if stage.adds and is_last else None,
                    scratch=scratch,
                )
                before = None
            before = stage

        last, strip = run.last, plan.strip(run)
        if not last.in_block:
            spare = None
        if on_cpu(generator.device):
            release_memory()
        work = pass_work(generator, run, height, width)
        moments = Gathering(-(-chain.height // strip))
        kept: Tensor | None = None
        for start in range(0, chain.height, strip):
            stop = min(start + strip, chain.height)
            rows = chain.rows(start, stop)
            if last.norm:
                if run.store:
                    rows = rows.to(plan.map_dtype)
                    kept = _keep(rows, start, chain.height, spare if kept is None else kept)
                counts = pyramid[last.shrink] if pyramid else None
                if counts is not None:
                    counts = counts[:, :, start:stop, : chain.width]
                moments.add(rows, counts, scratch)
            else:
                write(start, rows.tanh_())
            if step:
                step(work * stop // chain.height - work * start // chain.height)
        if not last.norm:
            return
        own = generator.weights(last)
        norms[last.name] = moments.merged(ranged=pyramid is not None).norm(own.scale, own.shift)

        if kept is None:
            continue
        if last.name in settling:
            final = held.pop(last.adds) if last.adds else kept
            branch = kept if last.adds else None
            _settle(final, norms[last.name], last.relu, strip, branch)
            if last.name in added:
                held[last.name] = final
            source, unread, spare = MapSource(final), None, branch
            del final, branch  # or they would outlive their use
        else:
            source, unread, spare = MapSource(kept), last, kept


def _keep(rows: Tensor, start: int, height: int, room: Tensor | None) -> Tensor:
    """The map of `height` rows with these ones from `start` on: `room` where that is one."""
    shape = (rows.shape[0], rows.shape[1], height, rows.shape[3])
    if room is None or room.shape != shape:
        layout = memory_format(rows.device, rows.dtype)
        room = torch.empty(shape, dtype=rows.dtype, device=rows.device, memory_format=layout)
    room[:, :, start : start + rows.shape[2]] = rows
    return room


def _settle(data: Tensor, norm: Norm, relu: bool, strip: int, branch: Tensor | None) -> None:
    """In place, by strips: norm(data), or data + norm(branch), and perhaps the ReLU of it.

    The branch may be overwritten.
    """
    for start in range(0, data.shape[2], strip):
        rows = data[:, :, start : start + strip]
        raw = rows if branch is None else branch[:, :, start : start + strip]
        in_place = raw.dtype == torch.float32
        final = norm.apply(raw, raw if in_place else torch.empty_like(raw, dtype=torch.float32))
        if branch is not None:
            final = rows.add_(final) if in_place else final.add_(rows)
        rows.copy_(final.relu_() if relu else final)


def _pyramid(weight: Tensor) -> dict[int, Tensor]:
    """The weight [N, 1, H, W] area-averaged to each size a map can have, by its shrink.

    The edge is repeated up to multiples of 4, since the maps of the up stages reach that far.
    """
    height, width = weight.shape[2:]
    padded = F.pad(weight, (0, -width % 4, 0, -height % 4), mode="replicate")
    return {shrink: F.avg_pool2d(padded, shrink) if shrink > 1 else padded for shrink in (1, 2, 4)}
