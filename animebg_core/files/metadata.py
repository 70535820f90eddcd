"""What of a photo's EXIF goes with its painting: all but how one file stored its pixels."""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image, TiffTags

_TIFF = {info.name: number for number, info in TiffTags.TAGS_V2.items()}
_EXIF = ExifTags.Base

# How one file stores its pixels (sizes, strips, tiles, compression, colours, embedded blocks) is
# wrong in any other. Orientation is here because the pixels are upright.
_STORAGE_NAMES = (
    "NewSubfileType SubfileType ImageWidth ImageLength BitsPerSample Compression"
    " PhotometricInterpretation Threshholding CellWidth CellLength FillOrder StripOffsets"
    " Orientation SamplesPerPixel RowsPerStrip StripByteCounts MinSampleValue MaxSampleValue"
    " PlanarConfiguration FreeOffsets FreeByteCounts GrayResponseUnit GrayResponseCurve T4Options"
    " T6Options PageNumber TransferFunction Predictor WhitePoint PrimaryChromaticities ColorMap"
    " HalftoneHints TileWidth TileLength TileOffsets TileByteCounts InkSet InkNames NumberOfInks"
    " DotRange ExtraSamples SampleFormat SMinSampleValue SMaxSampleValue TransferRange JPEGProc"
    " JPEGInterchangeFormat JPEGInterchangeFormatLength JPEGRestartInterval JPEGLosslessPredictors"
    " JPEGPointTransforms JPEGQTables JPEGDCTables JPEGACTables YCbCrCoefficients YCbCrSubSampling"
    " ReferenceBlackWhite XMP"
)
_OTHER_STORAGE = {
    326,  # BadFaxLines and the two behind it, of TIFF class F
    327,
    328,
    330,  # SubIFDs: other sizes of the picture
    343,  # ClipPath, XClipPathUnits, YClipPathUnits, Indexed
    344,
    345,
    346,
    347,  # JPEGTables
    0x501B,  # ThumbnailData
    33723,  # IPTC
    34377,  # Photoshop's image resources, a thumbnail among them
    34675,  # ICC profile, kept beside EXIF
    37724,  # Photoshop's layers
}
_STORAGE_TAGS = {_TIFF[name] for name in _STORAGE_NAMES.split() if name in _TIFF} | _OTHER_STORAGE
# Width and height once more; and the camera maker's own block: it often holds a preview, which
# would still show the photo, and its offsets are of the file that it was in.
_INNER_TAGS = {int(_EXIF.ExifImageWidth), int(_EXIF.ExifImageHeight), int(_EXIF.MakerNote)}
_JPEG_MARK = b"\xff\xd8\xff"

# What upright is from each value of the tag Orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_and_exif(image: Image.Image) -> tuple[int, bytes, tuple[str, ...]]:
    """How a decoded image is turned, its EXIF to keep, and a note if that is damaged."""
    unreadable = ("its EXIF cannot be read and is left out",)
    turned = 1
    try:
        exif = image.getexif()
        if image.info.get("exif") and not exif:
            return 1, b"", unreadable
        turned = exif.get(int(_EXIF.Orientation), 1)
        _strip(exif, _STORAGE_TAGS)
        if ExifTags.IFD.Exif in exif:
            _strip(exif.get_ifd(ExifTags.IFD.Exif), _INNER_TAGS)
        # Written anew by Pillow, without the thumbnail, which would still show the photo.
        return turned, (exif.tobytes() if exif else b""), ()
    # What Pillow raises for a tag of another type than it expects depends on the two types.
    except Exception:  # noqa: BLE001
        return turned, b"", unreadable


def _strip(tags: Any, unwanted: set[int]) -> None:
    """Take out the tags in `unwanted`, and what holds a picture."""
    for tag, value in list(tags.items()):
        if tag in unwanted or (isinstance(value, bytes) and _JPEG_MARK in value):
            del tags[tag]


def for_tiff(exif: bytes) -> bytes:
    """EXIF without its pointer to the interoperability block, which Pillow does not move along."""
    block = Image.Exif()
    block.load(exif)
    inner = block.get_ifd(ExifTags.IFD.Exif)
    if ExifTags.IFD.Interop not in inner:
        return exif
    del inner[ExifTags.IFD.Interop]
    return block.tobytes()
