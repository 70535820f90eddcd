"""Maps between sweeps, wherever they lie: on the network's device, or in main memory, from where
rows are brought as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from .device import Device
from .transfers import Transfers


class Map(Protocol):
    """A map [N, C, height, width]."""

    height: int
    width: int

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) on the device, which may be the map itself."""
        ...

    def room(self, start: int, stop: int) -> Tensor:
        """Where on the device rows [start, stop) are to be made."""
        ...

    def keep(self, start: int, stop: int, made: Tensor) -> None:
        """Rows [start, stop) have been made where `room` or `rows` said."""
        ...

    def pieces(self, rows: int) -> Iterator[tuple[int, int]]:
        """The map as ranges of rows that can be had at once, of so many rows if by strips."""
        ...


class DeviceMap:
    """A map on the network's device."""

    def __init__(self, data: Tensor) -> None:
        self.data = data
        self.height, self.width = data.shape[2:]

    def rows(self, start: int, stop: int) -> Tensor:
        return self.data[:, :, start:stop]

    room = rows

    def keep(self, start: int, stop: int, made: Tensor) -> None:
        """They lie there."""

    def pieces(self, rows: int) -> Iterator[tuple[int, int]]:
        del rows
        yield 0, self.height


class HostMap:
    """A map in main memory; not all of it pinned, which would be taken from everybody for good."""

    # Not `data`: whatever has that is read where it lies (`kernels.contract.Stored`).
    def __init__(self, room: Tensor, device: Device, transfers: Transfers) -> None:
        self.height, self.width = room.shape[2:]
        self._memory, self._device, self._transfers = room, device, transfers

    def rows(self, start: int, stop: int) -> Tensor:
        return self._transfers.up(self._memory[:, :, start:stop])

    def room(self, start: int, stop: int) -> Tensor:
        images, channels = self._memory.shape[:2]
        shape = images, channels, stop - start, self.width
        return self._device.take_map(*shape, dtype=self._memory.dtype)

    def keep(self, start: int, stop: int, made: Tensor) -> None:
        """They are there once the transfers are flushed."""
        kept = self._memory[:, :, start:stop]
        self._transfers.down(made, kept.device, kept.copy_)

    def pieces(self, rows: int) -> Iterator[tuple[int, int]]:
        for start in range(0, self.height, rows):
            yield start, min(start + rows, self.height)
