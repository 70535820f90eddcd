"""Fused kernels for the CPU, where the distribution `animebg-kernels` is installed: norm, ReLU and
padding as a map is read, moments or tanh as one is written, 3x3 convolutions by Winograd at all
widths.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...network.design import Conv, Stage
from ...network.generator import ConvWeights
from ..device import Device, Scratch
from ..schedule import Step
from ..statistics import Gathering, Norm
from . import native_rows, torch_ops
from .contract import Kernel, Layer
from .native_rows import known

if TYPE_CHECKING:
    import animebg_kernels

_log = logging.getLogger(__name__)

_INTERFACE = 2  # of the distribution, which this is written for


def make(layer: Layer, device: Device) -> Kernel | None:
    """The fused form of a convolution, where there is the library and it is right."""
    library = _library() if device.cpu else None
    return None if library is None else known(layer, library)


def settle(data: Tensor, norm: Norm, relu: bool, branch: Tensor | None) -> bool:
    """Bring a map [N, C, H, W] to its final values as `kernels.settle` does; False where that is
    left to torch.
    """
    library = _library() if data.device.type == "cpu" else None
    return library is not None and native_rows.settle(library, data, norm, relu, branch)


def instruction_set() -> str | None:
    """The instruction set that the kernels use, such as "avx2"; None where none are in use."""
    library = _library()
    return None if library is None else library.set


@cache
def _library() -> animebg_kernels.Library | None:
    """The library if it is installed, wanted, and agrees with torch."""
    try:
        import animebg_kernels as kernels
    except ModuleNotFoundError:
        return None
    if kernels.INTERFACE != _INTERFACE:
        _log.warning(
            "the native kernels are not used: those installed are of another version of AnimeBG "
            "(interface %s, wanted is %s); install them again: pip install ./kernels",
            kernels.INTERFACE,
            _INTERFACE,
        )
        return None
    try:
        library = kernels.load()
    except kernels.KernelsError as error:
        _log.warning("the native kernels are not used: %s", error)
        return None
    if library is not None and not _agrees(library):
        _log.warning(
            "the native kernels (%s) are not used: they differ from torch on this machine; "
            "ANIMEBG_KERNELS=off says nothing of it",
            library.set,
        )
        return None
    return library


# --- the check against torch ---

_CHECKED = (
    (Conv(7, padding="reflect"), 3, 16, False),
    (Conv(3, stride=2), 16, 24, False),
    (Conv(3, padding="reflect"), 20, 32, False),
    (Conv(3, stride=2, transposed=True), 32, 16, True),
    (Conv(3, shuffled=True), 16, 12, True),
    (Conv(7, padding="reflect"), 16, 3, True),
)
# Products of numbers around 1 in float32; what is wrong is wrong by 1.
_TOLERANCE = 1e-3


def _agrees(library: animebg_kernels.Library) -> bool:
    """Whether every kind of convolution gives what torch gives, on a small map."""
    random = torch.Generator("cpu").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")

    device = Device(torch.device("cpu"), torch.float32, cpu=True)
    for conv, inputs, outputs, bias in _CHECKED:
        first, second = (inputs, outputs) if conv.transposed else (outputs, inputs)
        weight = normal(first, second, conv.kernel, conv.kernel)
        weight *= (inputs * conv.kernel**2) ** -0.5
        made = outputs // 4 if conv.shuffled else outputs
        layer = Layer(conv, ConvWeights(weight, normal(outputs)), bias, tanh=made == 3)
        source = normal(1, inputs, 9, 11)
        size = (conv.output_size(9), conv.output_size(11))
        before = Stage("before", (), 1)
        stage = Stage("checked", (conv,), 1)
        step = Step(stage, 0, inputs, made, weight.numel(), (9, 11), size, before)
        norm = Norm(*normal(2, 1, inputs, 1, 1))
        native = known(layer, library)
        if native is None:
            continue
        results: list[Tensor] = []
        for kernel in (native, torch_ops.make(layer, device)):
            scratch = Scratch(device.device)
            rows = kernel.open(_Map(source), step, norm, scratch)
            out = normal(1, made, *size).contiguous(memory_format=torch.channels_last)
            gathering = None if bias else Gathering(1)
            rows.store(0, size[0], out, None, gathering)
            results.append(out)
            if gathering is not None:
                moments = gathering.parts()
                results += [moments.mean, moments.m2 / moments.count]
        half = len(results) // 2
        for ours, torchs in zip(results[:half], results[half:], strict=True):
            if not _equal(ours, torchs):
                return False
    data, branch = (
        normal(1, 20, 9, 11).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    norm = Norm(*normal(2, 1, 20, 1, 1))
    ours, torchs = data.clone(), data.clone()
    native_rows.settle(library, ours, norm, True, branch.clone())
    torch_ops.settle(torchs, norm, True, 4, branch.clone())
    return _equal(ours, torchs)


def _equal(ours: Tensor, torchs: Tensor) -> bool:
    return torch.allclose(ours.double(), torchs.double(), rtol=0, atol=_TOLERANCE)


class _Map:
    """A map in memory, as a source of rows."""

    def __init__(self, data: Tensor) -> None:
        self.data = data
        self.height, self.width = data.shape[2:]

    def rows(self, start: int, stop: int) -> Tensor:
        return self.data[:, :, start:stop]
