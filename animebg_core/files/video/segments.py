"""Segments: runs of frames that are encoded, written whole, and can be decoded, by themselves."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np
from numpy.typing import NDArray

from ..whole import whole_file
from .colour import from_rgb, to_rgb
from .containers import written
from .formats import Encoding


class SegmentFile:
    """A segment that takes its name when it is finished. Its methods may run in another thread."""

    def __init__(self, target: Path, encoding: Encoding) -> None:
        self._whole = whole_file(target)
        self._encoding = encoding
        self._writer: _Writer | None = None

    def add(self, pixels: NDArray[np.uint16]) -> None:
        """Encode the next frame, RGB or RGBA [H, W, 3 or 4].

        Raises:
            VideoError: its encoder refuses it.
            OSError: it cannot be written.
        """
        with written():
            if self._writer is None:
                file = self._whole.__enter__()
                self._writer = _Writer(file, self._encoding, *pixels.shape[:2])
            self._writer.add(pixels)

    def finish(self) -> None:
        """Write what is still to come, and give the file its name.

        Raises:
            VideoError: its encoder refuses it.
            OSError: it cannot be written.
        """
        assert self._writer is not None
        with written():
            self._writer.close()
        self._whole.__exit__(None, None, None)

    def abort(self) -> None:
        """Leave nothing."""
        if self._writer is None:
            return
        # What made the run stop has been raised already.
        with suppress(OSError, ValueError):
            self._writer.close()
        stop = InterruptedError()
        with suppress(InterruptedError):
            self._whole.__exit__(InterruptedError, stop, None)


class _Writer:
    """Encodes frames; their times are their numbers."""

    def __init__(self, file: BinaryIO, encoding: Encoding, height: int, width: int) -> None:
        self._encoding = encoding
        os.environ.setdefault("SVT_LOG", "1")  # or its AV1 encoder tells of itself at length
        self._container = av.open(file, "w", format="matroska")
        stream = cast(
            Any,
            self._container.add_stream(
                encoding.encoder,
                rate=encoding.rate.limit_denominator(100_000),
                options=dict(encoding.options),
            ),
        )
        stream.width, stream.height = width, height
        stream.pix_fmt = encoding.pixels.name
        if encoding.pixels.alpha:
            stream.metadata["alpha_mode"] = "1"  # by which players know it of VP9
        context = stream.codec_context
        context.thread_count = encoding.threads
        context.time_base = 1 / encoding.rate.limit_denominator(100_000)
        context.sample_aspect_ratio = encoding.aspect
        context.colorspace = encoding.colours.matrix
        context.color_range = 2 if encoding.colours.full else 1
        context.color_primaries = encoding.colours.primaries
        context.color_trc = encoding.colours.transfer
        self._stream, self._number = stream, 0

    def add(self, pixels: NDArray[np.uint16]) -> None:
        """Encode the next frame, RGB or RGBA [H, W, 3 or 4]."""
        frame = from_rgb(pixels, self._encoding.pixels, self._encoding.colours)
        frame.pts, self._number = self._number, self._number + 1
        frame.time_base = self._stream.codec_context.time_base
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Write what is still to come. Only then is the segment whole."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()


def segment_frames(segments: Sequence[Path], encoding: Encoding) -> Iterator[NDArray[np.uint16]]:
    """The frames of segments again, [H, W, 3 or 4]; exact where the codec is lossless."""
    for path in segments:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield to_rgb(frame, encoding.colours)
