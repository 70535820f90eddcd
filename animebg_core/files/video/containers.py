"""Containers that FFmpeg reads: opened, their film found, its packets decoded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ...errors import VideoError

_ENDS = 1 << 20  # bytes of each end of a file that tell it from others of its size
_TAGGED, _UNITS = re.compile(r"(\d+):(\d+):(\d+\.?\d*)"), (3600, 60, 1)
_MOST_BAD = 1000  # places that cannot be read, after which a file is taken to end


def opened(source: Path) -> InputContainer:
    """The container in `source`, to be closed by `with`.

    Raises:
        VideoError: it cannot be read, or is none.
    """
    if source.exists() and source.stat().st_size == 0:
        raise VideoError("it is empty, 0 bytes")
    try:
        return av.open(str(source), "r", metadata_errors="replace")
    except FileNotFoundError as error:
        raise VideoError("there is no such file") from error
    except (av.error.InvalidDataError, ValueError) as error:
        raise VideoError("not a video in a format that FFmpeg reads, or damaged") from error
    except OSError as error:
        raise VideoError(error.strerror or str(error)) from error


def film_stream(container: InputContainer) -> VideoStream:
    """The first stream that is a film, not a cover.

    Raises:
        VideoError: there is none.
    """
    for stream in container.streams.video:
        if not is_cover(stream) and stream.codec_context is not None:  # pyright: ignore[reportUnnecessaryComparison]
            stream.thread_type = cast(Any, "AUTO")
            return stream
    raise VideoError("it has no video track")


def is_cover(stream: Any) -> bool:
    """It is a picture that belongs to the file, as music has one."""
    disposition = getattr(stream, "disposition", None)
    return bool(disposition is not None and "attached_pic" in str(disposition))


def has_alpha_beside(stream: VideoStream) -> bool:
    """It is VP8 or VP9 with a second picture, of transparency, beside each."""
    mode = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode")
    return mode == "1" and "vp" in stream.codec_context.name


def _decode(packet: Any) -> list[VideoFrame]:
    return packet.decode()


def decoder(stream: VideoStream) -> Callable[[Any], list[VideoFrame]]:
    """What makes frames of packets. FFmpeg's own VP8 and VP9 leave transparency away."""
    name = stream.codec_context.name
    if not has_alpha_beside(stream):
        return _decode
    vpx = cast(Any, av.CodecContext.create(f"libvpx-{name}" if name == "vp9" else "libvpx", "r"))
    vpx.extradata = stream.codec_context.extradata

    def decode(packet: Any) -> list[VideoFrame]:
        return vpx.decode(packet if packet.size else None)

    return decode


def packets(container: InputContainer, *streams: Any) -> Iterator[Any]:
    """The packets of streams, the last of each empty; None for a place that cannot be read."""
    for _ in range(_MOST_BAD):
        try:
            yield from container.demux(*streams)
            return
        except (av.error.FFmpegError, ValueError):
            yield None


@contextmanager
def written() -> Generator[None]:
    """Says in a line what FFmpeg cannot write.

    Raises:
        VideoError: it refused to.
        OSError: the disk did.
    """
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, (OSError, MemoryError)):
            raise
        raise VideoError(f"FFmpeg cannot write it so: {error.strerror or error}") from error


def said_to_end(stream: VideoStream, begins: float) -> float:
    """The second at which a film ends by the head of its file; 0 where that says nothing."""
    if stream.duration is not None and "mp4" in stream.container.format.name:
        return begins + float(stream.duration * (stream.time_base or 0))
    match = _TAGGED.fullmatch(stream.metadata.get("DURATION", ""))  # Matroska's
    if match is None:
        return 0
    return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True))


def source_identity(source: Path) -> dict[str, Any]:
    """What tells a file from another: its size, when it was written, and its ends."""
    digest = hashlib.sha256()
    found = source.stat()
    with source.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, found.st_size - _ENDS))
        digest.update(file.read(_ENDS))
    return {"size": found.st_size, "written": found.st_mtime_ns, "ends": digest.hexdigest()}
