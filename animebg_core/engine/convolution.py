"""Convolutions over a padded window of rows: the one narrow operation that a kernel for a device
replaces.

Plain torch throughout. On the CPU two shapes have faster forms than the operator's own, in the
layout where each pixel's channels lie together; `docs/benchmarks.md` says what each form gained.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network.design import Conv
from ..network.generator import ConvWeights

# Only Linux has the C library's functions in the program itself.
_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def release_memory() -> None:
    """Hand freed memory of the CPU's heap back to the system, where the C library has to be told.

    glibc keeps it for later and cannot always use it again for tensors of other sizes.
    """
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


class Scratch:
    """Memory for what lives only within one step, taken once for a run.

    Freed and taken anew for every strip it would cost page faults and leave holes in the heap.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A float32 tensor on the CPU, of any content, in place of the last one of this name."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            self._buffers[name] = buffer = torch.empty(size, dtype=torch.float32)
        return buffer[:size].view(shape)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A convolution made ready for one device and one size of map.

    Attributes:
        run: takes a window [N, C, rows, columns] that holds its own padding, and gives [N, C',
            ...]. The result may lie in the scratch memory: it is good until the next kernel runs.
        row_grid: output rows are made in multiples of this; the window has the source rows for
            them, whatever these hold, and the caller crops what is too much.
        column_grid: the same for columns.
    """

    run: Callable[[Tensor, Scratch], Tensor]
    row_grid: int = 1
    column_grid: int = 1


def on_cpu(device: torch.device) -> bool:
    """Whether what is made for the CPU applies: float32 arithmetic, its kernels, scratch memory."""
    return device.type == "cpu"


def memory_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """Channels-last where convolutions are faster so: on the CPU, and in half on a GPU."""
    last = on_cpu(device) or dtype != torch.float32
    return torch.channels_last if last else torch.contiguous_format


def compute_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What convolutions run in: float32 on the CPU, where half precision is only storage."""
    return torch.float32 if on_cpu(device) else dtype


def make_kernel(
    conv: Conv, weights: ConvWeights, dtype: torch.dtype, pixels: int, *, bias: bool
) -> Kernel:
    """The fastest form of a convolution.

    Args:
        conv: its geometry.
        weights: its weights, on the device it is to run on.
        dtype: what to compute in.
        pixels: of the whole map it makes; preparing weights pays only for enough of them.
        bias: whether to add the bias. A norm takes it away again, so that it need not be added
            before one.
    """
    weight = weights.weight.to(dtype)
    offset = weights.bias.to(dtype) if bias else None
    if on_cpu(weight.device) and not conv.shuffled:
        if conv.kernel == 3 and conv.stride == 1 and min(weight.shape[:2]) >= 96 and pixels >= 4096:
            return _winograd(weight, offset)
        if conv.kernel > 3 and conv.stride == 1 and weight.shape[0] < 16:
            return _narrow(weight, offset)
    weight = weight.contiguous(memory_format=memory_format(weight.device, dtype))
    if conv.shuffled:
        return Kernel(lambda window, _: F.pixel_shuffle(F.conv2d(window, weight, offset), 2))
    if conv.transposed:
        # Padding 0 makes one row and column before those asked for, of the first ones alone.
        return Kernel(
            lambda window, _: F.conv_transpose2d(window, weight, offset, stride=2)[:, :, 1:, 1:]
        )
    return Kernel(lambda window, _: F.conv2d(window, weight, offset, conv.stride))


def _narrow(weight: Tensor, bias: Tensor | None) -> Kernel:
    """A convolution to few channels as one of stride 4 across, to four times as many.

    Vectors run over output channels, and three would leave most of a vector empty.
    """
    made, _, _, width = weight.shape
    shifted = weight.new_zeros(4, *weight.shape[:3], width + 3)
    for phase in range(4):
        shifted[phase, ..., phase : phase + width] = weight
    wide = shifted.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    offset = None if bias is None else bias.repeat(4)

    def run(window: Tensor, scratch: Scratch) -> Tensor:
        del scratch
        part = F.conv2d(window, wide, offset, (1, 4))
        images, _, rows, columns = part.shape
        split = part.view(images, 4, made, rows, columns).permute(0, 2, 3, 4, 1)
        return split.reshape(images, made, rows, 4 * columns)

    return Kernel(run, column_grid=4)


# Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): F(4x4, 3x3), by
# the construction of Toom and Cook on the points 0, 1, -1, 1/2, -2 and infinity. With 2 in place of
# 1/2, as it is mostly written, the rounding error is two to three times larger. The rows below are
# the one-dimensional transforms: of the output (4 from 6), of the weights (6 from 3), of the input
# (6 from 6).
_TILE = 4
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 1 / 2, -2, 0),
    (0, 1, 1, 1 / 4, 4, 0),
    (0, 1, -1, 1 / 8, -8, 1),
)
_WEIGHTS = (
    (1, 0, 0),
    (1 / 3, 1 / 3, 1 / 3),
    (-1 / 3, 1 / 3, -1 / 3),
    (-16 / 15, -8 / 15, -4 / 15),
    (1 / 15, -2 / 15, 4 / 15),
    (0, 0, 1),
)
_INPUT = (
    (1, -3 / 2, -2, 3 / 2, 1, 0),
    (0, -1, 1 / 2, 5 / 2, 1, 0),
    (0, 1, -5 / 2, 1 / 2, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 1 / 2, -1, -1 / 2, 1, 0),
    (0, 1, -3 / 2, -2, 3 / 2, 1),
)


def _both_ways(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """A one-dimensional transform of rows and columns, as one matrix on flattened squares."""
    matrix = torch.tensor(transform, dtype=torch.float64)
    return torch.kron(matrix, matrix).float()


def _winograd(weight: Tensor, bias: Tensor | None) -> Kernel:
    """A 3x3 convolution of stride 1 with a quarter of the multiplications.

    Squares of 6x6 pixels become 36 values a channel, which 36 matrix products take to the output's
    channels, and those become squares of 4x4. The transforms are matrix products as well: they run
    at the same rate and need no passes of their own.
    """
    made, channels = weight.shape[:2]
    squares = _TILE + 2
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1)
    products = (_both_ways(_WEIGHTS) @ taps).view(squares**2, channels, made)
    to_products, to_pixels = _both_ways(_INPUT), _both_ways(_OUTPUT)

    def run_one(window: Tensor, result: Tensor, scratch: Scratch) -> None:
        pixels = window.permute(1, 2, 0)
        down, across = result.shape[0] // _TILE, result.shape[1] // _TILE
        row, column, channel = pixels.stride()
        tiles = pixels.as_strided(
            (squares, squares, down, across, channels),
            (row, column, _TILE * row, _TILE * column, channel),
        )
        count = down * across
        gathered = scratch.take("a", *tiles.shape).copy_(tiles).view(squares**2, -1)
        spread = scratch.take("b", squares**2, count, channels)
        torch.mm(to_products, gathered, out=spread.view(squares**2, -1))
        mixed = scratch.take("a", squares**2, count, made)
        torch.bmm(spread, products, out=mixed)
        tiled = scratch.take("b", _TILE**2, count * made)
        torch.mm(to_pixels, mixed.view(squares**2, -1), out=tiled)
        result.view(down, _TILE, across, _TILE, made).copy_(
            tiled.view(_TILE, _TILE, down, across, made).permute(2, 0, 3, 1, 4)
        )
        if bias is not None:
            result.add_(bias)

    def run(window: Tensor, scratch: Scratch) -> Tensor:
        rows, columns = window.shape[2] - 2, window.shape[3] - 2
        results = scratch.take("result", window.shape[0], rows, columns, made)
        for image, result in zip(window, results, strict=True):
            run_one(image, result, scratch)
        return results.permute(0, 3, 1, 2)

    return Kernel(run, row_grid=_TILE, column_grid=_TILE)
