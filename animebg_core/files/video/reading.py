"""Films as frames in order, with all that is to be kept of them: times, colours, shape."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import av
import av.error
import av.filter
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ...errors import VideoError
from .colour import HLG, PQ, RGB, Colours, Layout, layout_of, planar, planar_name, samples, to_rgb
from .containers import decoder, film_stream, opened, packets, said_to_end, source_identity
from .timeline import from_zero

_SHORT = 0.25  # seconds that a film may end too early without a word
_GLANCE = (9, 16)  # rows and columns of the smallest picture that shows cuts and fades


@dataclass(frozen=True, slots=True)
class Shape:
    """What holds for every frame of a clip.

    Attributes:
        height, width: upright.
        aspect: width of a pixel by its height.
        rate: frames a second, on average.
        time_base: seconds of a tick of the frames' times.
        colours: as the clip says.
        layout: how its samples are kept: depth, subsampling, transparency.
    """

    height: int
    width: int
    aspect: Fraction
    rate: Fraction
    time_base: Fraction
    colours: Colours
    layout: Layout

    @property
    def alpha(self) -> bool:
        return self.layout.alpha


class Frame(Protocol):
    """One frame, decoded; turned to pixels only when those are wanted."""

    def pixels(self) -> NDArray[np.uint16]:
        """RGB or RGBA [H, W, 3 or 4], upright, 0 to 65535."""
        ...

    def glance(self) -> NDArray[np.float32]:
        """The frame at 9 x 16 pixels, each the mean of its part: [9, 16, 3] in about 0..1."""
        ...


class Clip(Protocol):
    """A clip to be painted: read from its beginning as often as needed."""

    @property
    def shape(self) -> Shape: ...

    @property
    def notes(self) -> list[str]:
        """What of it is not kept or not sound, a line each; complete when it has been read."""
        ...

    def identity(self) -> object:
        """What tells its file from another or a changed one, as JSON can hold it."""
        ...

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """Every frame in display order, and its time in ticks as the file has it."""
        ...

    @property
    def last_ticks(self) -> int:
        """How long the last frame stays, in ticks; 0 where nothing says."""
        ...


@dataclass(frozen=True, slots=True)
class _FilmFrame:
    frame: VideoFrame
    colours: Colours
    quarters: int  # turns to the left that make it upright
    mirrored: bool  # it is to be put upside down before

    def pixels(self) -> NDArray[np.uint16]:
        pixels = to_rgb(self.frame, self.colours)
        pixels = np.ascontiguousarray(pixels[::-1]) if self.mirrored else pixels
        return np.ascontiguousarray(np.rot90(pixels, self.quarters)) if self.quarters else pixels

    def glance(self) -> NDArray[np.float32]:
        frame, layout = planar(self.frame)
        small = VideoFrame(_GLANCE[1], _GLANCE[0], _small_name(layout))
        target = layout_of(small.format.name)
        assert target is not None
        for index in range(target.planes):
            parts = block_means(samples(frame, layout, index), *_GLANCE)
            # Two bits more than the source's, so that a slow fade does not go in steps.
            unit = 1 << (16 - layout.depth)
            samples(small, target, index)[:] = np.rint(parts * unit)
        return to_rgb(small, self.colours)[..., :3].astype(np.float32) * np.float32(1 / 65535)


def _small_name(layout: Layout) -> str:
    if layout.grey:
        return "gray16le"
    return "gbrp16le" if layout.rgb else "yuv444p16le"


def block_means(plane: NDArray[Any], rows: int, columns: int) -> NDArray[np.float64]:
    """`plane` [H, W] cut into rows x columns parts, as equal as can be: the mean of each,
    in large pictures that of a grid of its pixels."""
    # A grid of points stands for all of them: there are hundreds to a part.
    step = max(1, min(plane.shape[0] // (10 * rows), plane.shape[1] // (10 * columns)))
    plane = plane[::step, ::step]
    height, width = plane.shape
    tops = np.linspace(0, height, rows, endpoint=False).astype(int)
    lefts = np.linspace(0, width, columns, endpoint=False).astype(int)
    sums = np.add.reduceat(plane, lefts, axis=1, dtype=np.float64)
    sums = np.add.reduceat(sums, tops, axis=0)
    high = np.diff(tops, append=max(height, tops[-1] + 1))
    wide = np.diff(lefts, append=max(width, lefts[-1] + 1))
    # A side with fewer pixels than parts has parts that begin at the same pixel: that one itself.
    return sums / np.maximum(high, 1)[:, None] / np.maximum(wide, 1)


def glance_of(values: NDArray[Any]) -> NDArray[np.float64]:
    """RGB [H, W, 3 or 4] as `Frame.glance` has it, in the values' own unit."""
    return np.stack([block_means(values[..., k], *_GLANCE) for k in range(3)], -1)


@dataclass(slots=True)
class Film:
    """A film that FFmpeg reads.

    Attributes:
        longest: frames are made smaller to so many pixels on the longer side.

    Raises, when opened: VideoError, in one line that does not name the file.
    """

    source: Path
    longest: int | None = None
    shape: Shape = field(init=False)
    notes: list[str] = field(init=False, default_factory=list[str])
    last_ticks: int = field(init=False, default=0)
    _quarters: int = field(init=False, default=0)
    _mirrored: bool = field(init=False, default=False)
    _interlaced: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        first: VideoFrame | None = None
        with opened(self.source) as container:
            stream = film_stream(container)
            for _, frame in itertools.islice(self._decoded(container, stream), 12):
                first = frame if first is None else first
                self._interlaced |= bool(frame.interlaced_frame)
            if first is None:
                raise VideoError("none of its frames can be decoded: it is damaged or empty")
            self._quarters = round(getattr(first, "rotation", 0) / 90) % 4
            self._mirrored = _mirrored(first)
            self.shape = _shape(stream, first, self._quarters, self.longest)
        self.notes.clear()
        if self.shape.colours.transfer in (PQ, HLG):
            name = "PQ" if self.shape.colours.transfer == PQ else "HLG"
            raise VideoError(f"it is HDR ({name}), which the networks never saw: make it SDR first")
        if self._interlaced:
            self.notes.append("it is interlaced; its frames are made whole (bwdif)")

    def identity(self) -> object:
        """See `Clip`."""
        return source_identity(self.source)

    def frames(self, *, keys: bool = False) -> Iterator[tuple[int, Frame]]:
        """Every frame that can be decoded, in the decoder's order, which is that of display.

        Args:
            keys: only those that stand for themselves, which are decoded many times as fast.
        """
        self.notes[:] = self.notes[:1] if self._interlaced else []
        with opened(self.source) as container:
            stream = film_stream(container)
            if keys:
                stream.codec_context.skip_frame = "NONKEY"
            decoded = self._decoded(container, stream)
            if self._interlaced:
                decoded = _deinterlaced(decoded)
            resized = False
            given: tuple[int, int] | None = None
            height, width = self.shape.height, self.shape.width
            if self._quarters % 2:
                height, width = width, height
            for time, frame in decoded:
                given = given or (frame.height, frame.width)
                resized |= given != (frame.height, frame.width)
                if (frame.height, frame.width) != (height, width):
                    frame = frame.reformat(width, height, interpolation="LANCZOS")
                yield time, _FilmFrame(frame, self.shape.colours, self._quarters, self._mirrored)
            if resized:
                self.notes.append(f"frames of another size are brought to {width}x{height}")

    def _decoded(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Each frame and its time in ticks of the stream."""
        decode = decoder(stream)
        bad, torn, time, step = 0, 0, 0, _usual_ticks(stream)
        first: int | None = None
        ends = 0
        for packet in from_zero(container, packets(container, stream)):
            if packet is not None and packet.dts is not None:
                ends = max(ends, (packet.pts or packet.dts) + (packet.duration or step))
                if not packet.size:
                    continue  # the frame before stays: Theora says so
            try:
                frames = decode(packet) if packet is not None else []
                bad += packet is None
            except av.error.EOFError:  # what a flushed decoder answers
                continue
            except (av.error.FFmpegError, ValueError):
                bad += 1  # a packet that is no picture costs itself
                continue
            for frame in frames:
                time = frame.pts if frame.pts is not None else time + step
                first = time if first is None else first
                torn += bool(frame.is_corrupt)
                self.last_ticks = _duration(frame) or step
                yield time, frame
        if bad:
            what = "a damaged place" if bad == 1 else f"{bad} damaged places"
            self.notes.append(f"{what} cannot be read and is passed over")
        if torn:
            what = "a frame is" if torn == 1 else f"{torn} frames are"
            self.notes.append(f"{what} damaged, and painted as far as can be read")
        if first is not None and stream.time_base is not None:
            begins, stops = float(first * stream.time_base), float(ends * stream.time_base)
            said = said_to_end(stream, begins)
            if stops < said - _SHORT:
                lasts = f"{stops - begins:.2f} of {said - begins:.2f} seconds"
                self.notes.append(f"it breaks off after {lasts}")


def _mirrored(frame: VideoFrame) -> bool:
    """The file says that it is to be shown as in a mirror, besides being turned."""
    data = frame.side_data.get(cast(Any, "DISPLAYMATRIX"))
    if data is None:
        return False
    a, b, _, c, d = np.frombuffer(cast(Any, data), np.int32)[:5].astype(float)
    return a * d - b * c < 0


def _duration(frame: VideoFrame) -> int:
    return int(getattr(frame, "duration", 0) or 0)


def _usual_ticks(stream: VideoStream) -> int:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    assert stream.time_base is not None
    return max(1, round(1 / (rate * stream.time_base)))


def _deinterlaced(frames: Iterator[tuple[int, VideoFrame]]) -> Iterator[tuple[int, VideoFrame]]:
    """The same number of frames at the same times, their fields made one picture."""
    graph: av.filter.Graph | None = None
    times: list[int] = []

    def pulled() -> Iterator[tuple[int, VideoFrame]]:
        assert graph is not None
        while True:
            try:
                frame = cast(VideoFrame, graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield times.pop(0), frame

    for number, (time, frame) in enumerate(frames):
        if graph is None:
            graph = av.filter.Graph()
            name = planar_name(frame.format.name)
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=cast(Any, name),
                time_base=Fraction(1, 25),
            )
            bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
            sink = graph.add("buffersink")
            source.link_to(bwdif)
            bwdif.link_to(sink)
            graph.configure()
            size = frame.width, frame.height
        frame = frame.reformat(*size, format=name)  # pyright: ignore[reportPossiblyUnboundVariable]
        frame.pts, frame.time_base = number, Fraction(1, 25)
        times.append(time)
        graph.push(frame)
        yield from pulled()
    if graph is not None:
        graph.push(None)
        yield from pulled()


def _shape(stream: VideoStream, frame: VideoFrame, quarters: int, longest: int | None) -> Shape:
    layout = layout_of(planar_name(frame.format.name))
    assert layout is not None
    told = int(frame.color_range or stream.color_range)
    full = told == 2 or (layout.grey and told == 0)  # grey that says nothing is FFmpeg's own
    colours = Colours(
        RGB if layout.rgb else _known(frame.colorspace, stream.colorspace),
        layout.rgb or full,
        _known(getattr(frame, "color_primaries", 2), stream.color_primaries),
        _known(getattr(frame, "color_trc", 2), stream.color_trc),
    )
    if layout.name.startswith("yuvj"):
        colours = Colours(colours.matrix, True, colours.primaries, colours.transfer)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    height, width = frame.height, frame.width
    if longest and longest < max(height, width):
        # Even, since many codecs count by twos.
        scale = longest / max(height, width) / 2
        height, width = (max(2, 2 * round(side * scale)) for side in (height, width))
    if quarters % 2:
        height, width, aspect = width, height, 1 / aspect
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    assert stream.time_base is not None
    return Shape(height, width, aspect, rate, stream.time_base, colours, layout)


def _known(*values: Any) -> int:
    """The first that says something; 0 and 2 say nothing for what is no RGB."""
    return next((int(value) for value in values if int(value) not in (0, 2)), 2)
