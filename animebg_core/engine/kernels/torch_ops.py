"""Torch's own operators: every convolution, on every device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import Device, Scratch
from ..schedule import Step
from ..statistics import Norm
from .contract import Footprint, Kernel, Layer, Rows
from .window import WindowRows, window_shape


def make(layer: Layer, device: Device) -> Kernel:
    """The operator's form of a convolution, or what is faster for few channels on the CPU."""
    conv = layer.conv
    narrow = conv.kernel > 3 and conv.stride == 1 and layer.weights.weight.shape[0] < 16
    if device.cpu and narrow and not conv.doubles:
        run, copies = _narrow(layer, device)
        return Operator(device, _finished(layer, run), copies, column_grid=4)
    weight = layer.weights.weight.to(device.arithmetic).contiguous(memory_format=device.layout)
    bias = layer.weights.bias.to(device.arithmetic) if layer.bias else None
    if conv.shuffled:
        run = _finished(layer, lambda x: F.pixel_shuffle(F.conv2d(x, weight, bias), 2))
        return Operator(device, run, copies=2)
    if conv.transposed:
        # Padding 0 makes one row and column before those asked for, of the first ones alone.
        run = _finished(
            layer, lambda x: F.conv_transpose2d(x, weight, bias, stride=2)[:, :, 1:, 1:]
        )
        return Operator(device, run)
    return Operator(device, _finished(layer, lambda x: F.conv2d(x, weight, bias, conv.stride)))


def _finished(layer: Layer, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """With what stands behind the convolution."""
    return (lambda x: run(x).tanh_()) if layer.tanh else run


def _narrow(layer: Layer, device: Device) -> tuple[Callable[[Tensor], Tensor], int]:
    """A convolution to few channels as one of stride 4 across, to four times as many, and how many
    copies of the result there are.

    Vectors run over output channels, and three would leave most of a vector empty.
    """
    weight = layer.weights.weight.to(device.arithmetic)
    made, _, _, width = weight.shape
    shifted = weight.new_zeros(4, *weight.shape[:3], width + 3)
    for phase in range(4):
        shifted[phase, ..., phase : phase + width] = weight
    wide = shifted.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    bias = layer.weights.bias.to(device.arithmetic).repeat(4) if layer.bias else None

    def run(window: Tensor) -> Tensor:
        part = F.conv2d(window, wide, bias, (1, 4))
        images, _, rows, columns = part.shape
        split = part.view(images, 4, made, rows, columns).permute(0, 2, 3, 4, 1)
        return split.reshape(images, made, rows, 4 * columns)

    return run, 2


@dataclass(frozen=True, slots=True)
class Operator:
    """A convolution by an operator on a window.

    Attributes:
        run: the window [N, C, rows, columns] to what is made of it.
        copies: how often the result is held while it is made.
    """

    device: Device
    run: Callable[[Tensor], Tensor]
    copies: int = 1
    row_grid: int = 1
    column_grid: int = 1
    cuts_strips: ClassVar[bool] = False

    def convolve(self, window: Tensor, scratch: Scratch) -> Tensor:
        """Made of the window; see `window.Convolve`."""
        del scratch
        return self.run(window)

    def footprint(self, step: Step, images: int, rows: int) -> Footprint:
        """See `Kernel.footprint`."""
        size = self.device.arithmetic.itemsize
        high, wide = window_shape(step, rows, self.row_grid, self.column_grid)
        extra = 1 if step.conv.doubles else 0  # rows and columns that are cut off again
        made = images * (rows + 2 * extra) * (step.size[1] + 2 * extra) * step.outputs * size
        window = images * high * wide * step.inputs * size
        return Footprint(window, self.copies * made, library=self.device.overhead)

    def open(self, source: Rows, step: Step, norm: Norm | None, scratch: Scratch) -> WindowRows:
        """See `Kernel.open`."""
        return WindowRows(source, step, norm, scratch, self, self.device)


def settle(data: Tensor, norm: Norm, relu: bool, strip: int, branch: Tensor | None) -> None:
    """See `kernels.settle`."""
    for start in range(0, data.shape[2], strip):
        rows = data[:, :, start : start + strip]
        raw = rows if branch is None else branch[:, :, start : start + strip]
        in_place = raw.dtype == torch.float32
        final = norm.apply(raw, raw if in_place else torch.empty_like(raw, dtype=torch.float32))
        if branch is not None:
            final = rows.add_(final) if in_place else final.add_(rows)
        rows.copy_(final.relu_() if relu else final)
