"""Photo files to upright 8-bit RGB or RGBA pixels and back; EXIF and ICC profile are kept."""

from __future__ import annotations

import io
import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import ImageError
from .whole import whole_file

MAX_PIXELS = 1_000_000_000  # a larger picture is refused as a decompression bomb

# TIFF tags that say how one file stores its pixels (sizes, strips, tiles, compression, colours,
# embedded blocks), wrong in any other. Orientation, 274, is one because the pixels are upright.
_STORAGE_TAGS = frozenset(
    {
        *range(254, 260),
        *range(262, 267),
        273,
        274,
        *range(277, 282),
        *range(288, 294),
        284,
        297,
        301,
    }
    | {
        *range(317, 331),
        332,
        334,
        336,
        *range(338, 348),
        *range(512, 530),
        530,
        532,
        700,
        33723,
        34377,
        34675,
    }
)
_EXIF_STORAGE_TAGS = frozenset({0xA002, 0xA003})  # width and height, once more
_MAX_JPEG_EXIF = 65_533  # one JPEG segment less its length field


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
    ".avif",
    ".gif",
    ".heic",
    ".heif",
    ".jp2",
    ".pgm",
    ".ppm",
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


def read_photo(path: Path, *, longest: int | None = None) -> Photo:
    """The photo at `path`: first frame, EXIF orientation applied, 8 bits a channel, RGB or RGBA.

    16-bit values are rounded to 8. Palette, grey and 1-bit become RGB. CMYK and grey with a profile
    of their own are converted to sRGB through it, and it is dropped; an RGB profile is kept.

    Args:
        longest: shrink (LANCZOS) to so many pixels on the longer side; never enlarges.

    Raises:
        ImageError: missing, damaged, no picture, of no known range, or above `MAX_PIXELS`. The text
            does not name the file.
    """
    with _opened(path) as image:
        notes = _frame_note(image)
        exif, note = _turn_upright(image)
        image, icc = _to_rgb(image)
        scale = longest / max(image.size) if longest else 1.0
        if scale < 1:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS)
        return Photo(np.array(image), exif, icc, notes + note)


def read_mask(path: Path) -> NDArray[np.float32]:
    """The picture at `path` as a mask [H, W] in [0, 1], white 1, EXIF orientation applied.

    Raises:
        ImageError: as `read_photo`.
    """
    with _opened(path) as image:
        _turn_upright(image)
        grey = _eight_bit(image).convert("L")
        return np.divide(np.asarray(grey), np.float32(255), dtype=np.float32)


def fitted(photo: Photo, target: Path) -> Photo:
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
    if photo.exif:
        options["exif"] = photo.exif
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
            image.save(file, form.name, **options)
        except OSError:
            raise
        except Exception as error:  # Pillow's encoders raise many kinds
            raise ImageError(f"{form.name}: {error}") from error


@contextmanager
def _opened(path: Path) -> Generator[Image.Image]:
    """The picture at `path`, not yet decoded; what goes wrong with it becomes an `ImageError`."""
    try:
        image: Image.Image = Image.open(path)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(_too_large(f"{image.width}x{image.height}"))
            yield image
    except ImageError:
        raise
    except Exception as error:
        # A damaged file can raise anything in a decoder, and must not stop the other photos.
        raise ImageError(_reason(path, error)) from error


def _too_large(size: str) -> str:
    limit = MAX_PIXELS // 10**6
    return f"{size} is above {limit} megapixels: not opened, it may be a decompression bomb"


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("its size")
    if isinstance(error, UnidentifiedImageError):
        if path.suffix.lower() in (".heic", ".heif"):
            return "HEIC is not read: convert it to JPEG or PNG first"
        return "not a picture in a format that Pillow reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "too little memory to read it"
    return f"damaged, or not readable: {error or type(error).__name__}"


def _frame_note(image: Image.Image) -> tuple[str, ...]:
    frames: int = getattr(image, "n_frames", 1)
    # MPO is a JPEG with previews or a second view behind it.
    if frames == 1 or image.format == "MPO":
        return ()
    return (f"holds {frames} pictures, only the first is painted",)


def _turn_upright(image: Image.Image) -> tuple[bytes, tuple[str, ...]]:
    """Decode `image` and turn it upright; the EXIF to keep, and a note if it is damaged."""
    image.load()
    unreadable = ("its EXIF cannot be read and is left out",)
    try:
        exif = image.getexif()
        if image.info.get("exif") and not exif:
            return b"", unreadable
        ImageOps.exif_transpose(image, in_place=True)
        for tag in _STORAGE_TAGS.intersection(exif):
            del exif[tag]
        if ExifTags.IFD.Exif in exif:
            inner = exif.get_ifd(ExifTags.IFD.Exif)
            for tag in _EXIF_STORAGE_TAGS.intersection(inner):
                del inner[tag]
        # Written anew by Pillow, without the thumbnail, which would still show the photo.
        return (exif.tobytes() if exif else b""), ()
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, struct.error):
        return b"", unreadable


def _eight_bit(image: Image.Image) -> Image.Image:
    """A picture of more than 8 bits a channel as mode L; any other as it is."""
    if image.mode == "F":
        raise ImageError(
            "floating-point pixels have no agreed range: save it with 8 or 16 bits first"
        )
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ImageError("32-bit pixels have no agreed range: save it with 8 or 16 bits first")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _to_rgb(image: Image.Image) -> tuple[Image.Image, bytes]:
    """`image` as RGB or, with transparency, RGBA, and the RGB profile it is in or nothing."""
    icc: bytes = image.info.get("icc_profile") or b""
    space = icc[16:20]  # of the pixels that the profile is for
    clear = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    image = _eight_bit(image)
    if space in (b"GRAY", b"CMYK"):
        return _to_srgb(image, icc, clear), b""
    kept = icc if space == b"RGB " and image.mode != "CMYK" else b""
    return image.convert("RGBA" if clear else "RGB"), kept


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
