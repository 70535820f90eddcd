"""All that differs by device: dtype of arithmetic, layout, memory, strips, and running out."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Generator as Yields
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .memory import host_free_memory

if TYPE_CHECKING:
    from ..network.generator import Generator

# Pixels of a strip times channels of the first map: 24,000 pixels of the published networks, twice
# that of the small ones. At 768 x 1152 those take 8% less time than with 24,000, and 15% less than
# with 96,000, which the caches do not hold.
_CPU_STRIP = 24_000 * 64
# Pixels of a high strip in the residual blocks: with more a panorama takes more memory than by
# torch's kernels.
_CUT_STRIP = 16_000
_GPU_STRIP = 1 << 20  # pixels: a strip should fill the device
_SMALLEST_ROWS = 4
# What the convolution library, its threads and the heap take beside the tensors: 7 to 20 MiB as
# measured in a process that has painted before, 20 to 30 more in one that has not.
_CPU_OVERHEAD = 28 << 20

# How torch's allocators say that there is no room: graphics cards, DirectML; the main memory on
# Linux and macOS ("DefaultCPUAllocator: can't allocate memory"), on Windows.
_NO_ROOM = ("out of memory", "can't allocate memory", "not enough memory", "not enough gpu")

_LARGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14

# Only Linux has the C library's functions in the program itself.
_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


class Scratch:
    """Memory for what lives only within one strip, taken once for a run.

    Freed and taken anew for every strip it would cost page faults on the CPU, and leave holes in
    its heap. Elsewhere the device's own allocator does as much, and a buffer is a new tensor.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[str, Tensor] | None = {} if device.type == "cpu" else None
        self._prepared = 0

    def begin_sweep(self) -> None:
        """The weights that were prepared for the sweep before are not needed any more."""
        self._prepared = 0

    def take_weights(self, *shape: int) -> Tensor:
        """A float32 tensor of any content for prepared weights, kept until the sweep ends."""
        self._prepared += 1
        return self.take(f"weights {self._prepared}", *shape)

    def take(self, name: str, *shape: int) -> Tensor:
        """A float32 tensor of any content, in place of the last one of this name."""
        if self._buffers is None:
            return torch.empty(shape, dtype=torch.float32, device=self._device)
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            self._buffers.pop(name, None)  # before the larger one is taken, not after
            buffer = None
            buffer = torch.empty(size, dtype=torch.float32, device=self._device)
            _ask_for_large_pages(buffer)
            self._buffers[name] = buffer
        return buffer[:size].view(shape)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a network runs, and what follows from that.

    Attributes:
        device: torch's name for it.
        maps: dtype in which weights and maps are stored.
        cpu: what is made for the CPU applies.
    """

    device: torch.device
    maps: torch.dtype
    cpu: bool

    @staticmethod
    def of(generator: Generator) -> Device:
        """Where the generator's weights are."""
        return Device(generator.device, generator.dtype, is_cpu(generator.device))

    @property
    def arithmetic(self) -> torch.dtype:
        """What convolutions run in: float32 on the CPU, where half precision is only storage (its
        half-precision convolutions are far slower).
        """
        return torch.float32 if self.cpu else self.maps

    @property
    def layout(self) -> torch.memory_format:
        """Channels-last where convolutions are faster so: on the CPU, and in half on a GPU."""
        last = self.cpu or self.maps != torch.float32
        return torch.channels_last if last else torch.contiguous_format

    @property
    def batches(self) -> bool:
        """Whether the pictures of a batch are run together."""
        return not self.cpu

    @property
    def holds_result(self) -> bool:
        """Whether the painted picture takes memory of this device."""
        return self.cpu

    @property
    def overhead(self) -> int:
        """Bytes that torch's libraries take beside the tensors."""
        return _CPU_OVERHEAD if self.cpu else 0

    def strips(
        self, width: int, together: int, channels: int, *, cut: bool = False
    ) -> list[tuple[int, int]]:
        """Heights of strips to try, for the picture and for the residual blocks' quarter-size maps,
        the fastest first.

        On the CPU a strip's maps should stay in its caches; on a GPU a strip should fill it.

        Args:
            width: of the picture, in pixels.
            together: pictures run together.
            channels: of the network's first map.
            cut: the blocks' kernels cut strips themselves (`Kernel.cuts_strips`): then high ones
                are tried first, which take 0.85 of the time of the small networks.
        """
        pixels = _CPU_STRIP // max(32, channels) if self.cpu else _GPU_STRIP
        rows = max(16, min(pixels // (width * together) // 16 * 16, 64 if self.cpu else 1 << 14))
        sizes = [rows]
        while sizes[-1] > _SMALLEST_ROWS:
            sizes.append(max(_SMALLEST_ROWS, sizes[-1] // 8 * 4))
        found: list[tuple[int, int]] = []
        for size in sizes:
            low = max(_SMALLEST_ROWS, size // 2)
            high = min(size * 3 // 2, _CUT_STRIP // max(1, width // 4))
            found += [(size, high)] if cut and high > low else []
            found.append((size, low))
        return found

    def take_map(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A map [N, C, H, W] of any content, in this layout."""
        made = torch.empty(shape, dtype=dtype, device=self.device, memory_format=self.layout)
        if self.cpu:
            _ask_for_large_pages(made)
        return made

    def free_memory(self) -> int | None:
        """Bytes that are free there; None where nobody tells."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            reserved = torch.cuda.memory_reserved(self.device)
            return free + reserved - torch.cuda.memory_allocated(self.device)
        return host_free_memory() if self.device.type == "cpu" else None

    def trim(self) -> None:
        """Hand freed memory of the heap back to the system, where the C library has to be told.

        glibc keeps it for later and cannot always use it again for tensors of other sizes.
        """
        release = getattr(_C_LIBRARY, "malloc_trim", None) if self.cpu else None
        if release is not None:
            release(0)


def _ask_for_large_pages(memory: Tensor) -> None:
    """Have Linux give fresh memory by pages of 2 MiB, where it does that for the asking.

    By pages of 4 KiB a picture of a megapixel costs the small networks 26,000 page faults, a tenth
    of the time that it takes.
    """
    advise = getattr(_C_LIBRARY, "madvise", None)
    start = -(-memory.data_ptr() // _LARGE_PAGE) * _LARGE_PAGE
    whole = (memory.data_ptr() + memory.nbytes - start) // _LARGE_PAGE
    if advise is not None and whole > 0:
        # Whatever it answers: this only makes things faster.
        advise(ctypes.c_void_p(start), ctypes.c_size_t(whole * _LARGE_PAGE), _MADV_HUGEPAGE)


@contextmanager
def plain_arithmetic(*devices: torch.device) -> Yields[None]:
    """No gradients and no autocast, whatever the caller has switched on."""
    with ExitStack() as stack:
        for kind in sorted({device.type for device in devices} & {"cpu", "cuda", "xpu"}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode())
        yield


def is_cpu(device: torch.device) -> bool:
    """Whether what is made for the CPU applies: its arithmetic, its kernels, its strips."""
    return device.type == "cpu"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the computer, had no room left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_ROOM)


def empty_cache(device: torch.device) -> None:
    """Give what an allocator keeps back to its device, after a try that ran out of memory.

    Not to be called while the error lives: its traceback holds the tensors of the failed try.
    """
    backend = getattr(torch, device.type, None)
    release = getattr(backend, "empty_cache", None)
    if release is not None:
        release()
