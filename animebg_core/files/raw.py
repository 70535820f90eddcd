"""What a file is by its first bytes: camera raw, and formats that are not read here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import TiffTags

_TAGS = {info.name: number for number, info in TiffTags.TAGS_V2.items()}
_SUBFILE_TYPE, _PHOTOMETRIC = _TAGS["NewSubfileType"], _TAGS["PhotometricInterpretation"]
_COMPRESSION, _SUB_IFDS = _TAGS["Compression"], 330
_DNG_VERSION = 50706
_RAW_PHOTOMETRIC = {32803, 34892}  # a colour filter array, and linear raw
_RAW_COMPRESSION = {32767, 34713, 65000, 65535}  # Sony's, Nikon's, Kodak's, Pentax's
_MOST_DIRECTORIES = 32

_RAW_MAGICS = (
    b"FUJIFILMCCD-RAW",  # RAF
    b"FOVb",  # Sigma's X3F
    b"\0MRM",  # Minolta
    b"IIU\0",  # Panasonic's RW2
    b"IIRO",  # Olympus' ORF
    b"IIRS",
    b"MMOR",
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def unread_format(head: bytes) -> str | None:
    """Why a file with these first 32 bytes or more is not read, or None."""
    if head.startswith(_RAW_MAGICS) or head[4:12] == b"ftypcrx ":  # Canon's CR3
        return CAMERA_RAW
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIC is not read: convert it to JPEG or PNG first"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "this Pillow reads no AVIF: install a newer one, or convert it to PNG first"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL is not read: convert it to JPEG or PNG first"
    return None


CAMERA_RAW = "camera raw is not read, and its preview is not the photo: develop it to TIFF first"


def is_camera_raw(file: BinaryIO) -> bool:
    """Whether a file is camera raw in a TIFF's clothes, by its tags: NEF, DNG, CR2, ARW and more.

    What such a file shows first is a small preview. The file may be at any position, afterwards
    too.
    """
    file.seek(0)
    head = file.read(16)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if head[8:10] == b"CR":  # Canon's CR2
        return True
    for number, tags in enumerate(_directories(file, head)):
        first = {tag: values[0] for tag, values in tags.items() if values}
        if (
            _DNG_VERSION in tags
            or first.get(_PHOTOMETRIC) in _RAW_PHOTOMETRIC
            or first.get(_COMPRESSION) in _RAW_COMPRESSION
            # The first page is a reduced picture of another one below it.
            or (number == 0 and first.get(_SUBFILE_TYPE, 0) & 1 and _SUB_IFDS in tags)
        ):
            return True
    return False


def _directories(file: BinaryIO, head: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """The directories of a TIFF, and those below them, as tags and their whole numbers."""
    order = "<" if head[:2] == b"II" else ">"
    ahead, seen = list(struct.unpack(f"{order}I", head[4:8])), set[int]()
    while ahead and len(seen) < _MOST_DIRECTORIES:
        offset = ahead.pop(0)
        if offset in seen or not offset:
            continue
        seen.add(offset)
        try:
            tags, following = _directory(file, offset, order)
        except (struct.error, OSError, OverflowError):  # cut, or no directory
            continue
        yield tags
        ahead += [*tags.get(_SUB_IFDS, ()), following]


def _directory(file: BinaryIO, offset: int, order: str) -> tuple[dict[int, tuple[int, ...]], int]:
    file.seek(offset)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    table = file.read(12 * count)
    rest = file.read(4)
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(0, len(table) - 11, 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", table, at)
        letter = {1: "B", 3: "H", 4: "I", 13: "I"}.get(kind)
        size = struct.calcsize(letter) * number if letter else 0
        tags[tag] = ()
        if not letter or number > 64:
            continue
        value = table[at + 8 : at + 12]
        if size > 4:
            file.seek(struct.unpack(f"{order}I", value)[0])
            value = file.read(size)
        tags[tag] = struct.unpack_from(f"{order}{number}{letter}", value)
    return tags, struct.unpack(f"{order}I", rest)[0] if len(rest) == 4 else 0
