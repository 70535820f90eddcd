"""Photos as files: what is read as it looks, what is refused, and what is made whole again."""

import base64
import errno
import io
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from animebg_core.errors import ImageError
from animebg_core.files import photos
from animebg_core.files.photos import FORMATS, Photo, read_mask, read_photo, write_photo

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (12, 20, 4), np.uint16)


def chunk(kind, body, *, damaged=False):
    check = zlib.crc32(kind + body) ^ damaged
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png(values, kind, *chunks, end=True):
    """A PNG of [H, W, C] uint8 or uint16, with more chunks before its pixels."""
    height, width = values.shape[:2]
    bits = 8 * values.dtype.itemsize
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *chunks]
    parts.append(chunk(b"IDAT", zlib.compress(rows)))
    return b"".join([*parts, chunk(b"IEND", b"")] if end else parts)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    def read(data, name="a.bin", **options):
        path = tmp_path / name
        path.write_bytes(data)
        return read_photo(path, **options)

    return read


@pytest.fixture
def mask(tmp_path):
    def mask(data):
        path = tmp_path / "mask.bin"
        path.write_bytes(data)
        return read_mask(path)

    return mask


# --- Depth ---


@pytest.mark.parametrize(("kind", "count"), [(GREY, 1), (GREY_ALPHA, 2), (RGB, 3), (RGBA, 4)])
def test_sixteen_bits_of_a_png_are_rounded_in_every_layout(read, kind, count):
    values = DEEP[..., :count]
    wanted = np.rint(values / 257).astype(np.uint8)
    if count <= 2:
        wanted = np.concatenate([wanted[..., :1]] * 3 + [wanted[..., 1:]], -1)
    np.testing.assert_array_equal(read(png(values, kind)).pixels, wanted)


def tiff(values, *entries, order="<", photometric=2, tail=b"", planes=False):
    """A TIFF of [H, W, C], uncompressed, in one strip, of any type; `entries` are further tags.

    With `planes` each channel has a strip of its own.
    """
    height, width, count = values.shape
    strips = count if planes else 1
    placed = np.moveaxis(values, -1, 0) if planes else values
    data = placed.astype(values.dtype.newbyteorder(order)).tobytes()
    size = len(data) // strips
    bits = 8 * values.dtype.itemsize
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * count),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [8 + size * strip for strip in range(strips)]),
        (277, 3, [count]),
        (278, 4, [height]),
        (279, 4, [size] * strips),
        (284, 3, [2 if planes else 1]),
        *entries,
    ]
    extra, table = data + b"\0" * (len(data) % 2), b""
    for tag, kind, numbers in sorted(tags):
        packed = struct.pack(f"{order}{len(numbers)}{'HI'[kind == 4]}", *numbers)
        if len(packed) > 4:
            offset = 8 + len(extra)
            extra += packed
            packed = struct.pack(f"{order}I", offset)
        table += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    start = 8 + len(extra)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + extra + struct.pack(f"{order}H", len(tags)) + table + (tail or b"\0" * 4)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_a_tiff_are_rounded(read, order, count, planes):
    values = DEEP[..., :count]
    straight_alpha = [(338, 3, [2])] * (count - 3)
    np.testing.assert_array_equal(
        read(tiff(values, *straight_alpha, order=order, planes=planes)).pixels,
        np.rint(values / 257).astype(np.uint8),
    )


def test_colours_of_sixteen_bits_times_their_alpha_are_divided_in_sixteen(read):
    alpha = np.maximum(DEEP[..., 3:], 2000)
    straight = DEEP[..., :3].astype(float)
    values = np.concatenate([np.rint(straight * alpha / 65535), alpha], -1).astype(np.uint16)
    pixels = read(tiff(values, (338, 3, [1]))).pixels
    np.testing.assert_allclose(pixels[..., :3], straight / 257, rtol=0, atol=0.6)
    np.testing.assert_array_equal(pixels[..., 3:], np.rint(alpha / 257))


def test_planes_of_sixteen_bits_that_pillow_cannot_read_are_refused(read):
    with pytest.raises(ImageError, match="CMYK of 16 bits in planes"):
        read(tiff(DEEP, photometric=5, planes=True))


@pytest.mark.parametrize("most", [255, 65_535])
def test_of_32_bits_what_they_hold_tells_the_range(read, mask, most):
    values = np.arange(240, dtype=np.int32).reshape(12, 20) * (most // 255)
    data = encoded(Image.fromarray(values), "TIFF")
    np.testing.assert_array_equal(read(data).pixels[..., 0], values // (most // 255))
    np.testing.assert_allclose(mask(data), values / most, rtol=1e-6)


# 16 bits, RGB, 4 x 2: a row of white (or of 60300) above one of (40300, 20300, 10300).
_WHITE = (
    b"|4;u>051Rl000040000200000000000000400002000000000000R#J0S^HI4*>!HQUDA90003200aa80smY81VDiQWB"
    b"?@q0Yh?SVRU6=AYyqSPjF>!N>D{dAa-SPb7^mGATlmBE;Rp;015yA0000u00IA#&-^er1M9Dq!+51o001as``5?*3=j+"
    b"%yVRWX)KSm;Fdz#-Z>c%wsHFed"
)
_BRIGHT = (
    b"|4;u>051Rl000040000200000000000000400002000000000000R#J0S^HI4*>!HQUDA90003200aa80smY81VDiQWB"
    b"?@q0Yh?SVRU6=AYyqSPjF>!N>D{dAa-SPb7^mGATlmBE;Rp;015yA0000v00IA#&-^ev1M9Hto-;rV=@$~JATT4x{tOTd"
    b"8N1Y+^VCt#{4gL3L2s!!=cuIr*#"
)


def test_white_of_a_deep_jpeg_2000_never_becomes_black(read):
    with pytest.raises(ImageError, match="JPEG 2000 of more than 8 bits"):
        read(base64.b85decode(_WHITE))
    pixels = read(base64.b85decode(_BRIGHT)).pixels
    np.testing.assert_array_equal(pixels[:, 0], [[236, 236, 236], [157, 79, 40]])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_as_zero_is_no_negative(read, kind):
    values = (DEEP[..., :1] >> (0 if kind == np.uint16 else 8)).astype(kind)
    straight = read(tiff(values, photometric=1)).pixels.astype(int)
    np.testing.assert_array_equal(read(tiff(values, photometric=0)).pixels, 255 - straight)


@pytest.mark.parametrize(("kind", "count"), [(GREY, 1), (RGB, 3)])
def test_a_colour_key_of_sixteen_bits_is_compared_in_sixteen(read, kind, count):
    values = DEEP[..., :count].copy()
    values[0, 0] = 1234
    values[0, 1] = 1235  # the same in 8 bits
    pixels = read(
        png(values, kind, chunk(b"tRNS", struct.pack(f">{count}H", *[1234] * count)))
    ).pixels
    clear = (values == 1234).all(-1)
    assert clear[0, 0]
    assert not clear[0, 1]
    np.testing.assert_array_equal(pixels[..., 3] == 0, clear)


# --- Colours ---


def test_linear_light_is_painted_as_it_looks(read):
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    light = np.full((2, 2, 3), 0.2140411)  # what 127.5 of sRGB is in linear light
    pixels = read(png(np.rint(light * 65535).astype(np.uint16), RGB, gamma)).pixels
    assert set(np.unique(pixels)) <= {127, 128}
    assert read(png(np.full((2, 2, 3), 55, np.uint8), RGB, gamma)).pixels[0, 0, 0] in (127, 128)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"gAMA", struct.pack(">I", 45_455))],  # what files of sRGB say
        [chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"sRGB", b"\0")],  # sRGB goes before
        [chunk(b"cICP", bytes([1, 13, 0, 1])), chunk(b"gAMA", struct.pack(">I", 100_000))],
        [chunk(b"gAMA", struct.pack(">I", 0))],
        [chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))],
    ],
)
def test_what_says_srgb_changes_nothing(read, chunks):
    np.testing.assert_array_equal(read(png(PIXELS, RGB, *chunks)).pixels, PIXELS)


P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize("chunks", [[chunk(b"cHRM", P3)], [chunk(b"cICP", bytes([12, 13, 0, 1]))]])
def test_other_primaries_are_converted(read, chunks):
    # Half a step of rounding, and what four digits of the other matrix leave out.
    values = np.tile(np.array([200, 100, 50], np.uint8), (2, 2, 1))
    found = read(png(values, RGB, *chunks)).pixels[0, 0].astype(int)
    assert np.abs(found - _srgb_of_p3(200, 100, 50)).max() <= 1
    grey = np.full((2, 2, 3), 99, np.uint8)
    np.testing.assert_array_equal(read(png(grey, RGB, *chunks)).pixels, grey)


def _srgb_of_p3(*values):
    matrix = [[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]  # CSS Color 4
    light = np.array([((v / 255 + 0.055) / 1.055) ** 2.4 for v in values])
    light = (np.array(matrix) @ light).clip(0, 1)
    return 255 * (1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused_by_name(read, transfer, name):
    with pytest.raises(ImageError, match=name):
        read(png(PIXELS, RGB, chunk(b"cICP", bytes([9, transfer, 0, 1]))))


def test_alpha_is_no_colour_and_is_not_converted(read):
    values = np.concatenate([PIXELS, PIXELS[..., :1]], -1)
    pixels = read(png(values, RGBA, chunk(b"gAMA", struct.pack(">I", 100_000)))).pixels
    np.testing.assert_array_equal(pixels[..., 3], values[..., 3])


# --- Camera raw, and what else is not read ---


@pytest.mark.parametrize(
    "data",
    [
        tiff(PIXELS, (50706, 4, [0x01040000])),  # DNG
        tiff(PIXELS, (254, 4, [1]), (330, 4, [8])),  # a preview of what is below
        tiff(PIXELS[..., :1], photometric=32803),  # a colour filter array
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(200),  # CR2
        b"FUJIFILMCCD-RAW " + bytes(200),
        b"\0\0\0\x18ftypcrx " + bytes(200),
    ],
)
@pytest.mark.parametrize("name", ["photo.NEF", "photo.tif", "photo.jpg"])
def test_camera_raw_is_refused_whatever_its_name(read, data, name):
    with pytest.raises(ImageError, match="camera raw"):
        read(data, name)


def test_a_preview_whose_photo_lies_in_a_sub_directory_is_camera_raw(read):
    below = struct.pack("<HHHII", 1, 262, 3, 1, 32803) + b"\0" * 4
    data = tiff(PIXELS, (330, 4, [0]))
    at = data.index(struct.pack("<HHI", 330, 4, 1)) + 8
    data = data[:at] + struct.pack("<I", len(data)) + data[at + 4 :] + below
    with pytest.raises(ImageError, match="camera raw"):
        read(data, "a.arw")


def test_an_ordinary_tiff_with_sizes_below_it_is_painted(read):
    assert read(tiff(PIXELS, (330, 4, [8]))).pixels.shape == PIXELS.shape


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC is not read"),
        (b"\0\0\0\x18ftypmif1" + bytes(40), "HEIC is not read"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL is not read"),
        (b"\xff\x0a" + bytes(40), "JPEG XL is not read"),
        (b"text", "not a picture"),
    ],
)
def test_what_is_not_read_is_known_by_its_bytes(read, data, text):
    with pytest.raises(ImageError, match=text):
        read(data, "photo.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("reading", [read_photo, read_mask])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, reading):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="no regular file"):
        reading(tmp_path / "a.png")


# --- Whole pixels beside something that is not ---


def test_a_damaged_or_huge_text_costs_no_pixels(read):
    for extra in (
        chunk(b"tEXt", b"Comment\0hello", damaged=True),
        chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"x" * (2 << 20)),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 << 20))),
        chunk(b"pHYs", b"\0" * 9, damaged=True),
        chunk(b"iCCP", b"x\0\0no profile"),
    ):
        np.testing.assert_array_equal(read(png(PIXELS, RGB, extra)).pixels, PIXELS)


def test_a_profile_above_pillows_limit_is_kept(read):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile += bytes(3 << 20)
    body = b"large\0\0" + zlib.compress(profile)
    photo = read(png(PIXELS, RGB, chunk(b"iCCP", body)))
    assert photo.icc == profile


@pytest.mark.parametrize("cut", [0, 4, 12, 20])
def test_a_png_without_its_end_is_painted_and_one_without_pixels_is_not(read, cut):
    data = png(PIXELS, RGB, end=False) + b"\0\0\0\0IEND"[: cut and 6]
    np.testing.assert_array_equal(read(data).pixels, PIXELS)
    with pytest.raises(ImageError):
        read(png(PIXELS, RGB)[: -40 - cut])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_mark_is_painted(read, options, missing):
    image = Image.fromarray(np.kron(PIXELS, np.ones((4, 4, 1), np.uint8)))
    data = encoded(image, "JPEG", quality=90, **options)
    photo = read(data[:-missing])
    np.testing.assert_array_equal(photo.pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert "end mark" in photo.notes[0]


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_that_lacks_pixels_is_refused_wherever_it_is_cut(read, options):
    data = encoded(Image.fromarray(PIXELS).resize((96, 64)), "JPEG", **options)
    for cut in range(len(data) // 3, len(data) - 8, 7):
        with pytest.raises(ImageError):
            read(data[:cut])


@pytest.mark.parametrize("pointer", [7, 1 << 30])
def test_a_bad_pointer_to_a_next_page_costs_only_that_page(read, pointer):
    photo = read(tiff(PIXELS, tail=struct.pack("<I", pointer)))
    np.testing.assert_array_equal(photo.pixels, PIXELS)


def test_pages_cut_behind_the_first_are_said(read):
    pages = [Image.fromarray(PIXELS)] * 3
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    photo = read(data[: len(data) // 2])
    np.testing.assert_array_equal(photo.pixels, PIXELS)
    assert "first" in photo.notes[0]


# --- What stays with a photo ---


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_preview_in_the_cameras_own_block_does_not_stay(tmp_path, read, suffix):
    preview = encoded(Image.fromarray(PIXELS), "JPEG")
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.MakerNote: b"Nikon\0" + preview,
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.IFD.Interop: {1: "R98"},
    }
    source = encoded(Image.fromarray(PIXELS), "JPEG", exif=exif.tobytes())
    target = tmp_path / f"out.{suffix}"
    write_photo(read(source), target, quality=95)
    assert b"Nikon" not in target.read_bytes()
    with Image.open(target) as after:
        kept = after.getexif()
        inner = kept.get_ifd(ExifTags.IFD.Exif)
        assert kept[ExifTags.Base.Artist] == "somebody"
        assert inner[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
        assert ExifTags.Base.MakerNote not in inner
        # Either there is none, or it leads to the block.
        pointer = ExifTags.IFD.Interop in inner
        assert not pointer or kept.get_ifd(ExifTags.IFD.Interop)[1] == "R98"
        assert pointer == (suffix != "tif")


@pytest.mark.parametrize("place", ["jpg", "png", "webp"])
def test_a_tag_of_another_type_than_usual_costs_only_the_exif(read, place):
    # The description is no text but a fraction; the picture lies on its side.
    description = struct.pack(">HHII", 0x10E, 5, 1, 38)
    lying = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)
    exif = (
        struct.pack(">2sHIH", b"MM", 42, 8, 2) + description + lying + struct.pack(">3I", 0, 1, 3)
    )
    if place == "png":
        data = png(PIXELS, RGB, chunk(b"eXIf", exif))
    else:
        kind, options = {"jpg": ("JPEG", {}), "webp": ("WEBP", {"lossless": True})}[place]
        data = encoded(Image.fromarray(PIXELS), kind, exif=b"Exif\0\0" + exif, **options)
    photo = read(data)
    assert photo.pixels.shape == (20, 12, 3)
    assert photo.exif == b""
    assert "EXIF" in photo.notes[0]


@pytest.mark.parametrize("error", [AttributeError("encode"), MemoryError(), ValueError("mode")])
def test_whatever_a_conversion_raises_is_one_photos_error(read, mask, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(photos, "_to_rgb", fail)
    monkeypatch.setattr(photos, "_mask_values", fail)
    for reader in (read, mask):
        with pytest.raises(ImageError):
            reader(png(PIXELS, RGB))


# --- Masks ---


def grey(values):
    return encoded(Image.fromarray(np.asarray(values, np.uint8)), "PNG")


def test_the_alpha_of_a_mask_is_the_mask(mask):
    white = np.full((4, 6, 4), 255, np.uint8)
    white[:2, :, 3] = 0
    found = mask(encoded(Image.fromarray(white), "PNG"))
    np.testing.assert_array_equal(found, white[..., 3] / np.float32(255))
    black = white.copy()
    black[..., :3] = 0
    np.testing.assert_array_equal(mask(encoded(Image.fromarray(black), "PNG")), found)
    np.testing.assert_array_equal(mask(png(black.astype(np.uint16) * 257, RGBA)), found)
    opaque = black.copy()
    opaque[..., 3] = 255  # says nothing: its colours are the mask
    assert not mask(encoded(Image.fromarray(opaque), "PNG")).any()


@pytest.mark.parametrize("most", [1, 2, 15])
def test_of_a_label_mask_every_value_but_0_paints(mask, most):
    labels = np.array([[0, 1], [most, most]])
    for data in (
        grey(labels),
        encoded(Image.fromarray(labels.astype(np.uint16)), "TIFF"),
        encoded(Image.fromarray(labels.astype(np.int32)), "TIFF"),
    ):
        np.testing.assert_array_equal(mask(data), labels > 0)


def test_other_masks_are_divided_by_what_their_type_needs(mask):
    values = np.array([[0, 16], [128, 255]])
    np.testing.assert_allclose(mask(grey(values)), values / 255, rtol=1e-6)
    deep = values.astype(np.uint16) * 257
    np.testing.assert_allclose(mask(encoded(Image.fromarray(deep), "PNG")), values / 255, rtol=1e-6)
    for wide, most in ((values, 255), (values * 257, 65535)):
        data = encoded(Image.fromarray(wide.astype(np.int32)), "TIFF")
        np.testing.assert_allclose(mask(data), wide / most, rtol=1e-6)
    with pytest.raises(ImageError, match="32-bit"):
        mask(encoded(Image.fromarray(np.array([[0, 70_000]], np.int32)), "TIFF"))
    unit = np.array([[0, 0.25], [1, 0.5]], np.float32)
    np.testing.assert_array_equal(mask(encoded(Image.fromarray(unit), "TIFF")), unit)
    with pytest.raises(ImageError, match="from 0 to 1"):
        mask(encoded(Image.fromarray(unit * 3), "TIFF"))


# --- A finished file is whole ---


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on the size of files")
@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_a_write_that_comes_short_leaves_no_file_whatever_its_size(tmp_path, suffix):
    values = np.random.default_rng(2).integers(0, 256, (120, 160, 3), np.uint8)
    photo, target = Photo(values), tmp_path / f"photo{suffix}"
    write_photo(photo, target, quality=95)
    whole = target.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # All sizes near the ends, where a buffer is flushed at last, and some between.
    limits = {*range(0, len(whole), 4093), *range(len(whole) - 40, len(whole)), 1, 2, 3}
    cut = tmp_path / f"cut{suffix}"
    try:
        for limit in sorted(limits):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError, match="File too large"):
                write_photo(photo, cut, quality=95)
            assert [path.name for path in tmp_path.iterdir()] == [target.name]
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole), before[1]))
        write_photo(photo, cut, quality=95)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cut.read_bytes() == whole


@pytest.mark.parametrize("number", ["EINVAL", "ENOTSUP", "ENOSYS"])
def test_a_file_system_that_cannot_flush_is_no_failure(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        raise OSError(getattr(errno, number), number)

    monkeypatch.setattr(os, "fsync", refuse)
    write_photo(Photo(PIXELS), tmp_path / "a.png", quality=95)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png").pixels, PIXELS)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system as Linux does")
@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_on_a_full_disk_nothing_has_the_final_name(tmp_path, suffix):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(size, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system")
    try:
        values = np.random.default_rng(2).integers(0, 256, (120, 160, 3), np.uint8)
        with pytest.raises(OSError, match="No space left"):
            write_photo(Photo(values), disk / f"photo{suffix}", quality=95)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
