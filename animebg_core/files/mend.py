"""Files whose pixels are whole though something beside them is not, made readable."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PROFILE = 64 << 20  # bytes; the largest known are below 8 MB
_MOST_TEXT = 1 << 20  # what Pillow takes
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
# Texts that may say how the picture is turned.
_KEPT_TEXT = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


@dataclass(slots=True)
class Png:
    """A PNG without what its pixels do not need.

    Attributes:
        data: a PNG that decoders take.
        chunks: contents of the chunks that say what colours mean: gAMA, cHRM, sRGB, cICP, as far
            as they are whole.
        icc: the profile; empty if there is none or it is damaged.
        damaged: a chunk beside the pixels had a wrong checksum and is left out.
    """

    data: bytes = b""
    chunks: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    icc: bytes = b""
    damaged: bool = False


def clean_png(data: bytes) -> Png | None:
    """`data` without texts and damaged extras, if it is a PNG; pixels are not looked at.

    Bytes of its critical chunks, and everything from the first damage to them on, stay as they are.
    """
    if not data.startswith(_PNG):
        return None
    found = Png()
    parts = [_PNG]
    at, pixels = len(_PNG), False
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        extra = bool(kind[0] & 0x20) and kind.isalpha()
        if end > len(data) or not kind.isalpha():
            if not pixels:  # behind them nothing is needed
                parts.append(data[at:])
            break
        body = data[at + 8 : end - 4]
        whole = zlib.crc32(data[at + 4 : end - 4]) == struct.unpack_from(">I", data, end - 4)[0]
        if extra and not whole and kind != b"tRNS":
            found.damaged = True
        elif kind == b"iCCP":
            found.icc = _inflated(body.partition(b"\0")[2][1:], _MOST_PROFILE)
        elif kind in _TEXT and not _wanted(kind, body):
            pass
        else:
            if extra:
                found.chunks[kind] = body
            parts.append(data[at:end])
        pixels = pixels or kind == b"IDAT"
        at = end
        if kind == b"IEND":
            break
    else:
        if not pixels:
            parts.append(data[at:])
    if pixels and parts[-1][4:8] != b"IEND":
        parts.append(b"\0\0\0\0IEND\xaeB`\x82")
    found.data = b"".join(parts)
    return found


def _wanted(kind: bytes, body: bytes) -> bool:
    if not body.startswith(_KEPT_TEXT) or len(body) > _MOST_TEXT:
        return False
    if kind == b"zTXt":
        return bool(_inflated(body.partition(b"\0")[2][1:], _MOST_TEXT))
    packed = kind == b"iTXt" and body.partition(b"\0")[2][:1] != b"\0"
    return not packed


def _inflated(data: bytes, most: int) -> bytes:
    """Decompressed, or nothing where it is damaged or larger than `most` bytes."""
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(data, most)
    except zlib.error:
        return b""
    return plain if reader.eof else b""


def mended_jpeg(data: bytes) -> Image.Image | None:
    """A JPEG that lacks only its end mark, decoded; None where pixels are missing too.

    Whether any are is seen by decoding it with different bytes put behind it: a scan that is whole
    does not look at them.
    """
    if not data.startswith(b"\xff\xd8") or not _finished(data):
        return None
    data = data.removesuffix(b"\xff")  # half of the mark
    tries: list[Image.Image] = []
    for filler in (b"", b"\x55" * 64, b"\xaa" * 64):
        image = Image.open(io.BytesIO(data + filler + b"\xff\xd9"))
        try:
            image.load()
        except (OSError, SyntaxError, ValueError):
            return None
        tries.append(image)
    first = np.asarray(tries[0])
    same = all(np.array_equal(first, np.asarray(other)) for other in tries[1:])
    return tries[0] if same else None


def _finished(data: bytes) -> bool:
    """Whether the scans of a JPEG are all there: of a progressive one, the last refinements."""
    components: set[int] = set()
    refined: dict[tuple[int, int], int] = {}
    progressive = False
    for marker, body in _segments(data):
        if marker in (0xC0, 0xC1, 0xC2):
            progressive = marker == 0xC2
            components = {body[6 + 3 * index] for index in range(body[5])}
        elif marker == 0xDA:
            first, last, bits = body[-3:]
            for component in body[1:-3:2]:
                for place in range(first, last + 1):
                    refined[component, place] = bits & 15
    if not progressive:
        return {component for component, _ in refined} == components
    return all(refined.get((part, place), 1) == 0 for part in components for place in range(64))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers of a JPEG and what belongs to each, as far as they are whole."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker in (0, 1, 0xFF) or 0xD0 <= marker <= 0xD9:  # stuffing, or without a body
            at += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : at + 2 + length]
        if len(body) < length - 2 or length < 8 and marker in (0xC0, 0xC1, 0xC2, 0xDA):
            return
        yield marker, body
        at += 2 + length
