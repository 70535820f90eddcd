"""Fused convolutions of the AnimeBG networks for a CPU: one shared library, called through ctypes.

`Layer` is one convolution made ready. Maps are given as addresses of NHWC rows, so that this module
needs neither torch nor NumPy. `src/animebg_kernels.h` says what every number means.

Environment: ANIMEBG_KERNELS=off uses none, ANIMEBG_KERNELS=avx2 (avx512, neon) one instruction set.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_void_p
from pathlib import Path

INTERFACE = 2  # AB_INTERFACE of the header that this was written from
FLOAT32, FLOAT16 = 0, 1
_DONE = 0


class KernelsError(Exception):
    """The library is missing, is another version's, or was asked for what it cannot do."""


class Conv(ctypes.Structure):
    """`ab_conv`: the geometry of a convolution; `outputs` counts the channels of the weights."""

    _fields_ = [
        (name, c_int32)
        for name in (
            "kernel", "stride", "transposed", "shuffled", "reflect", "normed", "tanh", "inputs",
            "outputs",
        )
    ]  # fmt: skip


class Rows(ctypes.Structure):
    """`ab_rows`: rows of a map to be made, and those they are made from."""

    _fields_ = [
        ("source", c_void_p),
        ("source_row", c_int64),
        ("source_type", c_int32),
        ("first", c_int32),
        ("last", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("factor", c_void_p),
        ("offset", c_void_p),
        ("low", c_void_p),
        ("high", c_void_p),
        ("relu", c_int32),
        ("start", c_int32),
        ("stop", c_int32),
        ("made_width", c_int32),
        ("made_type", c_int32),
        ("made", c_void_p),
        ("made_row", c_int64),
        ("mean", c_void_p),
        ("m2", c_void_p),
        ("scratch", c_void_p),
        ("threads", c_int32),
    ]


class Sum(ctypes.Structure):
    """`ab_sum`: pixels brought to their final values in place."""

    _fields_ = [
        ("map", c_void_p),
        ("branch", c_void_p),
        ("type", c_int32),
        ("channels", c_int32),
        ("pixels", c_int64),
        ("factor", c_void_p),
        ("offset", c_void_p),
        ("low", c_void_p),
        ("high", c_void_p),
        ("relu", c_int32),
        ("threads", c_int32),
    ]


class Library:
    """The shared library, with one instruction set chosen.

    Args:
        path: the library's file; None takes the one beside this module.
        choice: the name of an instruction set; None takes the fastest that this processor has.

    Raises:
        KernelsError: no such file, another interface, or an instruction set that is not there.
    """

    def __init__(self, path: Path | None = None, choice: str | None = None) -> None:
        path = path or _beside()
        try:
            found = ctypes.CDLL(str(path.resolve()))
        except OSError as error:
            raise KernelsError(f"{path} cannot be loaded: {error}") from error
        _declare(found)
        if found.ab_interface() != INTERFACE:
            raise KernelsError(
                f"{path} has interface {found.ab_interface()}, expected {INTERFACE}: "
                "install animebg-kernels again"
            )
        self.functions = found
        self.sets: tuple[str, ...] = tuple(found.ab_instruction_sets().decode().split())
        if choice is not None and choice not in self.sets:
            raise KernelsError(
                f"the kernels have no instruction set {choice!r} for this processor, "
                f"only: {', '.join(self.sets) or 'none'}"
            )
        if not self.sets:
            raise KernelsError("this processor has none of the kernels' instruction sets")
        self.set = choice or self.sets[0]

    def threads(self) -> int:
        """Threads that the library keeps, asleep unless it is at work."""
        return int(self.functions.ab_threads())

    def settle(self, values: Sum) -> None:
        """Bring pixels to their final values."""
        if self.functions.ab_settle(byref(values), self.set.encode()) != _DONE:
            raise KernelsError("out of memory")


class Layer:
    """One convolution made ready for one instruction set.

    Args:
        library: where it runs.
        conv: its geometry.
        weight: address of float32 [outputs, inputs, kernel, kernel], transposed [inputs, outputs,
            3, 3]. It is copied. None: the layer only tells what it would take.
        bias: address of float32 [outputs]; None for none.
        threads: that prepare the weights.
        memory: address of `bytes` bytes for them, good for as long as the layer is; None: its own.

    Raises:
        KernelsError: such a convolution is not known.
    """

    def __init__(
        self,
        library: Library,
        conv: Conv,
        weight: int | None,
        bias: int | None,
        threads: int = 1,
        memory: int | None = None,
    ) -> None:
        self._functions = library.functions
        self._handle: int | None = self._functions.ab_layer_new(
            byref(conv), weight, bias, library.set.encode(), threads, memory
        )
        if not self._handle:
            raise KernelsError("the kernels know no such convolution, or memory ran out")
        self.bytes = int(self._functions.ab_layer_bytes(self._handle))

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            self._functions.ab_layer_free(handle)

    def scratch_bytes(self, rows: int, width: int, threads: int) -> int:
        """What `run` needs beside the maps to make so many rows of a map of `width`."""
        return int(self._functions.ab_scratch_bytes(self._handle, rows, width, threads))

    def run(self, rows: Rows) -> None:
        """Make rows. Other Python threads go on meanwhile."""
        answer = self._functions.ab_run(self._handle, byref(rows))
        if answer != _DONE:
            reasons = {
                1: "source rows are missing",
                2: "made without moments",
                3: "made without weights",
            }
            raise KernelsError(reasons.get(answer, f"answer {answer}"))


def load() -> Library | None:
    """The library as the environment wants it; None if it is switched off.

    Raises:
        KernelsError: it cannot be had so.
    """
    choice = os.environ.get("ANIMEBG_KERNELS", "").strip().lower()
    return None if choice == "off" else Library(choice=choice or None)


def _beside() -> Path:
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    return Path(__file__).parent / f"animebg_kernels{suffix}"


def _declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the types: those it guesses cut addresses to 32 bits."""
    signatures = {
        "ab_interface": (c_int32, []),
        "ab_instruction_sets": (c_char_p, []),
        "ab_layer_new": (
            c_void_p,
            [POINTER(Conv), c_void_p, c_void_p, c_char_p, c_int32, c_void_p],
        ),
        "ab_layer_free": (None, [c_void_p]),
        "ab_layer_bytes": (c_int64, [c_void_p]),
        "ab_scratch_bytes": (c_int64, [c_void_p, c_int32, c_int32, c_int32]),
        "ab_run": (c_int32, [c_void_p, POINTER(Rows)]),
        "ab_settle": (c_int32, [POINTER(Sum), c_char_p]),
        "ab_threads": (c_int32, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
