"""Clips made for tests, and what is asked of the films made from them."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from animebg_core.files.video.colour import RGB, Colours, from_rgb, layout_of, planar_name


@dataclass(frozen=True)
class Sound:
    """A second of a tone, encoded so."""

    codec: str
    rate: int = 48_000


def bars(height: int, width: int, *, alpha: bool = False) -> np.ndarray:
    """Colour bars [H, W, 3 or 4] uint16, 8 pixels wide: what one step wrong shows in."""
    rng = np.random.default_rng(5)
    colours = rng.integers(0, 65536, (1, width // 8 + 1, 4 if alpha else 3))
    colours[0, : min(4, colours.shape[1])] = [
        *[[0] * colours.shape[2]],
        *[[65535] * colours.shape[2]],
        *[[65535, 0, 0, 65535][: colours.shape[2]]],
        *[[0, 0, 65535, 30000][: colours.shape[2]]],
    ][: colours.shape[1]]
    return colours.repeat(8, 1).repeat(height, 0)[:, :width].astype(np.uint16)


def make_clip(
    path: Path,
    frames: list[np.ndarray],
    *,
    pixels: str = "yuv420p",
    colours: Colours = Colours(),  # noqa: B008
    rate: Fraction | int = 25,
    times: list[int] | None = None,
    aspect: tuple[int, int] = (1, 1),
    sound: Sound | None = None,
    turned: int = 0,
    interlaced: bool = False,
) -> Path:
    """A clip of frames [H, W, 3 or 4] uint16.

    H.264 in MP4 and MOV, VP9 in WebM, else FFV1. `times` are milliseconds, `turned` degrees
    clockwise to be shown.
    """
    codec = {".mp4": "libx264", ".mov": "libx264", ".webm": "libvpx-vp9"}.get(path.suffix, "ffv1")
    if interlaced:
        codec = "mpeg2video"
    if codec == "ffv1" and pixels in ("gbrp", "gbrap"):
        pixels = {"gbrp": "bgr0", "gbrap": "bgra"}[pixels]
    layout = layout_of(planar_name(pixels))
    assert layout is not None
    if layout.rgb:
        colours = Colours(RGB, True)
    with av.open(str(path), "w") as out:
        if frames:
            stream = out.add_stream(codec, rate=rate)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pixels
            context = stream.codec_context
            context.sample_aspect_ratio = Fraction(*aspect)
            context.colorspace, context.color_range = colours.matrix, 2 if colours.full else 1
            context.color_primaries, context.color_trc = colours.primaries, colours.transfer
            if times:
                context.time_base = Fraction(1, 1000)
            if interlaced:
                stream.codec_context.options = {"flags": "+ildct+ilme"}
            tick = context.time_base or 1 / Fraction(rate)
        if sound:
            tone = out.add_stream(sound.codec, rate=sound.rate, layout="mono")
            for packet in encoded_tone(tone, sound):
                out.mux(packet)
        for number, picture in enumerate(frames):
            frame = from_rgb(picture, layout, colours)
            if layout.name != pixels:
                frame = frame.reformat(format=pixels)
            frame.pts = times[number] if times else number
            frame.time_base = tick if times else 1 / Fraction(rate)
            for packet in stream.encode(frame):
                out.mux(packet)
        if frames:
            for packet in stream.encode(None):
                out.mux(packet)
    if turned:
        turn(path, turned)
    return path


def encoded_tone(stream, sound: Sound):
    wave = np.sin(np.arange(sound.rate) * 2 * np.pi * 440 / sound.rate).astype(np.float32)
    for start in range(0, sound.rate, 960):
        part = wave[None, start : start + 960]
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = sound.rate, start
        frame.time_base = Fraction(1, sound.rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def turn(path: Path, degrees: int) -> None:
    """Write a rotation into the header of an MP4 file, as a phone does."""
    show_by(path, *{90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees])


def show_by(path: Path, *matrix: int) -> None:
    """Write into the header of an MP4 file where a pixel is shown: at ax + cy, bx + dy."""
    a, b, c, d = (value << 16 for value in matrix)
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    at = header + 4 + 4 + 20 + 8 + 8  # flags, times, numbers, reserved, layer, volume
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction | None]]:
    """Bytes and time of every packet of the first stream of that kind."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [
            (bytes(packet), None if packet.pts is None else packet.pts * packet.time_base)
            for packet in container.demux(stream)
            if packet.size
        ]


def times_of(path: Path) -> list[Fraction]:
    """The times of all frames in seconds, in the order of display."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def pictures(path: Path) -> list[np.ndarray]:
    """Every frame's samples as FFmpeg decodes them, all planes in a row."""
    result = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            layout = layout_of(frame.format.name)
            planes = [
                np.frombuffer(plane, layout.dtype).reshape(plane.height, -1)[:, : plane.width]
                for plane in frame.planes
            ]
            result.append(np.concatenate([plane.reshape(-1) for plane in planes]))
    return result
