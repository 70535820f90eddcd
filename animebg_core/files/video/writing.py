"""Segments joined to a film, with the sound of the source: packets are copied, by template."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error

from ...errors import VideoError
from .containers import film_stream, has_alpha_beside, is_cover, opened, packets, written
from .formats import container_name
from .sound import Encoded
from .timeline import clock_shifts, from_zero, put_behind


@dataclass(frozen=True, slots=True)
class Trim:
    """A part of a film, in seconds from its start; `stop` is not included."""

    start: Fraction = Fraction(0)
    stop: Fraction | None = None

    @property
    def whole(self) -> bool:
        return self.start <= 0 and self.stop is None

    def after(self, seconds: Fraction) -> Trim:
        """The same part of a film that starts so much later."""
        if self.whole:
            return self
        stop = None if self.stop is None else self.stop + seconds
        return Trim(self.start + seconds, stop)


_INDEXED = (".mp4", ".m4v", ".mov")


def join(
    target: Path,
    suffix: str,
    segments: Sequence[Path],
    source: Path | None,
    *,
    times: Sequence[int],
    last: int,
    time_base: Fraction,
    trim: Trim,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write the film of `segments` to `target`: packets are copied, nothing is encoded again.

    Sound, subtitles, chapters and metadata come from `source`.

    Args:
        suffix: of the name it will have, which says what container it is.
        times: of every frame in ticks of `time_base`, rising; shifted by the trim's start already.
        last: ticks that the last frame stays.
        progress: called with frames done and in all.

    Returns:
        What could not be kept, a line each.

    Raises:
        VideoError: FFmpeg refuses it.
        OSError: it cannot be written.
    """
    notes: list[str] = []
    with (
        written(),
        av.open(str(target), "w", format=container_name(suffix), options=_options(suffix)) as out,
    ):
        with _segment(segments[0]) as first:
            template = first.streams.video[0]
            # Opaque: PyAV would look for an encoder of the decoder's name, and AV1 has none.
            apple = suffix in _INDEXED and template.codec_context.name == "hevc"
            video = cast(Any, out.add_stream_from_template(template, opaque=not apple))
            if apple:
                video.codec_context.codec_tag = "hvc1"  # the only one that Apple's players take
            video.time_base = time_base
            if has_alpha_beside(template):
                video.metadata["alpha_mode"] = "1"
        film = _film_packets(segments, times, last, time_base, video, progress)
        if source is None:
            for _, packet in film:
                out.mux(packet)
            return notes
        with opened(source) as container:
            own = film_stream(container)
            out.metadata.update(_metadata(container.metadata))
            video.metadata.update(_metadata(own.metadata))
            others = _copied(container, own, out, notes)
            _keep_chapters(container, out, trim, notes)
            shifts = _film_shifts(source) if others else []
            rises = not out.format.flags & _BESIDE
            sound = _other_packets(container, others, trim, shifts, rises)
            for _, packet in heapq.merge(film, sound, key=lambda item: item[0]):
                out.mux(packet)
    return notes


def _options(suffix: str) -> dict[str, str]:
    if suffix in _INDEXED:
        return {"movflags": "+faststart"}  # the index first, so that it plays while it loads
    # Without, Matroska's identifiers are drawn anew each time, and no two files are equal.
    return {"fflags": "+bitexact"}


def _metadata(given: Mapping[str, str]) -> dict[str, str]:
    """Without what the container writes by itself, or what says how the old file was encoded."""
    own = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "rotate"}
    return {
        name: value
        for name, value in given.items()
        if name.lower() not in own
        and not name.upper().startswith(("_STATISTICS", "NUMBER_OF_"))
        and name.upper() not in ("BPS", "DURATION", "ALPHA_MODE")
    }


def _film_packets(
    segments: Iterable[Path],
    times: Sequence[int],
    last: int,
    time_base: Fraction,
    stream: Any,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[float, Any]]:
    """The packets of all segments with the film's own times.

    A packet is decoded no later than it is shown: the times of decoding are those of showing,
    delayed by as many frames as the encoder looks ahead, and so rise through all segments alike.
    """
    delay = max(_delay(path) for path in segments)
    done = begun = 0
    for path in segments:
        packets = list(_packets(path))
        ranks = {pts: rank for rank, pts in enumerate(sorted(p.pts for p in packets))}
        for packet in packets:
            frame = begun + ranks[packet.pts]
            packet.pts = times[frame]
            earlier = done - delay
            if earlier >= 0:
                packet.dts = times[earlier]
            else:
                step = times[1] - times[0] if len(times) > 1 else 1
                packet.dts = times[0] + earlier * step
            ends = times[frame + 1] if frame + 1 < len(times) else times[frame] + max(last, 1)
            packet.duration = ends - times[frame]
            packet.time_base = time_base
            packet.stream = stream
            done += 1
            yield float(packet.dts * time_base), packet
            if progress:
                progress(done, len(times))
        begun += len(packets)
    if done != len(times):
        raise VideoError(f"the segments hold {done} frames instead of {len(times)}")


def _packets(path: Path) -> Iterator[Any]:
    with _segment(path) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                yield packet


@contextmanager
def _segment(path: Path) -> Generator[Any]:
    try:
        with av.open(str(path)) as container:
            yield container
    except av.error.InvalidDataError as error:
        raise VideoError(f"{path} is damaged: remove it and run the same again") from error


def _delay(path: Path) -> int:
    """By how many frames packets come before they are shown, at most."""
    shown = [packet.pts for packet in _packets(path)]
    ranks = {pts: rank for rank, pts in enumerate(sorted(shown))}
    return max((at - ranks[pts] for at, pts in enumerate(shown)), default=0)


def _copied(container: Any, own: Any, out: Any, notes: list[str]) -> dict[int, Any]:
    """A stream of `out` for each of the source's that it can hold, by the source's index; sound
    that it cannot hold is `Encoded` anew."""
    result: dict[int, Any] = {}
    for stream in container.streams:
        if stream.index == own.index:
            continue
        kind = stream.type
        if kind not in ("audio", "subtitle"):
            # Time codes and the like belong to the old file.
            if kind == "video":
                notes.append("its cover is not kept" if is_cover(stream) else "only its first film")
            continue
        name = stream.codec_context.name if stream.codec_context else "unknown"
        copy = _copy(stream, name, out)
        if copy is not None:
            copy.time_base = stream.time_base
        elif kind == "subtitle":
            notes.append(f"its subtitles ({name}) cannot be kept in this format, .mkv can")
            continue
        else:
            try:
                anew = Encoded(stream, out)
            except (ValueError, av.error.FFmpegError, RuntimeError):
                notes.append(f"its sound ({name}) cannot be kept in this format, .mkv can")
                continue
            notes.append(f"its sound ({name}) is encoded as {anew.name} for this format")
            result[stream.index], copy = anew, anew.stream
        copy.metadata.update(_metadata(stream.metadata))
        result.setdefault(stream.index, copy)
    return result


def _copy(stream: Any, name: str, out: Any) -> Any:
    """A stream of `out` that takes the packets of `stream` as they are; None if it cannot."""
    if not _holds(out.format.name, name):
        return None
    try:
        return out.add_stream_from_template(stream, opaque=True)
    except (ValueError, av.error.FFmpegError, RuntimeError):
        return None


_BESIDE = 0x20000  # AVFMT_TS_NONSTRICT

# What muxers refuse only when the header is written, too late to leave a stream away.
_HELD: Mapping[str, frozenset[str]] = {
    "mp4": frozenset(
        {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac", "dca", "mov_text", "vorbis"}
    ),
    "webm": frozenset({"opus", "vorbis", "webvtt"}),
}


def _holds(container: str, codec: str) -> bool:
    known = _HELD.get(container)
    if known is not None:
        return codec in known
    if container == "mov":
        return codec in _HELD["mp4"] - {"opus", "flac", "vorbis"} or codec.startswith("pcm_")
    return codec != "mov_text"


def _film_shifts(source: Path) -> list[Fraction]:
    """How the film's clock jumps, so that its sound jumps with it."""
    with opened(source) as container:
        return clock_shifts(container, packets(container, film_stream(container)))


def _other_packets(
    container: Any, streams: Mapping[int, Any], trim: Trim, shifts: list[Fraction], rises: bool
) -> Iterator[tuple[float, Any]]:
    """The packets of sound and subtitles, their bytes and times as they are, less the trim.

    Args:
        rises: what is written wants each packet of sound behind the one before, not beside it.
    """
    if not streams:
        return
    latest = 0.0
    decoded: dict[int, Fraction] = {}  # the second of the last packet of each stream of sound

    def told(made: Any) -> tuple[float, Any]:
        # Muxers refuse sound that is not behind the sound before, as broken files have it.
        nonlocal latest
        index = made.stream.index
        if made.dts is not None and made.stream.type == "audio":
            put_behind(made, decoded.get(index), rises)
            decoded[index] = made.dts * made.time_base
        latest = max(latest, _decoded_at(made))
        return latest, made

    start, stop = (Fraction(0), None) if trim.whole else (trim.start, trim.stop)
    wanted = [container.streams[index] for index in streams]
    for packet in from_zero(container, packets(container, *wanted), shifts):
        if packet is None:
            continue
        target = streams[packet.stream.index]
        if isinstance(target, Encoded):
            given = target.packets(packet, start, stop)
        else:
            given = _moved(packet, target, trim)
        for made in given:
            yield told(made)
    for target in streams.values():
        if isinstance(target, Encoded):
            for made in target.rest():
                yield told(made)


def _decoded_at(packet: Any) -> float:
    when = packet.dts if packet.dts is not None else packet.pts
    return 0.0 if when is None else float(when * packet.time_base)


def _moved(packet: Any, stream: Any, trim: Trim) -> Iterator[Any]:
    """The packet as it is to be written, if it lies within the trim."""
    if not packet.size:
        return
    tick = packet.time_base
    shown = packet.pts if packet.pts is not None else packet.dts
    if not trim.whole and shown is not None:
        seconds = shown * tick
        if seconds < trim.start or (trim.stop is not None and seconds >= trim.stop):
            return
        moved = round(trim.start / tick)
        packet.pts = shown - moved
        packet.dts = (packet.dts if packet.dts is not None else shown) - moved
    packet.stream = stream
    yield packet


def _keep_chapters(container: Any, out: Any, trim: Trim, notes: list[str]) -> None:
    if not hasattr(container, "chapters"):
        return  # PyAV before 15 does not tell
    chapters = container.chapters()
    if not chapters or out.format.name == "webm":
        return
    if not trim.whole:
        notes.append("its chapters are not kept in a part of it")
        return
    out.set_chapters(chapters)
