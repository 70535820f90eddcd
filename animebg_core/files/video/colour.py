"""Decoded video frames to upright RGB and back, by the matrix and the range that the clip names.

libswscale rounds such conversions down in 16 bits and up to two steps wrong in 8, and which matrix
it takes has differed between releases of PyAV. Here both ways are written out: what comes in and
goes out unpainted is the same to the bit, in full and limited range, 8 to 16 bits.
"""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

# The numbers of ITU-T H.273, as FFmpeg has them too.
UNSPECIFIED = 2
RGB, BT709, FCC, BT470BG, SMPTE170M, SMPTE240M = 0, 1, 4, 5, 6, 7
BT2020_NCL, BT2020_CL = 9, 10
PQ, HLG = 16, 18  # transfers of HDR

# Luma weights of red and blue by matrix.
_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020_NCL: (0.2627, 0.0593),
    BT2020_CL: (0.2627, 0.0593),
}
_LIMITED, _FULL = 1, 2  # AVColorRange
_PART = 1 << 16  # pixels that are converted together


@dataclass(frozen=True, slots=True)
class Colours:
    """What a clip says of its colours, in the numbers of ITU-T H.273; 2 is unspecified.

    Attributes:
        matrix: from RGB to luma and chroma; 0 where planes are RGB themselves.
        full: samples take their whole range (0 to 255), not 16 to 235.
        primaries, transfer: kept and written again.
    """

    matrix: int = UNSPECIFIED
    full: bool = False
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    def weights(self, height: int) -> tuple[float, float]:
        """Luma weights of red and blue; unspecified is taken as players do, by the height."""
        guess = BT709 if height >= 720 else SMPTE170M
        return _WEIGHTS.get(self.matrix, _WEIGHTS[guess])


@dataclass(frozen=True, slots=True)
class Layout:
    """How a planar pixel format keeps its samples.

    Attributes:
        name: FFmpeg's name of it.
        rgb: the planes are green, blue, red; else luma and chroma, or luma alone (`grey`).
        depth: bits a sample; more than 8 take two bytes.
        across, down: pixels for each chroma sample.
    """

    name: str
    rgb: bool
    grey: bool
    alpha: bool
    depth: int
    across: int = 1
    down: int = 1

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        return np.dtype(np.uint8) if self.depth == 8 else np.dtype("<u2")

    @property
    def planes(self) -> int:
        return (1 if self.grey else 3) + self.alpha


_SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "440": (1, 2), "411": (4, 1)}
_SUBSAMPLING["410"] = (4, 4)
_PLANAR = re.compile(r"yuv([aj]?)(4\d\d)p(\d*)(?:le)?|gbr(a?)p(\d*)(?:le)?|gray(\d*)(?:le)?")


def layout_of(name: str) -> Layout | None:
    """The layout of FFmpeg's pixel format `name`; None if it is none of these planar ones."""
    match = _PLANAR.fullmatch(name)
    if match is None or name.endswith("msble"):
        return None
    if match[2]:
        across, down = _SUBSAMPLING[match[2]]
        return Layout(name, False, False, match[1] == "a", int(match[3] or 8), across, down)
    if name.startswith("gbr"):
        return Layout(name, True, False, match[4] == "a", int(match[5] or 8))
    return Layout(name, False, True, False, int(match[6] or 8))


# Formats of other make and the planar ones that hold the same samples.
_SAME_SAMPLES = {
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
    "uyyvyy411": "yuv411p",
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "nv24": "yuv444p",
    "p010le": "yuv420p10le",
    "p210le": "yuv422p10le",
    "p410le": "yuv444p10le",
    "rgb24": "gbrp",
    "bgr24": "gbrp",
    "rgb0": "gbrp",
    "bgr0": "gbrp",
    "0rgb": "gbrp",
    "0bgr": "gbrp",
    "bgr8": "gbrp",
    "rgb8": "gbrp",
    "rgb555le": "gbrp",
    "rgb565le": "gbrp",
    "monob": "gray",
    "monow": "gray",
    "rgba": "gbrap",
    "bgra": "gbrap",
    "argb": "gbrap",
    "abgr": "gbrap",
    "pal8": "gbrap",
    "ya8": "gbrap",
    "rgb48le": "gbrp16le",
    "rgb48be": "gbrp16le",
    "bgr48le": "gbrp16le",
    "rgba64le": "gbrap16le",
    "rgba64be": "gbrap16le",
    "ya16be": "gbrap16le",
}


def planar_name(name: str) -> str:
    """The planar format that holds the samples of pixel format `name`."""
    if layout_of(name):
        return name
    if name.endswith("be") and layout_of(f"{name[:-2]}le"):
        return f"{name[:-2]}le"
    return _SAME_SAMPLES.get(name, "yuv444p16le" if name.startswith("yuv") else "gbrap16le")


def planar(frame: VideoFrame) -> tuple[VideoFrame, Layout]:
    """`frame` in a planar format that holds the same samples."""
    name = planar_name(frame.format.name)
    layout = layout_of(name)
    assert layout is not None
    return (frame if name == frame.format.name else frame.reformat(format=name)), layout


def samples(frame: VideoFrame, layout: Layout, index: int) -> NDArray[np.uint8 | np.uint16]:
    """Plane `index` of a planar frame, [height, width], a view of it without its padding."""
    plane = frame.planes[index]
    rows: NDArray[Any] = np.frombuffer(cast(Any, plane), layout.dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


def to_rgb(frame: VideoFrame, colours: Colours) -> NDArray[np.uint16]:
    """A decoded frame as RGB or, where it has transparency, RGBA: [H, W, 3 or 4], 0 to 65535.

    The inverse of `from_rgb`. Chroma is brought to full size by a straight line through each
    sample, no steeper than to either neighbour (van Leer's limiter): the mean of the pixels is the
    sample again, and a hard edge stays one.
    """
    frame, layout = planar(frame)
    height, width = frame.height, frame.width
    top = (1 << layout.depth) - 1
    result = np.empty((height, width, 3 + layout.alpha), np.uint16)
    if layout.rgb:
        for channel, index in enumerate((2, 0, 1)):
            result[..., channel] = _widened(samples(frame, layout, index), top)
    else:
        low, spread, middle, swing = _range(layout, colours)
        chroma = [
            _enlarged(
                (samples(frame, layout, index).astype(np.float32) - middle) * np.float32(1 / swing),
                0,
                layout.down,
                height,
            )
            for index in ((1, 2) if not layout.grey else ())
        ]
        # In parts that a processor's cache holds: a third less time.
        rows = max(1, _PART // width)
        for start in range(0, height, rows):
            part = slice(start, start + rows)
            luma = samples(frame, layout, 0)[part].astype(np.float32)
            luma = (luma - low) * np.float32(1 / spread)
            if layout.grey:
                result[part, :, :3] = _rounded(luma)[..., None]
            else:
                blue, red = (_enlarged(plane[part], 1, layout.across, width) for plane in chroma)
                _from_luma(luma, blue, red, colours.weights(height), result[part])
    if layout.alpha:
        result[..., 3] = _widened(samples(frame, layout, layout.planes - 1), top)
    return result


def from_rgb(pixels: NDArray[np.uint16], layout: Layout, colours: Colours) -> VideoFrame:
    """RGB or RGBA [H, W, 3 or 4], 0 to 65535, as a frame of `layout`, tagged with its colours."""
    height, width = pixels.shape[:2]
    frame = VideoFrame(width, height, layout.name)
    top = (1 << layout.depth) - 1
    if layout.rgb:
        for channel, index in enumerate((2, 0, 1)):
            samples(frame, layout, index)[:] = _narrowed(pixels[..., channel], top)
    else:
        low, spread, middle, swing = _range(layout, colours)
        red_weight, blue_weight = colours.weights(height)
        red, green, blue = (
            pixels[..., k].astype(np.float32) * np.float32(1 / 65535) for k in range(3)
        )
        luma = red * np.float32(red_weight) + blue * np.float32(blue_weight)
        luma += green * np.float32(1 - red_weight - blue_weight)
        _put(frame, layout, 0, luma * np.float32(spread) + np.float32(low))
        if not layout.grey:
            for index, channel, weight in ((1, blue, blue_weight), (2, red, red_weight)):
                chroma: NDArray[Any] = (channel - luma) * np.float32(swing / (2 * (1 - weight)))
                _put(frame, layout, index, _reduced(chroma, layout) + np.float32(middle))
    if layout.alpha:
        opaque = np.full((height, width), 65535, np.uint16)
        alpha = pixels[..., 3] if pixels.shape[2] == 4 else opaque
        samples(frame, layout, layout.planes - 1)[:] = _narrowed(alpha, top)
    frame.color_range = _FULL if colours.full or layout.rgb else _LIMITED
    frame.colorspace = colours.matrix
    return frame


def _range(layout: Layout, colours: Colours) -> tuple[float, float, float, float]:
    """Of the samples: black, from black to white, colourless, from there by a chroma of 1."""
    unit = 1 << (layout.depth - 8)
    if colours.full or layout.name.startswith("yuvj"):
        top = (1 << layout.depth) - 1
        return 0, top, 128 * unit, top
    return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def _from_luma(
    luma: NDArray[np.float32],
    blue: NDArray[np.float32],
    red: NDArray[np.float32],
    weights: tuple[float, float],
    result: NDArray[np.uint16],
) -> None:
    """Write luma [H, W] in 0..1 and the chroma of blue and red, -0.5..0.5, as RGB."""
    of_red, of_blue = weights
    of_green = 1 - of_red - of_blue
    result[..., 0] = _rounded(luma + red * np.float32(2 * (1 - of_red)))
    result[..., 2] = _rounded(luma + blue * np.float32(2 * (1 - of_blue)))
    luma = luma - red * np.float32(2 * (1 - of_red) * of_red / of_green)
    result[..., 1] = _rounded(luma - blue * np.float32(2 * (1 - of_blue) * of_blue / of_green))


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """0..1 as 0..65535, what lies beyond cut off; may overwrite `values`."""
    values = values * np.float32(65535)
    np.clip(values, 0, 65535, out=values)
    return np.rint(values, out=values).astype(np.uint16)


def _widened(plane: NDArray[np.uint8 | np.uint16], top: int) -> NDArray[np.uint16]:
    if top == 65535:
        return plane.astype(np.uint16)
    if top == 255:
        return plane.astype(np.uint16) * np.uint16(257)
    return ((plane.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def _narrowed(plane: NDArray[np.uint16], top: int) -> NDArray[np.uint32]:
    return (plane.astype(np.uint32) * top + 32767) // 65535


def _put(frame: VideoFrame, layout: Layout, index: int, values: NDArray[np.float32]) -> None:
    np.rint(values, out=values)
    samples(frame, layout, index)[:] = np.clip(values, 0, (1 << layout.depth) - 1)


def _enlarged(plane: NDArray[np.float32], axis: int, factor: int, size: int) -> NDArray[np.float32]:
    """Each sample becomes `factor` along `axis`; cut to `size`."""
    if factor == 1:
        return plane
    rows = np.moveaxis(plane, axis, 0)
    slope = np.zeros_like(rows)
    if len(rows) > 2:
        before, behind = rows[1:-1] - rows[:-2], rows[2:] - rows[1:-1]
        steeper = np.where(np.abs(before) < np.abs(behind), before, behind)
        slope[1:-1] = np.where(before * behind > 0, steeper, np.float32(0))
    result = np.empty((len(rows) * factor, *rows.shape[1:]), np.float32)
    for k in range(factor):
        np.multiply(slope, np.float32((k + 0.5) / factor - 0.5), out=result[k::factor])
        result[k::factor] += rows
    return np.moveaxis(result[:size], 0, axis)


def _reduced(plane: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """The mean of the pixels of each chroma sample; at an odd edge, of those that there are."""
    for axis, factor in ((0, layout.down), (1, layout.across)):
        if factor == 1:
            continue
        rows = np.moveaxis(plane, axis, 0)
        whole = len(rows) // factor
        parts = [rows[k : whole * factor : factor] for k in range(factor)]
        mean = sum(parts[1:], parts[0]) * np.float32(1 / factor)
        if len(rows) % factor:
            mean = np.concatenate([mean, rows[whole * factor :].mean(0, keepdims=True)])
        plane = np.moveaxis(mean, 0, axis)
    return plane
