"""What a file's numbers mean as colours, where no profile says it, and their way to sRGB.

Sources: PNG, third edition (gAMA, cHRM, sRGB, cICP); ITU-T H.273 for the code points of cICP and
of AVIF's nclx box; IEC 61966-2-1 for sRGB.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

Values = NDArray[Any]

# x and y of white, red, green and blue.
_D65 = (0.3127, 0.3290)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: Mapping[int, tuple[float, ...]] = {
    1: _SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # NTSC of 1953
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # PAL
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # NTSC of 1987
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),  # film
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI P3
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_HDR = {16: "PQ", 18: "HLG"}
_ROWS = 1 << 20  # pixels converted at a time

# libpng, too, takes gammas within 5% for the same; files of sRGB say 1 / 2.2.
_SAME_GAMMA = 0.05
_SAME_PRIMARIES = 0.002


def _from_srgb(values: Values) -> Values:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_srgb(values: Values) -> Values:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def _from_bt709(values: Values) -> Values:
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


def _power(exponent: float) -> Callable[[Values], Values]:
    return lambda values: values**exponent


_TRANSFERS: Mapping[int, Callable[[Values], Values]] = {
    1: _from_bt709,
    4: _power(2.2),
    5: _power(2.8),
    6: _from_bt709,
    8: _power(1.0),
    13: _from_srgb,
    14: _from_bt709,
    15: _from_bt709,
}


@dataclass(frozen=True, slots=True)
class Colours:
    """How numbers become light.

    Attributes:
        linear: numbers in [0, 1] to light in [0, 1].
        primaries: x and y of white, red, green and blue.
        narrow: black and white are 16/255 and 235/255.
    """

    linear: Callable[[Values], Values] = _from_srgb
    primaries: tuple[float, ...] = _SRGB
    narrow: bool = False


def png_colours(chunks: Mapping[bytes, bytes], *, profile: bool) -> Colours | None:
    """What a PNG's chunks say, the most telling first; None where that is sRGB or nothing.

    Args:
        chunks: contents by name.
        profile: there is an ICC profile, which goes before sRGB, gAMA and cHRM.

    Raises:
        ImageError: high dynamic range.
    """
    if len(chunks.get(b"cICP", b"")) == 4:
        primaries, transfer, _, full = chunks[b"cICP"]
        return coded_colours(primaries, transfer, full=bool(full))
    if profile or b"sRGB" in chunks:
        return None
    linear, primaries = _from_srgb, _SRGB
    if len(chunks.get(b"gAMA", b"")) == 4:
        gamma = struct.unpack(">I", chunks[b"gAMA"])[0] / 100_000
        if gamma > 0 and abs(gamma * 2.2 - 1) > _SAME_GAMMA:
            linear = _power(1 / gamma)
    if len(chunks.get(b"cHRM", b"")) == 32:
        found = tuple(value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"]))
        if _usable(found) and not np.allclose(found, _SRGB, rtol=0, atol=_SAME_PRIMARIES):
            primaries = found
    if linear is _from_srgb and primaries is _SRGB:
        return None
    return Colours(linear, primaries)


def coded_colours(primaries: int, transfer: int, *, full: bool) -> Colours | None:
    """What the code points of H.273 say; None where that is sRGB or nothing.

    Raises:
        ImageError: high dynamic range.
    """
    if transfer in _HDR:
        raise ImageError(
            f"high dynamic range ({_HDR[transfer]}) is not read: save it for an ordinary screen"
            " (sRGB) first"
        )
    linear = _TRANSFERS.get(transfer, _from_srgb)
    space = _PRIMARIES.get(primaries, _SRGB)
    if linear is _from_srgb and space is _SRGB and full:
        return None
    return Colours(linear, space, narrow=not full)


def nclx_colours(head: bytes) -> Colours | None:
    """What the first box of code points in an AVIF says; see `coded_colours`."""
    at = head.find(b"colrnclx")
    if at < 0 or at + 12 > len(head):
        return None
    primaries, transfer = struct.unpack_from(">HH", head, at + 8)
    # The decoder gives the full range. BT.709's curve and sRGB's are used for each other there.
    transfer = 13 if transfer in (1, 6, 14, 15) else transfer
    return coded_colours(primaries, transfer, full=True)


def srgb_of(values: Values, colours: Colours) -> Values:
    """Numbers [H, W, 3 or 4] uint8 or uint16 as sRGB of the same type, rounded; alpha stays.

    Colours outside sRGB go to its edge.
    """
    most = int(np.iinfo(values.dtype).max)
    scale = np.linspace(0, 1, most + 1)
    if colours.narrow:
        scale = ((scale * 255 - 16) / 219).clip(0, 1)
    table: Values = colours.linear(scale).astype(np.float32)
    matrix = None
    if colours.primaries is not _SRGB:
        matrix = np.asarray(np.linalg.inv(_to_xyz(_SRGB)) @ _to_xyz(colours.primaries), np.float32)
    result: Values = np.array(values)
    rows = max(1, _ROWS // values.shape[1])
    for start in range(0, values.shape[0], rows):
        part: Values = result[start : start + rows, :, :3]
        light: Values = table[part]
        if matrix is not None:
            light = np.minimum(np.maximum(np.matmul(light, np.transpose(matrix)), 0), 1)
        part[...] = np.rint(_to_srgb(light) * most)
    return result


def _usable(primaries: tuple[float, ...]) -> bool:
    """Whether they span a triangle."""
    if min(primaries[1::2]) <= 0:
        return False
    return abs(float(np.linalg.det(_columns(primaries[2:])))) > 1e-3


def _columns(points: tuple[float, ...]) -> NDArray[np.float64]:
    """XYZ of points x, y with Y = 1, a column each."""
    x, y = np.array(points[::2]), np.array(points[1::2])
    return np.stack([x / y, np.ones_like(x), (1 - x - y) / y])


def _to_xyz(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    """The matrix from linear RGB to XYZ, its white brought to D65 (Bradford)."""
    white, target = _columns(primaries[:2])[:, 0], _columns(_D65)[:, 0]
    columns = _columns(primaries[2:])
    matrix = columns * np.linalg.solve(columns, white)
    scale = (_CONES @ target) / (_CONES @ white)
    return np.linalg.inv(_CONES) @ (scale[:, None] * _CONES) @ matrix
