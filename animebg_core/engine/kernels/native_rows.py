"""Convolutions and sums by the library of `animebg-kernels`, which is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..device import Scratch
from ..schedule import Step
from ..statistics import Gathering, Norm, chunk
from .contract import Footprint, Layer, Made, Rows, Stored

if TYPE_CHECKING:
    import animebg_kernels

# What the kernels read and write; other maps go through a buffer in float32.
_TYPES = {torch.float32: 0, torch.float16: 1}
_HEAP = 8 << 20  # that Python and torch keep beside the tensors; the library keeps nothing
_SERIAL = 32_768  # numbers from which on torch uses its threads for an elementwise operation
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
        layer.tanh,
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
    cuts_strips: ClassVar[bool] = True

    def footprint(self, step: Step, images: int, rows: int) -> Footprint:
        """See `Kernel.footprint`."""
        width = step.size[1]
        scratch = {
            "native": self.sizes.scratch_bytes(rows, width, torch.get_num_threads()) + 64,
            "rows": images * rows * width * step.outputs * 4,
        }
        window = images * _window_rows(step, rows) * step.source[1] * step.inputs * 4
        headroom = 0
        if images == 1 and self.layer.weights.weight.dtype in _TYPES:  # see `_is_apart`
            headroom = rows + step.conv.padding_before
        return Footprint(window, 0, self.sizes.bytes, scratch, _HEAP, headroom)

    def open(self, source: Rows, step: Step, norm: Norm | None, scratch: Scratch) -> NativeRows:
        """See `Kernel.open`."""
        return NativeRows(self, source, step, norm, scratch)


def _readable(rows: Tensor) -> bool:
    """Whether the library can read and write these [N, C, h, W]: each pixel's channels together."""
    pixels = rows.shape[3] == 1 or rows.stride(3) == rows.shape[1]
    return rows.dtype in _TYPES and rows.stride(1) == 1 and pixels


def _plain(weight: Tensor) -> NDArray[np.float32]:
    """As float32, one number behind the other. Not by torch, see `_copy`."""
    known = weight.detach() if weight.dtype in _TYPES else weight.detach().to(torch.float32)
    return np.ascontiguousarray(known.numpy(), np.float32)


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
        self._source, self._step, self._scratch = source, step, scratch
        self._stored = source.data if isinstance(source, Stored) else None
        # A picture is read by torch, a few rows at a time; all others give what they are asked for.
        self._few = step.source[0]
        if self._stored is None and not isinstance(source, Made):
            self._few = _rows_for_one_thread(step.source[1] * step.inputs)
        self._norms = _Norms(norm)
        threads = torch.get_num_threads()
        # What every strip has; the rest is filled in for each.
        self._rows_at = kernels.Rows(
            height=step.source[0],
            width=step.source[1],
            relu=norm is not None and step.before is not None and step.before.relu,
            made_width=self.width,
            threads=threads,
        )
        weights = kernel.layer.weights
        weight = _plain(weights.weight)
        bias = _plain(weights.bias) if kernel.layer.bias else None
        self._weights = scratch.take_weights(-(-kernel.sizes.bytes // 4))
        self._layer = kernels.Layer(
            kernel.library,
            kernel.geometry,
            weight.ctypes.data,
            None if bias is None else bias.ctypes.data,
            threads,
            self._weights.data_ptr(),
        )
        # Raw source rows [first, last), [N, rows, W, C]: none yet.
        self._window: Tensor | None = None
        self._first = self._last = 0

    def rows(self, start: int, stop: int) -> Tensor:
        return self._rows(start, stop, None)

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        rows = self.rows(start, stop)
        # Whoever gets them may put an alpha channel beside them.
        few = _rows_for_one_thread(len(rows) * (self._step.outputs + 1) * self.width)
        for first in range(0, stop - start, few):
            yield start + first, rows[:, :, first : first + few]

    def store(
        self,
        start: int,
        stop: int,
        out: Tensor | None,
        weight: Tensor | None,
        gathering: Gathering | None,
    ) -> None:
        target = out if out is not None and _readable(out) else None
        # The library counts what it stores, each pixel as 1.
        counts = gathering is not None and weight is None and target is out
        counted = gathering if counts else None
        if target is not None:
            self._run(self._slide(start, stop, target), start, stop, target, counted)
            rows = target
        else:
            rows = self._rows(start, stop, counted)
            if out is not None:
                rows = out.copy_(rows)
        if gathering is not None and not counts:
            gathering.add(chunk(rows, weight, self._scratch))

    def _rows(self, start: int, stop: int, gathering: Gathering | None) -> Tensor:
        """Rows in scratch memory."""
        window = self._slide(start, stop, None)
        shape = (window.shape[0], stop - start, self.width, self._step.outputs)
        rows = self._scratch.take("rows", *shape).permute(0, 3, 1, 2)
        self._run(window, start, stop, rows, gathering)
        return rows

    def _slide(self, start: int, stop: int, out: Tensor | None) -> Tensor:
        """The window [N, rows, W, C] with all source rows that rows [start, stop) are made of: a
        map whose rows from there on stay as they are while `out` is written, or a copy of some.
        """
        stored = self._stored
        if self._window is None and stored is not None and _readable(stored):
            if _is_apart(stored, max(0, self._step.conv.source_rows(start, stop)[0]), out):
                self._first, self._last = 0, stored.shape[2]
                return stored.permute(0, 2, 3, 1)
            # Later it would be too late: the rows before have been written already.
            assert start == 0
        first, last = self._step.conv.source_rows(start, stop)
        first, last = max(first, 0), min(last, self._source.height)
        kept = max(0, self._last - first)
        begin = first + kept
        fused = self._source if isinstance(self._source, NativeRows) else None
        fresh = None
        if begin < last and fused is not None:
            fresh = fused._slide(begin, last, out)
        elif begin < last:
            fresh = self._source.rows(begin, min(begin + self._few, last))
        window = self._make_room(fresh, stop - start, last - first)
        if kept:
            shift = first - self._first
            _copy(window[:, :kept], window[:, shift : shift + kept])
        self._first, self._last = first, last
        target = window[:, kept : last - first].permute(0, 3, 1, 2)
        if fresh is not None and fused is not None:
            # What another of these makes goes straight into this window.
            fused._run(fresh, begin, last, target, None)
        elif fresh is not None:
            _copy(target[:, :, : self._few], fresh)
            for at in range(self._few, last - begin, self._few):
                rows = self._source.rows(begin + at, min(begin + at + self._few, last))
                _copy(target[:, :, at : at + self._few], rows)
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
        self, window: Tensor, start: int, stop: int, out: Tensor, gathering: Gathering | None
    ) -> None:
        """Rows [start, stop) into `out` [N, C, stop - start, width], of which each pixel's channels
        lie together, and their moments.
        """
        rows, images, channels = self._rows_at, window.shape[0], self._step.outputs
        size = self._layer.scratch_bytes(stop - start, self.width, rows.threads)
        rows.scratch = self._scratch.take("native", size // 4 + 1).data_ptr()
        rows.source_type, rows.made_type = _TYPES[window.dtype], _TYPES[out.dtype]
        rows.source_row, rows.made_row = window.stride(1), out.stride(2)
        rows.first, rows.last, rows.start, rows.stop = self._first, self._last, start, stop
        source, source_bytes = window.data_ptr(), window.stride(0) * window.element_size()
        made, made_bytes = out.data_ptr(), out.stride(0) * out.element_size()
        rows.mean = rows.m2 = None
        moments, part_bytes = 0, 0
        if gathering is not None:
            found = gathering.place((stop - start) * self.width, images, channels)
            moments, part_bytes = found.ctypes.data, found.strides[0]
        for image in range(images):
            rows.source, rows.made = source + image * source_bytes, made + image * made_bytes
            self._norms.put(rows, image)
            if moments:
                own = moments + image * channels * 8
                rows.mean, rows.m2 = own + part_bytes, own + 2 * part_bytes
            self._layer.run(rows)


def _rows_for_one_thread(numbers: int) -> int:
    """How many rows of so many numbers torch works on with one thread. With more it wakes its
    others, which then go on spinning for a while, in the way of the library's.
    """
    return max(1, (_SERIAL - 1) // numbers)


def _is_apart(stored: Tensor, first: int, out: Tensor | None) -> bool:
    """Whether rows from `first` on of a map [N, C, H, W] stay as they are while `out` is written:
    they lie elsewhere, or below it. (Of several pictures one's rows begin where another's end.)
    """
    if out is None or out.untyped_storage().data_ptr() != stored.untyped_storage().data_ptr():
        return True
    below = stored.data_ptr() + first * stored.stride(2) * stored.element_size()
    end = out.data_ptr() + out.shape[2] * out.stride(2) * out.element_size()
    return len(out) == 1 and end <= below


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
        self._fields = [
            {name: row.data_ptr() for name, row in zip(_NORM, rows, strict=False)}
            for rows in self._values
        ]

    def put(self, target: animebg_kernels.Rows | animebg_kernels.Sum, image: int) -> None:
        """Fill in a picture's; statistics may be one picture's for all."""
        if self._fields:
            for name, address in self._fields[min(image, len(self._fields) - 1)].items():
                setattr(target, name, address)


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
        values = kernels.Sum(
            map=data[image].data_ptr(),
            branch=None if branch is None else branch[image].data_ptr(),
            type=_TYPES[data.dtype],
            channels=data.shape[1],
            pixels=data.shape[2] * data.shape[3],
            relu=relu,
            threads=torch.get_num_threads(),
        )
        norms.put(values, image)
        library.settle(values)
    return True
