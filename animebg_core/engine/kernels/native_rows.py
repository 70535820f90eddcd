"""Convolutions and sums by the library of `animebg-kernels`, which is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..device import Scratch
from ..schedule import Step
from ..statistics import Moments, Norm, chunk
from .contract import Footprint, Layer, Rows, Stored

if TYPE_CHECKING:
    import animebg_kernels

# What the kernels read and write; other maps go through a buffer in float32.
_TYPES = {torch.float32: 0, torch.float16: 1}
_HEAP = 8 << 20  # that Python and torch keep beside the tensors; the library keeps nothing
_NORM = ("factor", "offset", "low", "high")


def known(layer: Layer, library: animebg_kernels.Library) -> Native | None:
    """The library's form of a convolution; None where it has none."""
    import animebg_kernels as kernels

    conv, shape = layer.conv, layer.weights.weight.shape
    inputs, outputs = (shape[0], shape[1]) if conv.transposed else (shape[1], shape[0])
    geometry = kernels.Conv(
        conv.kernel,
        conv.stride,
        conv.transposed,
        conv.shuffled,
        conv.padding == "reflect",
        not layer.bias,
        inputs,
        outputs,
    )
    try:
        return Native(layer, library, geometry, kernels.Layer(library, geometry, None, None))
    except kernels.KernelsError:
        return None  # no form for it


@dataclass(frozen=True, slots=True)
class Native:
    """A convolution by the library.

    Attributes:
        geometry: as the library wants it.
        sizes: the layer without weights. Those of a sweep are made when it begins: the transformed
            ones of all layers together would take more memory than small pictures do.
    """

    layer: Layer
    library: animebg_kernels.Library
    geometry: animebg_kernels.Conv
    sizes: animebg_kernels.Layer

    def footprint(self, step: Step, images: int, rows: int) -> Footprint:
        """See `Kernel.footprint`."""
        width = step.size[1]
        scratch = {
            "native": self.sizes.scratch_bytes(rows, width, torch.get_num_threads()) + 64,
            "rows": images * rows * width * step.outputs * 4,
        }
        window = images * _window_rows(step, rows) * step.source[1] * step.inputs * 4
        return Footprint(window, 0, self.sizes.bytes, scratch, _HEAP)

    def open(self, source: Rows, step: Step, norm: Norm | None, scratch: Scratch) -> NativeRows:
        """See `Kernel.open`."""
        return NativeRows(self, source, step, norm, scratch)


def _readable(rows: Tensor) -> bool:
    """Whether the library can read and write these [N, C, h, W]: each pixel's channels together."""
    pixels = rows.shape[3] == 1 or rows.stride(3) == rows.shape[1]
    return rows.dtype in _TYPES and rows.stride(1) == 1 and pixels


def _plain(weight: Tensor) -> Tensor:
    """As float32, one number behind the other. Not by torch, see `_copy`."""
    weight = weight.detach()
    if weight.dtype not in _TYPES:
        weight = weight.to(torch.float32)
    return torch.from_numpy(  # pyright: ignore[reportUnknownMemberType]
        np.array(weight.numpy(), np.float32, order="C")
    )


def _copy(target: Tensor, source: Tensor) -> None:
    """Not by torch, whose threads go on spinning for a while, in the way of the library's. The two
    may overlap.
    """
    if source.dtype in _TYPES:
        np.copyto(target.numpy(), source.numpy())
    else:
        target.copy_(source)


def _window_rows(step: Step, rows: int) -> int:
    """Source rows that are held for so many rows."""
    first, last = step.conv.source_rows(0, rows)
    return min(last - first, step.source[0])


class NativeRows:
    """The rows of one convolution in one sweep."""

    def __init__(
        self, kernel: Native, source: Rows, step: Step, norm: Norm | None, scratch: Scratch
    ) -> None:
        import animebg_kernels as kernels

        self.height, self.width = step.size
        self._make = kernels.Rows
        self._source, self._step, self._scratch = source, step, scratch
        self._stored = source.data if isinstance(source, Stored) else None
        self._norms = _Norms(norm)
        self._relu = norm is not None and step.before is not None and step.before.relu
        weights, threads = kernel.layer.weights, torch.get_num_threads()
        weight = _plain(weights.weight)
        bias = _plain(weights.bias) if kernel.layer.bias else None
        self._weights = scratch.take_weights(-(-kernel.sizes.bytes // 4))
        self._layer = kernels.Layer(
            kernel.library,
            kernel.geometry,
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            threads,
            self._weights.data_ptr(),
        )
        # Raw source rows [first, last), [N, rows, W, C]: none yet.
        self._window: Tensor | None = None
        self._first = self._last = 0

    def rows(self, start: int, stop: int) -> Tensor:
        return self._rows(start, stop, gathers=False)[0]

    def store(
        self, start: int, stop: int, out: Tensor | None, weight: Tensor | None, gathers: bool
    ) -> Moments | None:
        own = gathers and weight is None
        if out is not None and _readable(out):
            window = self._slide(start, stop, out)
            moments = self._run(window, start, stop, out, gathers=own)
            return chunk(out, weight, self._scratch) if gathers and not own else moments
        rows, moments = self._rows(start, stop, gathers=own and out is None)
        if out is not None:
            rows = out.copy_(rows)
        return chunk(rows, weight, self._scratch) if gathers and moments is None else moments

    def _rows(self, start: int, stop: int, *, gathers: bool) -> tuple[Tensor, Moments | None]:
        """Rows in scratch memory, and their moments."""
        window = self._slide(start, stop, None)
        shape = (window.shape[0], stop - start, self.width, self._step.outputs)
        rows = self._scratch.take("rows", *shape).permute(0, 3, 1, 2)
        return rows, self._run(window, start, stop, rows, gathers=gathers)

    def _slide(self, start: int, stop: int, out: Tensor | None) -> Tensor:
        """The window [N, rows, W, C] with all source rows that rows [start, stop) are made of: a
        map that stays as it is while `out` is written, or a copy of some rows.
        """
        stored = self._stored
        if self._window is None and stored is not None and _readable(stored):
            memory = stored.untyped_storage().data_ptr()
            if out is None or out.untyped_storage().data_ptr() != memory:
                self._first, self._last = 0, stored.shape[2]
                return stored.permute(0, 2, 3, 1)
        first, last = self._step.conv.source_rows(start, stop)
        first, last = max(first, 0), min(last, self._source.height)
        kept = max(0, self._last - first)
        begin = first + kept
        source, fresh = self._source, None
        if begin < last:
            # What another of these makes goes straight into this window.
            fused = isinstance(source, NativeRows)
            fresh = source._slide(begin, last, out) if fused else source.rows(begin, last)
        window = self._make_room(fresh, stop - start, last - first)
        if kept:
            shift = first - self._first
            _copy(window[:, :kept], window[:, shift : shift + kept])
        self._first, self._last = first, last
        if fresh is not None:
            target = window[:, kept : last - first].permute(0, 3, 1, 2)
            if isinstance(source, NativeRows):
                source._run(fresh, begin, last, target, gathers=False)
            else:
                _copy(target, fresh)
        return window

    def _make_room(self, fresh: Tensor | None, rows: int, needed: int) -> Tensor:
        """The window, long enough for so many rows of what is made and the rows needed now."""
        old = self._window
        if old is None or old.shape[1] < needed:
            like = fresh if fresh is not None else old
            assert like is not None
            fused = isinstance(self._source, NativeRows) or like.dtype not in _TYPES
            length = max(needed, _window_rows(self._step, rows))
            window = torch.empty(
                (like.shape[0], length, self._step.source[1], self._step.inputs),
                dtype=torch.float32 if fused else like.dtype,
                device="cpu",
            )
            if old is not None:
                _copy(window[:, : old.shape[1]], old)
            self._window = window
        assert self._window is not None
        return self._window

    def _run(
        self, window: Tensor, start: int, stop: int, out: Tensor, *, gathers: bool
    ) -> Moments | None:
        """Rows [start, stop) into `out` [N, C, stop - start, width], of which each pixel's channels
        lie together, and their moments.
        """
        images, step = window.shape[0], self._step
        threads = torch.get_num_threads()
        size = self._layer.scratch_bytes(stop - start, self.width, threads)
        scratch = self._scratch.take("native", size // 4 + 1)
        found = torch.empty(2, images, step.outputs, dtype=torch.float64, device="cpu")
        for image in range(images):
            self._layer.run(
                self._make(
                    source=window[image].data_ptr(),
                    source_row=window.stride(1),
                    source_type=_TYPES[window.dtype],
                    first=self._first,
                    last=self._last,
                    height=step.source[0],
                    width=step.source[1],
                    **self._norms.of(image),
                    relu=self._relu,
                    start=start,
                    stop=stop,
                    made_width=self.width,
                    made_type=_TYPES[out.dtype],
                    made=out[image].data_ptr(),
                    made_row=out.stride(2),
                    mean=found[0, image].data_ptr() if gathers else None,
                    m2=found[1, image].data_ptr() if gathers else None,
                    scratch=scratch.data_ptr(),
                    threads=threads,
                )
            )
        if not gathers:
            return None
        pixels = (stop - start) * self.width
        count = torch.full((images, 1), pixels, dtype=torch.float64, device="cpu")
        return Moments(count, found[0], found[1])


class _Norms:
    """A norm as the library takes it: addresses of what each picture is normed by."""

    def __init__(self, norm: Norm | None) -> None:
        parts: list[Tensor] = []
        if norm is not None:
            parts = [norm.factor, norm.offset]
        if norm is not None and norm.low is not None and norm.high is not None:
            parts += [norm.low, norm.high]
        images = max((len(part) for part in parts), default=0)
        # Of each picture [2 or 4, C].
        self._values = [
            torch.stack([part[min(image, len(part) - 1)].flatten() for part in parts])
            for image in range(images)
        ]

    def of(self, image: int) -> dict[str, int]:
        """Fields of a picture; statistics may be one picture's for all."""
        if not self._values:
            return {}
        rows = self._values[min(image, len(self._values) - 1)]
        return {name: row.data_ptr() for name, row in zip(_NORM, rows, strict=False)}


def settle(
    library: animebg_kernels.Library, data: Tensor, norm: Norm, relu: bool, branch: Tensor | None
) -> bool:
    """Bring a map [N, C, H, W] to its final values as `kernels.settle` does; False where that is
    left to torch.
    """
    maps = [data] if branch is None else [data, branch]
    last = all(part.is_contiguous(memory_format=torch.channels_last) for part in maps)
    if not last or data.dtype not in _TYPES or maps[-1].dtype != data.dtype:
        return False
    import animebg_kernels as kernels

    norms = _Norms(norm)
    for image in range(data.shape[0]):
        library.settle(
            kernels.Sum(
                map=data[image].data_ptr(),
                branch=None if branch is None else branch[image].data_ptr(),
                type=_TYPES[data.dtype],
                channels=data.shape[1],
                pixels=data.shape[2] * data.shape[3],
                **norms.of(image),
                relu=relu,
                threads=torch.get_num_threads(),
            )
        )
    return True
