"""3x3 convolutions of stride 1 on the CPU with a quarter of the multiplications, in plain torch.

`docs/benchmarks.md` says what this form gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..device import Device, Scratch
from ..schedule import Step
from ..statistics import Norm
from . import torch_ops
from .contract import Footprint, Kernel, Layer, Made, Rows
from .window import WindowRows, window_shape

_FEWEST_CHANNELS = 96  # below, the transforms cost more than the products save
_FEWEST_PIXELS = 4096  # of the map that is made: preparing weights pays only for enough of them

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
    matrix = torch.tensor(transform, dtype=torch.float64, device="cpu")
    return torch.kron(matrix, matrix).float()


def make(layer: Layer, device: Device) -> Kernel | None:
    """The Winograd form of a 3x3 convolution of stride 1 of enough channels, on the CPU."""
    conv, weight = layer.conv, layer.weights.weight
    if not device.cpu or conv.kernel != 3 or conv.stride != 1 or conv.doubles or layer.tanh:
        return None
    if min(weight.shape[:2]) < _FEWEST_CHANNELS:
        return None
    return Winograd(layer, device)


@dataclass(frozen=True, slots=True)
class Winograd:
    """A 3x3 convolution of stride 1 by F(4x4, 3x3), and of few pixels by the operator."""

    layer: Layer
    device: Device
    cuts_strips: ClassVar[bool] = False

    def footprint(self, step: Step, images: int, rows: int) -> Footprint:
        """See `Kernel.footprint`."""
        if not _pays(step):
            return torch_ops.make(self.layer, self.device).footprint(step, images, rows)
        high, wide = window_shape(step, rows, _TILE, _TILE)
        tiles = -(-rows // _TILE) * -(-step.size[1] // _TILE)
        squares = (_TILE + 2) ** 2
        scratch = {
            "a": squares * tiles * max(step.inputs, step.outputs) * 4,
            "b": max(squares * step.inputs, _TILE**2 * step.outputs) * tiles * 4,
            "result": images * tiles * _TILE**2 * step.outputs * 4,
        }
        window = images * high * wide * step.inputs * 4
        weights = squares * step.inputs * step.outputs * 4
        return Footprint(window, 0, weights, scratch, self.device.overhead)

    def open(self, source: Rows, step: Step, norm: Norm | None, scratch: Scratch) -> Made:
        """See `Kernel.open`."""
        if not _pays(step):
            return torch_ops.make(self.layer, self.device).open(source, step, norm, scratch)
        # Prepared anew for every sweep, which takes a millisecond for 256 channels: kept, they
        # would be four times the network.
        convolve = _Convolve(self.layer, scratch)
        return WindowRows(source, step, norm, scratch, convolve, self.device)


def _pays(step: Step) -> bool:
    return step.size[0] * step.size[1] >= _FEWEST_PIXELS


class _Convolve:
    """The transformed weights of one sweep, and the products with them.

    Squares of 6x6 pixels become 36 values a channel, which 36 matrix products take to the output's
    channels, and those become squares of 4x4. The transforms are matrix products as well: they run
    at the same rate and need no passes of their own.
    """

    row_grid = column_grid = _TILE

    def __init__(self, layer: Layer, scratch: Scratch) -> None:
        weight = layer.weights.weight.to(torch.float32)
        self._made, channels = weight.shape[:2]
        self._bias = layer.weights.bias.to(torch.float32) if layer.bias else None
        self._to_products, self._to_pixels = _both_ways(_INPUT), _both_ways(_OUTPUT)
        # By output channel first, as the weight itself lies in channels-last order: no transposing.
        taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
        products = scratch.take_weights((_TILE + 2) ** 2, self._made, channels)
        torch.mm(_both_ways(_WEIGHTS), taps, out=products.view(products.shape[0], -1))
        self._products = products.transpose(1, 2)

    def convolve(self, window: Tensor, scratch: Scratch) -> Tensor:
        """Made of the window; see `window.Convolve`."""
        rows, columns = window.shape[2] - 2, window.shape[3] - 2
        results = scratch.take("result", window.shape[0], rows, columns, self._made)
        for image, result in zip(window, results, strict=True):
            self._one(image, result, scratch)
        return results.permute(0, 3, 1, 2)

    def _one(self, window: Tensor, result: Tensor, scratch: Scratch) -> None:
        squares, channels = _TILE + 2, window.shape[0]
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
        torch.mm(self._to_products, gathered, out=spread.view(squares**2, -1))
        mixed = scratch.take("a", squares**2, count, self._made)
        torch.bmm(spread, self._products, out=mixed)
        tiled = scratch.take("b", _TILE**2, count * self._made)
        torch.mm(self._to_pixels, mixed.view(squares**2, -1), out=tiled)
        result.view(down, _TILE, across, _TILE, self._made).copy_(
            tiled.view(_TILE, _TILE, down, across, self._made).permute(2, 0, 3, 1, 4)
        )
        if self._bias is not None:
            result.add_(self._bias)
