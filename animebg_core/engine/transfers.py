"""Rows on their way between main memory and a network's device.

On a graphics card they can travel beside the computing, through a little pinned memory and on
streams of their own, so that nobody waits for the strip that was given last. That was tested
without a card and measured on none, so that it is off unless it is asked for (`asked_for`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

_VARIABLE = "ANIMEBG_UNMEASURED"
# Strips on their way at once, each way: one travels while one is computed.
IN_FLIGHT = 2


def asked_for(way: Literal["copies", "host-maps"]) -> bool:
    """Whether a way of running that nobody has measured is switched on: the environment variable
    ANIMEBG_UNMEASURED names them, separated by commas.
    """
    return way in os.environ.get(_VARIABLE, "").replace(" ", "").split(",")


class Transfers:
    """To and from one device, in order.

    Where they travel beside the computing, streams are CUDA's: what is given to one runs in its
    order, and apart from the others unless one waits for another.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        module: Any = getattr(torch, device.type, None)
        beside = device.type != "cpu" and asked_for("copies") and hasattr(module, "Stream")
        self._module = module if beside else None
        if self._module is not None:
            # Of that device, whichever is the current one.
            self._up, self._down = self._module.Stream(device), self._module.Stream(device)
        self._used: deque[Any] = deque()  # events: all that reads what went up before is through
        self._leaving: deque[tuple[Any, Callable[[], object]]] = deque()

    def up(self, rows: Tensor) -> Tensor:
        """Rows on the device; themselves, where they are there."""
        if self._module is None or rows.device == self._device:
            return rows.to(self._device)
        current = self._module.current_stream(self._device)
        # Or the processor, which is ahead, would send a whole picture before any of it is used.
        self._used.append(current.record_event())
        if len(self._used) > IN_FLIGHT:
            self._used.popleft().synchronize()
        staged = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True).copy_(rows)
        with self._module.stream(self._up):
            made = staged.to(self._device, non_blocking=True)
        current.wait_stream(self._up)
        made.record_stream(current)
        return made

    def down(self, rows: Tensor, device: torch.device, then: Callable[[Tensor], object]) -> None:
        """Call `then` with the rows on that device, now or by `flush` at the latest, in order."""
        if self._module is None or device.type != "cpu":
            then(rows.to(device))
            return
        rows = rows.contiguous()
        room = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
        self._down.wait_stream(self._module.current_stream(self._device))
        with self._module.stream(self._down):
            room.copy_(rows, non_blocking=True)
        rows.record_stream(self._down)
        self._leaving.append((self._down.record_event(), lambda: then(room)))
        if len(self._leaving) > IN_FLIGHT:
            self._arrive()

    def flush(self) -> None:
        """Wait for all rows that are on their way down."""
        while self._leaving:
            self._arrive()

    def _arrive(self) -> None:
        arrived, then = self._leaving.popleft()
        arrived.synchronize()
        then()
