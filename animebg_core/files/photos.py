"""Photo files to upright 8-bit RGB or RGBA pixels and back; EXIF and ICC profile are kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ..errors import ImageError
from .addresses import Location
from .colours import srgb_of
from .metadata import TURNS, for_tiff, orientation_and_exif
from .opening import Opened, damage_told, open_picture
from .whole import whole_file

_MAX_JPEG_EXIF = 65_533  # one JPEG segment less its length field
_MOST_LABEL = 15
_BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's mode L


@dataclass(frozen=True, slots=True)
class Format:
    """A file format that photos are written in.

    Attributes:
        name: Pillow's name of it.
        max_side: the most pixels a side that it can hold.
        alpha: it can hold transparency.
        metadata: it can hold EXIF and an ICC profile.
    """

    name: str
    max_side: int = 2**31 - 1
    alpha: bool = True
    metadata: bool = True


_JPEG = Format("JPEG", max_side=65_500, alpha=False)
_TIFF = Format("TIFF")

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        ".jpg": _JPEG,
        ".jpeg": _JPEG,
        ".jpe": _JPEG,
        ".jfif": _JPEG,
        ".png": Format("PNG"),
        ".webp": Format("WEBP", max_side=16_383),
        ".tif": _TIFF,
        ".tiff": _TIFF,
        ".bmp": Format("BMP", alpha=False, metadata=False),
    }
)

# What counts as a photo when a folder is walked. Some are here that a Pillow may be unable to read:
# such a file is to be reported, not passed over.
PHOTO_SUFFIXES = frozenset(FORMATS) | {
    ".apng",
    ".avif",
    ".dib",
    ".gif",
    ".heic",
    ".heif",
    ".ico",
    ".j2c",
    ".j2k",
    ".jp2",
    ".jpc",
    ".jpf",
    ".jpx",
    ".jxl",
    ".mpo",
    ".pbm",
    ".pcx",
    ".pgm",
    ".pnm",
    ".ppm",
    ".qoi",
    ".tga",
}


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo in memory.

    Attributes:
        pixels: [H, W, 3 or 4] uint8, RGB or RGB and straight alpha, upright.
        exif: an EXIF block without orientation, thumbnail and storage tags; empty if there is none.
        icc: the RGB profile that the pixels are in; empty means sRGB, or that the file did not say.
        notes: what of the file is not kept, one line each.
    """

    pixels: NDArray[np.uint8]
    exif: bytes = b""
    icc: bytes = b""
    notes: tuple[str, ...] = ()


@damage_told()
def read_photo(path: Path, *, longest: int | None = None) -> Photo:
    """The photo at `path`: first frame, EXIF orientation applied, 8 bits a channel, RGB or RGBA.

    16-bit values are rounded to 8. Palette, grey and 1-bit become RGB. CMYK and grey with a profile
    of their own are converted to sRGB through it, and it is dropped; an RGB profile is kept. Other
    statements about colours (gAMA, cHRM, cICP) are carried out: the pixels become sRGB.

    Args:
        longest: shrink (LANCZOS) to so many pixels on the longer side; never enlarges.

    Raises:
        ImageError: missing, damaged, no picture, of no known range, camera raw, high dynamic range,
            or above `MAX_PIXELS`. The text does not name the file.
    """
    opened = open_picture(path)
    turned, exif, note = orientation_and_exif(opened.image)
    image, icc = _to_rgb(opened)
    if turned in TURNS:
        image = image.transpose(TURNS[turned])
    scale = longest / max(image.size) if longest else 1.0
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return Photo(np.array(image), exif, icc, opened.notes + note)


@damage_told()
def read_mask(path: Path) -> NDArray[np.float32]:
    """The picture at `path` as a mask [H, W] in [0, 1], 1 where to paint, EXIF orientation applied.

    Where it has transparency, its alpha is the mask; else its brightness. If no value is above 15
    it is a label mask: 0 keeps, and every other value paints. Else values are divided by 255 or
    65535, whichever their type needs (of 32-bit files the largest value).

    Raises:
        ImageError: as `read_photo`.
    """
    opened = open_picture(path, mask=True)
    turned, _, _ = orientation_and_exif(opened.image)
    values = _mask_values(opened)
    turned_image = Image.fromarray(values)
    if turned in TURNS:
        turned_image = turned_image.transpose(TURNS[turned])
    return np.array(turned_image)


def fitted(photo: Photo, target: Location) -> Photo:
    """`photo` as the format of `target`'s name can hold it; known before it is painted.

    Raises:
        ImageError: too many pixels a side, or transparency in a format without.
    """
    form = FORMATS[target.suffix.lower()]
    pixels, exif, icc, notes = photo.pixels, photo.exif, photo.icc, photo.notes
    height, width, channels = pixels.shape
    if max(height, width) > form.max_side:
        raise ImageError(
            f"{width}x{height}, but {form.name} holds {form.max_side} pixels a side:"
            " write .png, or use --longest"
        )
    if channels == 4 and not form.alpha:
        if int(pixels[..., 3].min()) < 255:
            raise ImageError(
                f"it has transparency, which {form.name} cannot keep: write .png or .webp"
            )
        pixels = np.ascontiguousarray(pixels[..., :3])
    if not form.metadata:
        exif, icc = b"", b""
    elif form.name == "JPEG" and len(exif) > _MAX_JPEG_EXIF:
        exif, notes = b"", (*notes, "its EXIF is too large for JPEG and left out")
    return Photo(pixels, exif, icc, notes)


def write_photo(photo: Photo, target: Path, *, quality: int) -> None:
    """Write a `fitted` photo in the format of `target`'s name, whole or not at all.

    Folders on the way are made.

    Args:
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        OSError: the file cannot be written.
        ImageError: the photo cannot be encoded.
    """
    form = FORMATS[target.suffix.lower()]
    options: dict[str, Any] = {}
    if photo.icc:
        options["icc_profile"] = photo.icc
    if form.name in ("JPEG", "WEBP"):
        options["quality"] = quality
    if form.name == "JPEG":
        options["subsampling"] = 0  # painted edges are as sharp in colour as in light
    target.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(photo.pixels)
    with whole_file(target) as file:
        try:
            if photo.exif:
                options["exif"] = for_tiff(photo.exif) if form.name == "TIFF" else photo.exif
            image.save(file, form.name, **options)
        except OSError:
            raise
        except Exception as error:  # Pillow's encoders raise many kinds
            raise ImageError(f"{form.name}: {error}") from error


def _mask_values(opened: Opened) -> NDArray[np.float32]:
    """A mask [H, W] in [0, 1], not turned; see `read_mask`."""
    image, deep = opened.image, opened.deep
    if image.mode == "F":
        numbers = np.asarray(image)
        if not (numbers.min() >= 0 and numbers.max() <= 1):  # NaN neither
            raise ImageError("a floating-point mask has values from 0 to 1")
        return numbers.astype(np.float32)
    if deep is not None:
        channels = deep.shape[2]
        if channels in (2, 4) and deep[..., -1].min() < 65_535:
            values = deep[..., -1]
        elif channels >= 3:
            values = np.rint(deep[..., :3] @ _BRIGHTNESS).astype(np.uint16)
        else:
            values = deep[..., 0]
        # Of 32 bits nobody uses all: what it holds tells.
        small = image.mode == "I" and values.max() <= 255
        return _mask_of(values, 255 if small else 65_535)
    if _has_alpha(image):
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() < 255:
            return _mask_of(alpha, 255)
    return _mask_of(np.asarray(image.convert("RGB").convert("L")), 255)


def _mask_of(values: NDArray[Any], most: int) -> NDArray[np.float32]:
    if values.max() <= _MOST_LABEL:
        return (values > 0).astype(np.float32)
    return np.divide(values, np.float32(most), dtype=np.float32)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _to_rgb(opened: Opened) -> tuple[Image.Image, bytes]:
    """A picture as RGB or, with transparency, RGBA, and the RGB profile it is in or nothing."""
    image, icc = opened.image, opened.icc
    space = icc[16:20]  # of the pixels that the profile is for
    if opened.deep is not None and space != b"GRAY":
        return _deep_to_rgb(opened), (icc if space == b"RGB " else b"")
    clear = _has_alpha(image)
    if opened.deep is not None:
        grey = _eight_bits(opened.deep)
        image = Image.fromarray(grey[..., 0] if grey.shape[2] == 1 else grey)
        clear = grey.shape[2] == 2
    if space in (b"GRAY", b"CMYK"):
        return _to_srgb(image, icc, clear), b""
    kept = icc if space == b"RGB " and image.mode != "CMYK" else b""
    alpha = _key_alpha(image)
    image = image.convert("RGB" if alpha is not None or not clear else "RGBA")
    if alpha is not None:
        image.putalpha(alpha)
    if opened.colours:
        image = Image.fromarray(srgb_of(np.asarray(image), opened.colours))
    return image, kept


def _deep_to_rgb(opened: Opened) -> Image.Image:
    """16 bits a channel converted in 16 bits, and then rounded to 8."""
    assert opened.deep is not None
    deep = opened.deep
    if deep.shape[2] <= 2:
        deep = np.concatenate([deep[..., :1]] * 3 + [deep[..., 1:]], -1)
    if opened.colours:
        deep = srgb_of(deep, opened.colours)
    return Image.fromarray(_eight_bits(deep))


def _eight_bits(deep: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _key_alpha(image: Image.Image) -> Image.Image | None:
    """The alpha of a grey picture of fewer than 8 bits, whose clear value is one of those bits."""
    key = image.info.get("transparency")
    steps = {"1": 255, "L;2": 85, "L;4": 17}.get(image.info.get("animebg_raw_mode", ""))
    if not isinstance(key, int) or steps is None or image.mode not in ("1", "L"):
        return None
    values = np.asarray(image.convert("L"))
    return Image.fromarray(np.where(values == key * steps, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, icc: bytes, clear: bool) -> Image.Image:
    """A grey or CMYK picture through its profile to sRGB; without, where the two do not fit."""
    rgba = image.convert("RGBA")
    if image.mode == "LA":
        image = image.getchannel("L")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        srgb = cast(Any, ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType]
        painted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, OSError):
        painted = None
    if painted is None:
        painted = rgba.convert("RGB")
    if clear:
        painted.putalpha(rgba.getchannel("A"))
    return painted
