"""Rows of a convolution by way of a window: source rows, normalised and padded, that slide down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from ..device import Device, Scratch
from ..schedule import Step
from ..statistics import Gathering, Norm, chunk
from .contract import Rows


class Convolve(Protocol):
    """Convolves a window that holds its own padding."""

    @property
    def row_grid(self) -> int:
        """Rows are made in multiples of this; the window has the source rows for them, whatever
        these hold, and what is too much is cut off.
        """
        ...

    @property
    def column_grid(self) -> int:
        """The same for columns."""
        ...

    def convolve(self, window: Tensor, scratch: Scratch) -> Tensor:
        """[N, C, rows, columns] to [N, C', ...]; the result may lie in the scratch memory."""
        ...


class WindowRows:
    """The rows of one convolution in one sweep.

    Nothing is computed twice: asked for rows, it asks its source for those it has not seen yet, and
    keeps the few that the next strip needs.
    """

    def __init__(
        self,
        source: Rows,
        step: Step,
        norm: Norm | None,
        scratch: Scratch,
        kernel: Convolve,
        device: Device,
    ) -> None:
        self.height, self.width = step.size
        self._source, self._conv = source, step.conv
        self._norm = norm
        self._relu = norm is not None and step.before is not None and step.before.relu
        self._scratch, self._kernel, self._device = scratch, kernel, device
        self._columns = columns(step, kernel.column_grid)
        # The window holds source rows [first, last), padding rows included: none yet.
        self._window: Tensor | None = None
        self._first = self._last = -self._conv.padding_before

    def rows(self, start: int, stop: int) -> Tensor:
        first, last = self._conv.source_rows(start, stop)
        window = self._slide(first, last, -(stop - start) % self._kernel.row_grid)
        # Where two rows are made of one, those of the first may begin a row too early.
        skip = start % 2 if self._conv.doubles else 0
        made = self._kernel.convolve(window, self._scratch)
        return made[:, :, skip : skip + stop - start, : self.width]

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        yield start, self.rows(start, stop)

    def store(
        self,
        start: int,
        stop: int,
        out: Tensor | None,
        weight: Tensor | None,
        gathering: Gathering | None,
    ) -> None:
        rows = self.rows(start, stop)
        if out is not None:
            out.copy_(rows)
            rows = rows if rows.dtype == out.dtype else out
        if gathering is not None:
            gathering.add(chunk(rows, weight, self._scratch))

    def _slide(self, first: int, last: int, extra: int) -> Tensor:
        """Source rows [first, last), normalised and padded, and `extra` rows of anything finite."""
        height = self._source.height
        kept = max(0, self._last - first)
        begin, end = max(first + kept, 0), min(last, height)
        fresh = self._source.rows(begin, end) if begin < end else None
        window = self._make_room(fresh, last - first + extra, first - self._first, kept)
        self._first, self._last = first, last
        if fresh is not None:
            self._normalise(fresh, window[:, :, begin - first : end - first])
        for row in (*range(first + kept, min(0, last)), *range(max(height, first + kept), last)):
            if self._conv.padding == "zeros":
                window[:, :, row - first] = 0
            else:
                mirrored = -row if row < 0 else 2 * (height - 1) - row
                window[:, :, row - first] = window[:, :, mirrored - first]
        return window

    def _make_room(self, fresh: Tensor | None, rows: int, shift: int, kept: int) -> Tensor:
        """The window of so many rows, its rows [shift, shift + kept) moved to the top."""
        old = self._window
        if old is None or old.shape[2] < rows:
            like = fresh if fresh is not None else old
            assert like is not None
            window = torch.empty(
                (like.shape[0], like.shape[1], rows, self._columns),
                dtype=self._device.arithmetic,
                device=like.device,
                memory_format=self._device.layout,
            )
            # Zeros, since padding columns of zeros are never written again.
            self._window = window.zero_()
        window = self._window
        assert window is not None
        if old is not None and kept:
            # A copy of the few rows, since where they come from and go to may overlap.
            window[:, :, :kept] = old[:, :, shift : shift + kept].clone()
        return window[:, :, :rows]

    def _normalise(self, fresh: Tensor, target: Tensor) -> None:
        """Write rows of the source into the window's, with padding columns."""
        left, width = self._conv.padding_before, self._source.width
        inner = target[..., left : left + width]
        if self._norm is None:
            inner.copy_(fresh)
        else:
            self._norm.apply(fresh.to(inner.dtype), inner)
            if self._relu:
                inner.relu_()
        if self._conv.padding == "reflect":
            for k in range(1, left + 1):
                target[..., left - k] = target[..., left + k]
                target[..., left + width - 1 + k] = target[..., left + width - 1 - k]


def columns(step: Step, grid: int = 1) -> int:
    """Columns of a window: the source's, padding, and what the grid wants more."""
    conv, width = step.conv, step.source[1]
    return conv.padding_before + width + conv.padding_after + -width % grid


def window_shape(step: Step, rows: int, row_grid: int = 1, column_grid: int = 1) -> tuple[int, int]:
    """The most rows and columns that a window has for strips of so many output rows."""
    # A strip that begins at an odd row may read one row more.
    first, last = (
        step.conv.source_rows(1, 1 + rows)
        if step.conv.doubles
        else (step.conv.source_rows(0, rows))
    )
    return last - first + -rows % row_grid, columns(step, column_grid)
