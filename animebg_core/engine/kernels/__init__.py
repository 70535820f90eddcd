"""Convolutions: what a kernel is, and which one each convolution of a network gets.

A kernel set is one file with a `make`; it takes the convolutions that it is good at and leaves the
others to the sets behind it. `torch_ops`, the last one, takes all of them on every device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

from torch import Tensor

from ...network.generator import Generator
from ..device import Device
from ..statistics import Norm
from . import native, torch_ops, winograd
from .contract import Footprint, Kernel, Layer, Made, Rows

__all__ = ["Footprint", "Kernel", "Kernels", "Layer", "Made", "Rows", "choose", "settle"]

# In order of preference.
_SETS: tuple[Callable[[Layer, Device], Kernel | None], ...] = (
    native.make,
    winograd.make,
    torch_ops.make,
)

Kernels = Mapping[tuple[str, int], Kernel]
_chosen: weakref.WeakKeyDictionary[Generator, tuple[object, Kernels]] = weakref.WeakKeyDictionary()


def choose(generator: Generator, device: Device) -> Kernels:
    """The kernel of each convolution, by its stage's name and its number there.

    Chosen when a network is first run, and again when its weights have moved or changed.
    """
    state = (device, *(_version(tensor) for tensor in generator.parameters()))
    known = _chosen.get(generator)
    if known is None or known[0] != state:
        kernels = {
            (stage.name, index): _first(Layer.of(generator, stage, index), device)
            for stage in generator.stages
            for index in range(len(stage.convs))
        }
        _chosen[generator] = known = (state, kernels)
    return known[1]


def settle(data: Tensor, norm: Norm, relu: bool, strip: int, branch: Tensor | None) -> None:
    """Bring a map to its final values in place: norm(data), or data + norm(branch), and perhaps the
    ReLU of it.

    Args:
        data: [N, C, H, W] of any float dtype.
        strip: height of the strips in which it is done, where memory is taken for it.
        branch: the same; it may be overwritten. None: there is none.
    """
    if not native.settle(data, norm, relu, branch):
        torch_ops.settle(data, norm, relu, strip, branch)


def _first(layer: Layer, device: Device) -> Kernel:
    return next(kernel for make in _SETS if (kernel := make(layer, device)) is not None)


def _version(tensor: Tensor) -> tuple[int, int]:
    """What differs once a weight lies elsewhere or holds other numbers."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
