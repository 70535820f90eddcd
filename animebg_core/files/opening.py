"""Picture files, opened and decoded: what is wrong with one is an `ImageError` in one line."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags, UnidentifiedImageError

from ..errors import ImageError
from .colours import Colours, nclx_colours, png_colours
from .mend import Png, clean_png, mended_jpeg
from .raw import CAMERA_RAW, is_camera_raw, unread_format

MAX_PIXELS = 1_000_000_000  # a larger picture is refused as a decompression bomb

_HEAD = 1 << 16  # bytes that are looked at to tell what a file is
_TAGS = {info.name: number for number, info in TiffTags.TAGS_V2.items()}
_WHITE_IS_ZERO = 0
_RAW_SUFFIXES = frozenset(
    (".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".iiq", ".kdc", ".mrw", ".nef")
    + (".nrw", ".orf", ".pef", ".raf", ".rw2", ".sr2", ".srf", ".srw", ".x3f")
)

# Where a file has 16 bits a channel, Pillow takes the byte of each number that these modes name as
# the higher one. Read with the other order, the picture is the lower bytes.
_LOWER = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_DEEP = {"RGB", "RGBA", "RGBX", "RGBa"}


@dataclass(slots=True)
class Opened:
    """A picture, decoded and not yet turned upright.

    Attributes:
        image: its first frame, 8 bits a channel or less, or one channel of more.
        deep: [H, W, 1 to 4] uint16 where the file has more than 8 bits: grey, grey and alpha, RGB,
            RGBA. Only then.
        icc: its profile; empty if it has none.
        colours: what else says how its numbers are colours; None for sRGB.
        notes: what of the file is not kept, one line each.
    """

    image: Image.Image
    deep: NDArray[np.uint16] | None
    icc: bytes
    colours: Colours | None
    notes: tuple[str, ...]


def open_picture(path: Path, *, mask: bool = False) -> Opened:
    """The picture in a file.

    Args:
        mask: numbers are no colours, and may be floating-point ones.

    Raises:
        ImageError: missing, no regular file, damaged, no picture, camera raw, high dynamic range,
            or above `MAX_PIXELS`. The text does not name the file. What a decoder makes of damage
            may be any other error: see `damage_told`.
    """
    with _regular(path) as file:
        head = file.read(_HEAD)
        file.seek(0)
        try:
            return _read(path, file, head, mask)
        except UnidentifiedImageError as error:
            raise ImageError(_unidentified(path, head)) from error


@contextmanager
def damage_told() -> Generator[None]:
    """Whatever is raised as an `ImageError`.

    A damaged file can raise anything in a decoder, or later in what converts its pixels, and must
    not stop the other photos.
    """
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error)) from error


def _regular(path: Path) -> BinaryIO:
    """A file, open for reading: never a pipe or a device, which may never end, or begin."""
    # Without blocking, since opening a pipe waits for whoever writes into it.
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError("it is a folder")
        if not stat.S_ISREG(mode):
            raise ImageError("it is no regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _read(path: Path, file: BinaryIO, head: bytes, mask: bool) -> Opened:
    if is_camera_raw(file):
        raise ImageError(CAMERA_RAW)
    file.seek(0)
    png = clean_png(file.read()) if head.startswith(b"\x89PNG") else None
    source = io.BytesIO(png.data) if png else file
    image: Image.Image = Image.open(source)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(too_large(f"{image.width}x{image.height}"))
    if image.format == "TIFF" and path.suffix.lower() in _RAW_SUFFIXES:
        raise ImageError(CAMERA_RAW)
    notes: tuple[str, ...] = ()
    if png and png.damaged:
        notes += ("something beside its pixels is damaged and left out",)
    notes += _frame_note(source)
    colours = None if mask else _colours(image, png, head)
    image, more = _loaded(image, source)
    icc: bytes = (png.icc if png else None) or image.info.get("icc_profile") or b""
    deep = None if mask and image.mode == "F" else _deep(image, source, mask)
    return Opened(image, deep, icc, colours, notes + more)


def _loaded(image: Image.Image, source: BinaryIO) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture decoded, and a note where that needed help."""
    # Decoding forgets it.
    image.info["animebg_raw_mode"] = _raw_mode(getattr(image, "tile", []))
    try:
        image.load()
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        source.seek(0)
        mended = mended_jpeg(source.read())
        if mended is None:
            raise
        return mended, ("its end mark is missing, its pixels are whole",)
    return image, ()


def _colours(image: Image.Image, png: Png | None, head: bytes) -> Colours | None:
    if png:
        return png_colours(png.chunks, profile=bool(png.icc))
    if image.format == "AVIF" and not image.info.get("icc_profile"):
        return nclx_colours(head)
    return None


def _frame_note(source: BinaryIO) -> tuple[str, ...]:
    """Counts the pictures in a file, with an image of its own: a damaged one stays half-moved."""
    source.seek(0)
    image = Image.open(source)
    try:
        frames: int = getattr(image, "n_frames", 1)
    except Exception:  # noqa: BLE001 - as in `damage_told`
        return ("of the pictures in it only the first can be read",)
    finally:
        source.seek(0)
    # MPO is a JPEG with previews or a second view behind it.
    if frames == 1 or image.format == "MPO":
        return ()
    return (f"holds {frames} pictures, only the first is painted",)


def _deep(image: Image.Image, source: BinaryIO, mask: bool) -> NDArray[np.uint16] | None:
    """All bits of a decoded picture of more than 8 a channel; None of any other."""
    if image.mode == "F":
        raise ImageError(
            "floating-point pixels have no agreed range: save it with 8 or 16 bits first"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _deep_grey(image, mask)
    if image.format == "JPEG2000":
        _check_white(image, source)
    name, _, bits = _stored(image).partition(";")
    if name == "LA" and bits == "16B":
        four = _again(source, lambda _: "RGBA", mode="RGBA").astype(np.uint16)
        return (four[..., ::2] * np.uint16(256) + four[..., 1::2]).astype(np.uint16)
    if order := _order_in_planes(image):
        high = _again(source, lambda band: f"{band};{order}")
        low = _again(source, lambda band: f"{band};{_LOWER[order]}")
    elif name in _DEEP and bits in _LOWER and not _packed_planes(image):
        bands = name.upper()
        high = _again(source, lambda _: f"{bands};{bits}") if name == "RGBa" else np.asarray(image)
        low = _again(source, lambda _: f"{bands};{_LOWER[bits]}")
    else:
        return None
    deep = (high.astype(np.uint16) * np.uint16(256) + low).astype(np.uint16)
    if name == "RGBa":
        return _straight(deep)
    key = image.info.get("transparency")
    if isinstance(key, tuple) and deep.shape[2] == 3:
        deep = _with_key(deep, np.array(cast("tuple[int, ...]", key)))
    return deep


def _order_in_planes(image: Image.Image) -> str:
    """The order of a number's two bytes in a TIFF with one channel after the other; "" of others.

    Pillow forgets there how deep they are, and would take the bytes for pixels.
    """
    tags: Any = getattr(image, "tag_v2", None)
    if _stored(image) not in ("R", "C") or not tags or tags.get(_TAGS["BitsPerSample"])[0] != 16:
        return ""
    if image.mode == "CMYK":
        raise ImageError("CMYK of 16 bits in planes is not read: save it interleaved first")
    return "16L" if tags.prefix == b"II" else "16B"


def _packed_planes(image: Image.Image) -> bool:
    """A TIFF of compressed planes, of which Pillow hands out the higher bytes alone."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(_TAGS["PlanarConfiguration"]) == 2


def _straight(deep: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """RGBA whose colours are not multiplied by their alpha any more."""
    alpha = deep[..., 3:].astype(np.uint64)
    colours = (deep[..., :3] * np.uint64(65_535) + alpha // 2) // np.maximum(alpha, 1)
    return np.concatenate([np.minimum(colours, 65_535).astype(np.uint16), deep[..., 3:]], -1)


def _check_white(image: Image.Image, source: BinaryIO) -> None:
    """Refuse a JPEG 2000 of more than 8 bits in several channels where white may have become black.

    Pillow rounds to 8 bits without an upper end: what should be 256 is 0.
    """
    source.seek(0)
    data = source.read()
    sizes = data.find(b"\xff\x4f\xff\x51")  # the codestream begins with its sizes
    if sizes < 0 or (data[sizes + 42] & 127) < 8:
        return
    if int(np.asarray(image).min()) == 0:
        raise ImageError(
            "JPEG 2000 of more than 8 bits in colour is not read: save it as PNG or TIFF first"
        )


def _deep_grey(image: Image.Image, mask: bool) -> NDArray[np.uint16]:
    values = np.asarray(image).astype(np.int64)
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    if values.min() < 0 or values.max() > 65_535:
        raise ImageError("32-bit pixels have no agreed range: save it with 8 or 16 bits first")
    if _stored(image) == "I;12":
        values = (values * 65_535 + 2047) // 4095
    elif not mask and _stored(image).startswith("I;32") and values.max() <= 255:
        values *= 257  # nobody uses all 32 bits: what it holds tells
    if tags.get(_TAGS["PhotometricInterpretation"]) == _WHITE_IS_ZERO:
        values = 65_535 - values
    deep = values.astype(np.uint16)[..., None]
    key = image.info.get("transparency")
    return _with_key(deep, np.array([key])) if isinstance(key, int) else deep


def _with_key(deep: NDArray[np.uint16], key: NDArray[Any]) -> NDArray[np.uint16]:
    """With an alpha that is 0 where all channels have the key's values, in all their bits."""
    alpha = np.where((deep == key).all(-1, keepdims=True), 0, 65_535).astype(np.uint16)
    return np.concatenate([deep, alpha], -1)


def _raw_mode(tiles: list[Any]) -> str:
    """How the pixels lie in the file, as Pillow calls it."""
    arguments: Any = tiles[0][3] if tiles else ""
    if isinstance(arguments, tuple):
        arguments = cast("tuple[Any, ...]", arguments)[0]
    return arguments if isinstance(arguments, str) else ""


def _stored(image: Image.Image) -> str:
    return image.info.get("animebg_raw_mode", "")


def _again(source: BinaryIO, raw_mode: Callable[[str], str], mode: str = "") -> NDArray[np.uint8]:
    """The picture decoded once more, its bytes read in another way than that given."""
    source.seek(0)
    image: Any = Image.open(source)
    if mode:
        image._mode = mode
    tiles: list[Any] = []
    kept: list[Any] = image.tile
    for tile in kept:
        arguments: Any = tile[3]
        if isinstance(arguments, tuple):
            first, *others = cast("tuple[Any, ...]", arguments)
            arguments = (raw_mode(first), *others)
        else:
            arguments = raw_mode(arguments)
        make: Any = getattr(tile, "_make", tuple)  # a plain tuple in older releases
        tiles.append(make((*tile[:3], arguments)))
    image.tile = tiles
    image.load()
    return np.asarray(image)


def too_large(size: str) -> str:
    """The text about a picture of `size`."""
    limit = MAX_PIXELS // 10**6
    return f"{size} is above {limit} megapixels: not opened, it may be a decompression bomb"


def _unidentified(path: Path, head: bytes) -> str:
    hint = unread_format(head)
    if hint is None and path.suffix.lower() in (".heic", ".heif"):
        hint = "HEIC is not read: convert it to JPEG or PNG first"
    if hint is None and path.suffix.lower() in _RAW_SUFFIXES:
        hint = CAMERA_RAW
    return hint or "not a picture in a format that Pillow reads"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return too_large("its size")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "too little memory to read it"
    return f"damaged, or not readable: {' '.join(str(error).split()) or type(error).__name__}"
