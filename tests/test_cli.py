"""The command line: what it makes of photos and folders, what it refuses, what it never loses."""

import io
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from safetensors.torch import load_file

import animebg_core
from animebg_core import painter
from animebg_core.cli import download, jobs, main, options, terminal
from animebg_core.cli.stylize import Report
from animebg_core.files import opening, photos

ORIENTATION = 274
ARTIST = 315


def picture(width=24, height=16, mode="RGB", seed=0):
    """A picture with some structure: a random 4 x 4 pattern enlarged."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, bands), np.uint8)
    small = Image.fromarray(cells[..., 0] if bands == 1 else cells, mode)
    return small.resize((width, height), Image.Resampling.BICUBIC)


def saved(path, image=None, **options):
    """`path`, written with a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def files(folder):
    """Every file in `folder`, relative, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def stylize(checkpoint):
    """`animebg stylize ARGS` with the small network; returns the exit status."""

    def run(*args):
        try:
            return main(["stylize", *map(str, args), "--style", str(checkpoint), "--device", "cpu"])
        except SystemExit as stop:
            return stop.code

    return run


@pytest.fixture
def fails(stylize, capsys):
    """The one line on standard error with which `animebg stylize ARGS` ends in `status`."""

    def run(status, *args):
        assert stylize(*args) == status
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("animebg: ")
        return lines[0]

    return run


# --- The photo that comes out ---


def test_a_photo_is_what_stylize_makes_of_it(stylize, checkpoint, tmp_path, capsys):
    source = saved(tmp_path / "in.png", picture(37, 21))
    assert stylize(source, "-o", tmp_path / "out.png") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.png'}\n"
    image = torch.tensor(pixels(source), dtype=torch.float32)[None] / 255
    wanted = animebg_core.stylize(image, animebg_core.load_generator(checkpoint))[0]
    # Half a step of rounding; strips of another height may turn one that lies on the edge.
    assert np.abs(pixels(tmp_path / "out.png") - wanted.numpy() * 255).max() <= 0.51


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.tif", "a.TIFF", "a.bmp"])
def test_the_format_follows_the_input(stylize, tmp_path, name):
    source = saved(tmp_path / name)
    assert stylize(source, "-o", tmp_path / "out") == 0
    with Image.open(source) as before, Image.open(tmp_path / "out" / name) as after:
        assert (after.format, after.size, after.mode) == (before.format, before.size, "RGB")


@pytest.mark.parametrize(
    ("name", "kind"), [("o.jpg", "JPEG"), ("o.webp", "WEBP"), ("o.tif", "TIFF")]
)
def test_the_format_follows_the_output(stylize, tmp_path, name, kind):
    assert stylize(saved(tmp_path / "a.png"), "-o", tmp_path / name) == 0
    with Image.open(tmp_path / name) as after:
        assert after.format == kind


@pytest.mark.parametrize(("name", "made"), [("a.gif", "a.png"), ("a.ppm", "a.png")])
def test_formats_that_are_not_written_become_png(stylize, tmp_path, name, made):
    assert stylize(saved(tmp_path / name), "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == [made]


def test_a_photo_without_a_suffix_becomes_png(stylize, tmp_path):
    saved(tmp_path / "photo.v2", format="JPEG")
    assert stylize(tmp_path / "photo.v2", "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["photo.v2.png"]


def test_quality_is_that_of_the_file(stylize, tmp_path):
    source = saved(tmp_path / "a.png", picture(64, 64))
    for quality in (30, 95):
        assert stylize(source, "-o", tmp_path / f"{quality}.jpg", "--quality", quality) == 0
    assert (tmp_path / "30.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied_once_and_the_rest_of_exif_stays(stylize, tmp_path, suffix):
    image = picture(24, 16)
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST] = 6, "somebody"  # 6: turn a quarter to the right
    exif[ExifTags.IFD.Exif] = {0x9003: "2024:05:06 07:08:09", 0xA002: 24}
    source = saved(tmp_path / f"turned.{suffix}", image, exif=exif.tobytes())
    assert stylize(source, "-o", tmp_path / "out", "--strength", 0) == 0
    with Image.open(tmp_path / "out" / source.name) as after:
        assert after.size == (16, 24)
        after.load()
        kept = after.getexif()
        assert kept.get(ORIENTATION, 1) == 1
        assert kept[ARTIST] == "somebody"
        assert kept.get_ifd(ExifTags.IFD.Exif)[0x9003] == "2024:05:06 07:08:09"
        upright = image.transpose(Image.Transpose.ROTATE_270)
        difference = np.abs(np.asarray(after).astype(int) - np.asarray(upright)).mean()
        # JPEG and WebP lose a little, twice; turned wrongly it is above 50.
        assert difference <= (0 if suffix in ("png", "tif") else 15)


def test_a_thumbnail_of_the_photo_does_not_stay_in_the_exif(stylize, tmp_path):
    exif = Image.Exif()
    exif[ARTIST] = "somebody"
    block = exif.tobytes()
    # A second directory (the thumbnail's) is linked behind the first: its offset is the last field.
    thumbnail = b"\x00\x01" + b"\x01\x00\x00\x03\x00\x00\x00\x01\x00\x63\x00\x00" + bytes(4)
    tiff = block[6:]
    end = 8 + 2 + 12  # header, count, one entry
    linked = tiff[:end] + len(tiff).to_bytes(4, "big") + tiff[end + 4 :] + thumbnail
    source = saved(tmp_path / "a.jpg", exif=b"Exif\0\0" + linked)
    with Image.open(source) as before:
        assert before.getexif().get_ifd(ExifTags.IFD.IFD1)
    assert stylize(source, "-o", tmp_path / "o.jpg") == 0
    with Image.open(tmp_path / "o.jpg") as after:
        assert after.getexif()[ARTIST] == "somebody"
        assert not after.getexif().get_ifd(ExifTags.IFD.IFD1)


def test_a_tiffs_storage_does_not_travel_as_exif(stylize, tmp_path):
    source = saved(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={ARTIST: "somebody"})
    assert stylize(source, "-o", tmp_path / "o.jpg") == 0
    with Image.open(tmp_path / "o.jpg") as after:
        assert set(after.getexif()) == {ARTIST}


def test_damaged_exif_costs_only_the_exif(stylize, tmp_path, capsys):
    source = saved(tmp_path / "a.jpg", exif=b"Exif\0\0" + b"no TIFF at all")
    assert stylize(source, "-o", tmp_path / "o.jpg") == 0
    assert "a.jpg: its EXIF cannot be read and is left out" in capsys.readouterr().err
    with Image.open(tmp_path / "o.jpg") as after:
        assert not after.getexif()


def profile(space):
    """An ICC profile of sRGB, or a stub that claims another colour space."""
    block = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return block[:16] + space + block[20:]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_rgb_profile_is_kept(stylize, tmp_path, suffix):
    icc = profile(b"RGB ")
    source = saved(tmp_path / f"a.{suffix}", icc_profile=icc)
    assert stylize(source, "-o", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / source.name) as after:
        assert after.info["icc_profile"] == icc


@pytest.mark.parametrize(("mode", "space"), [("L", b"GRAY"), ("CMYK", b"CMYK")])
def test_a_profile_that_is_not_rgb_does_not_stay_with_rgb_pixels(stylize, tmp_path, mode, space):
    source = saved(tmp_path / "a.jpg", picture(mode=mode), icc_profile=profile(space))
    assert stylize(source, "-o", tmp_path / "o.jpg", "--strength", 0) == 0
    with Image.open(source) as before, Image.open(tmp_path / "o.jpg") as after:
        assert "icc_profile" not in after.info
        assert np.abs(np.asarray(after).astype(int) - np.asarray(before.convert("RGB"))).max() <= 40


@pytest.mark.parametrize(
    "layout", ["RGBA.png", "LA.png", "P.png", "RGBA.webp", "RGBA.tif", "LA.tif"]
)
def test_alpha_is_kept_exactly(stylize, tmp_path, layout):
    mode, suffix = layout.split(".")
    image = picture(mode="RGBA")
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    source = saved(
        tmp_path / f"a.{suffix}", image, **{"lossless": True} if suffix == "webp" else {}
    )
    with Image.open(source) as before:
        wanted = np.asarray(before.convert("RGBA"))[..., 3]
    assert len(np.unique(wanted)) > 2
    assert stylize(source, "-o", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / source.name) as after:
        assert after.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(after)[..., 3], wanted)


def test_transparency_that_the_format_cannot_keep_is_refused(fails, stylize, tmp_path):
    source = saved(tmp_path / "a.png", picture(mode="RGBA"))
    assert "transparency" in fails(1, source, "-o", tmp_path / "o.jpg")
    assert not (tmp_path / "o.jpg").exists()
    opaque = picture(mode="RGBA")
    opaque.putalpha(255)
    assert stylize(saved(tmp_path / "b.png", opaque), "-o", tmp_path / "o.jpg") == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_colour_layouts_are_painted_as_rgb(stylize, tmp_path, mode):
    suffix = "png" if mode in "1LP" else "tif"
    source = saved(tmp_path / f"a.{suffix}", picture().convert(mode))
    assert stylize(source, "-o", tmp_path / "o.png", "--strength", 0) == 0
    with Image.open(source) as before, Image.open(tmp_path / "o.png") as after:
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_rounded_to_eight(stylize, tmp_path, suffix):
    values = np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 170
    source = saved(tmp_path / f"a.{suffix}", Image.fromarray(values))
    assert stylize(source, "-o", tmp_path / "o.png", "--strength", 0) == 0
    wanted = np.rint(values / 257).astype(int)
    np.testing.assert_array_equal(pixels(tmp_path / "o.png"), np.stack([wanted] * 3, -1))


def test_of_an_animation_the_first_picture_is_painted_and_that_is_said(stylize, tmp_path, capsys):
    first, second = picture(seed=1), picture(seed=2)
    source = saved(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    assert stylize(source, "-o", tmp_path / "o.png", "--strength", 0) == 0
    assert "a.gif: holds 2 pictures, only the first is painted" in capsys.readouterr().err
    with Image.open(source) as before:
        np.testing.assert_array_equal(pixels(tmp_path / "o.png"), np.asarray(before.convert("RGB")))


def test_longest_shrinks_and_never_enlarges(stylize, tmp_path):
    source = saved(tmp_path / "a.png", picture(60, 31, "RGBA"))
    for longest, size in ((20, (20, 10)), (60, (60, 31)), (200, (60, 31))):
        args = ["--longest", longest, "--strength", 0, "--overwrite"]
        assert stylize(source, "-o", tmp_path / "o.png", *args) == 0
        with Image.open(tmp_path / "o.png") as after, Image.open(source) as before:
            wanted = before.resize(size, Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(np.asarray(after), np.asarray(wanted))


def test_where_the_mask_is_black_the_photo_stays(stylize, tmp_path):
    source = saved(tmp_path / "a.png", picture(40, 20))
    mask = Image.new("L", (40, 20))
    mask.paste(255, (20, 0, 40, 20))
    saved(tmp_path / "mask.png", mask)
    assert stylize(source, "-o", tmp_path / "o.png", "--mask", tmp_path / "mask.png") == 0
    before, after = pixels(source), pixels(tmp_path / "o.png")
    np.testing.assert_array_equal(after[:, :20], before[:, :20])
    assert np.abs(after[:, 20:] - before[:, 20:]).max() > 10


def test_one_pixel_is_a_photo_too(stylize, tmp_path):
    assert stylize(saved(tmp_path / "a.png", picture(1, 1)), "-o", tmp_path / "o.png") == 0
    assert pixels(tmp_path / "o.png").shape == (1, 1, 3)


# --- Files and folders ---


def test_a_folder_keeps_its_structure(stylize, tmp_path, capsys):
    photos_dir = tmp_path / "photos"
    names = ["a.jpg", "a.png", "sub/b.webp", "sub/deep/caf\u00e9 \u5c71.jpg"]
    for name in names:
        saved(photos_dir / name)
    for name in (".hidden.jpg", ".git/x.jpg", "notes.txt", ".animebg-1-ab.part"):
        (photos_dir / name).parent.mkdir(exist_ok=True)
        (photos_dir / name).write_bytes(b"no photo")
    assert stylize(photos_dir, "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == sorted(names)
    printed = capsys.readouterr()
    assert sorted(printed.out.splitlines()) == sorted(str(tmp_path / "out" / n) for n in names)
    *lines, last = printed.err.splitlines()
    assert len(lines) == len(names)  # a line for each: no bar without a terminal
    assert last == "animebg: passed over: 3 hidden; 1 not named as pictures (.txt)"


def test_an_output_folder_inside_the_input_folder_is_not_painted_again(stylize, tmp_path):
    saved(tmp_path / "a.jpg")
    for _ in range(2):
        assert stylize(tmp_path, "-o", tmp_path / "out", "--overwrite") == 0
    assert files(tmp_path) == ["a.jpg", "out/a.jpg"]


def test_what_is_finished_is_skipped_unless_overwrite(stylize, tmp_path, capsys):
    source, target = saved(tmp_path / "in" / "a.png"), tmp_path / "out" / "a.png"
    assert stylize(source.parent, "-o", tmp_path / "out") == 0
    target.write_bytes(b"mine")
    saved(tmp_path / "in" / "b.png")
    capsys.readouterr()
    assert stylize(source.parent, "-o", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "1 finished before" in printed.err
    assert printed.out.splitlines() == [str(tmp_path / "out" / "b.png")]
    assert target.read_bytes() == b"mine"
    assert stylize(source.parent, "-o", tmp_path / "out", "--overwrite") == 0
    assert pixels(target).shape == (16, 24, 3)


def test_when_all_is_finished_no_network_is_asked_for(tmp_path):
    source, target = saved(tmp_path / "a.png"), saved(tmp_path / "o.png")
    args = ["stylize", str(source), "-o", str(target), "--weights-dir", str(tmp_path / "none")]
    assert main(args) == 0


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "folder"])
def test_an_input_is_never_overwritten(fails, tmp_path, link):
    source, output = saved(tmp_path / "in" / "a.png"), tmp_path / "o.png"
    content = source.read_bytes()
    if link == "same":
        output = source
    elif link == "symlink":
        output.symlink_to(source)
    elif link == "hardlink":
        os.link(source, output)
    else:
        output = tmp_path / "in"
    for extra in ([], ["--overwrite"]):
        assert "is an input, never overwritten" in fails(2, source, "-o", output, *extra)
    assert source.read_bytes() == content
    assert files(tmp_path / "in") == ["a.png"]


def test_another_photos_input_and_the_mask_are_inputs_too(fails, tmp_path):
    saved(tmp_path / "in" / "sub" / "a.png")
    other = saved(tmp_path / "out" / "sub" / "a.png")
    told = fails(2, tmp_path / "in", other, "-o", tmp_path / "out", "--overwrite")
    assert f"{other} is an input" in told
    mask = saved(tmp_path / "mask.png")
    assert "is an input" in fails(2, other, "-o", mask, "--mask", mask, "--overwrite")


def test_two_photos_for_one_output_are_refused_before_any_work(fails, tmp_path):
    one, two = saved(tmp_path / "one" / "a.jpg"), saved(tmp_path / "two" / "a.jpg")
    assert f"{one} and {two} would both become" in fails(2, one, two, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_photos_of_one_name_and_several_formats_get_different_names(stylize, tmp_path):
    for name in ("p.gif", "p.png", "q.gif", "q.ppm", "r.gif"):
        saved(tmp_path / "mix" / name)
    for _ in range(2):  # the second run finds all of them finished
        assert stylize(tmp_path / "mix", "-o", tmp_path / "out") == 0
        made = ["p.gif.png", "p.png", "q.gif.png", "q.ppm.png", "r.png"]
        assert files(tmp_path / "out") == made


def test_a_photo_named_twice_is_painted_once(stylize, tmp_path, capsys):
    source = saved(tmp_path / "in" / "a.png")
    assert stylize(source, source.parent, source, "-o", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / "a.png")]


@pytest.mark.parametrize(
    ("inputs", "output", "text"),
    [
        (["a.png", "b.png"], "o.png", "is one file, for one photo"),
        (["."], "o.png", "is one file, for one photo"),
        (["a.png"], "o.gif", "written are .jpg"),
        (["empty"], "out", "no photos or clips in"),
    ],
)
def test_inputs_and_output_that_do_not_fit(fails, tmp_path, monkeypatch, inputs, output, text):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "a.png")
    saved(tmp_path / "b.png")
    (tmp_path / "empty").mkdir()
    assert text in fails(2, *inputs, "-o", output)
    assert files(tmp_path) == ["a.png", "b.png"]


def test_an_output_folder_that_cannot_be_written_is_told_before_any_work(
    fails, tmp_path, monkeypatch
):
    source = saved(tmp_path / "a.png")
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be made" in fails(1, source, "-o", tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the suite may run as root
    assert "no permission" in fails(1, source, "-o", tmp_path / "out")


# --- Bad photos among good ones ---


def bomb(path):
    """A PNG that claims 40,000 x 40,000 pixels."""
    saved(path, picture(8, 8))
    content = bytearray(path.read_bytes())
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def test_bad_photos_are_reported_and_the_others_go_on(stylize, tmp_path, capsys):
    folder = tmp_path / "in"
    saved(folder / "a.jpg")
    saved(folder / "z.png")
    cut = saved(folder / "cut.jpg", picture(200, 200)).read_bytes()
    (folder / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not a photo")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    saved(folder / "float.tif", Image.fromarray(np.ones((4, 4), np.float32)))
    bomb(folder / "bomb.png")
    assert stylize(folder, tmp_path / "gone.jpg", "-o", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert files(tmp_path / "out") == ["a.jpg", "z.png"]
    assert len(printed.out.splitlines()) == 2
    lines = printed.err.splitlines()
    for name, reason in {
        "cut.jpg": "truncated",
        "empty.png": "not a picture",
        "text.jpg": "not a picture",
        "phone.heic": "HEIC is not read",
        "float.tif": "floating-point pixels",
        "bomb.png": "decompression bomb",
        "gone.jpg": "No such file",
    }.items():
        told = [line for line in lines if f"{name}:" in line]
        assert len(told) == 1, (name, lines)
        assert reason in told[0]
    assert "2 painted, 7 failed" in lines[-1]


def test_a_photo_above_pillows_default_limit_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MAX_PIXELS", 24 * 16)
    assert photos.read_photo(saved(tmp_path / "a.png", picture(24, 16))).pixels.shape == (16, 24, 3)
    with pytest.raises(animebg_core.ImageError, match="25x16 is above"):
        photos.read_photo(saved(tmp_path / "b.png", picture(25, 16)))


def test_a_photo_too_large_for_its_format_is_refused_before_it_is_painted(fails, tmp_path):
    source = saved(tmp_path / "wide.png", Image.new("RGB", (16_384, 1)))
    assert "WEBP holds 16383 pixels a side" in fails(1, source, "-o", tmp_path / "o.webp")


def test_a_memory_limit_that_nothing_fits_is_one_line(fails, tmp_path):
    source = saved(tmp_path / "a.png", picture(200, 200))
    told = fails(1, source, "-o", tmp_path / "o.png", "--memory-limit", "10kB")
    assert "a.png: " in told
    assert "need at least" in told


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
        MemoryError(),
    ],
)
def test_a_device_that_runs_out_of_memory_is_asked_for_less(
    stylize, tmp_path, monkeypatch, capsys, error
):
    source = saved(tmp_path / "a.png", picture(64, 64))
    assert stylize(source, "-o", tmp_path / "wanted.png") == 0
    paint, tried = painter.stylize, []

    def small_device(image, generator, *, plan, **options):
        tried.append(plan.peak_bytes)
        if len(tried) < 4:
            raise error
        return paint(image, generator, plan=plan, **options)

    monkeypatch.setattr(painter, "stylize", small_device)
    assert stylize(source, "-o", tmp_path / "o.png") == 0
    assert len(tried) == 4
    assert sorted(tried, reverse=True) == tried
    # Another way to cut it is the same picture, up to a step where rounding tips.
    assert np.abs(pixels(tmp_path / "o.png") - pixels(tmp_path / "wanted.png")).max() <= 1

    def no_device(image, generator, *, plan, **options):
        raise error

    monkeypatch.setattr(painter, "stylize", no_device)
    assert stylize(source, "-o", tmp_path / "never.png") == 1
    assert "need at least" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_nothing_half_written(stylize, tmp_path, monkeypatch, capsys):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    source = saved(tmp_path / "a.png")
    monkeypatch.setattr(os, "fsync", full)
    assert stylize(source, "-o", tmp_path / "out" / "a.png") == 1
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert files(tmp_path / "out") == []


def test_an_encoder_that_fails_keeps_the_finished_file_before_it(stylize, tmp_path, monkeypatch):
    source, target = saved(tmp_path / "a.png"), tmp_path / "out" / "a.png"
    assert stylize(source, "-o", target) == 0
    content = target.read_bytes()

    def broken(self, file, *args, **options):
        file.write(b"half")
        raise ValueError("encoder")

    monkeypatch.setattr(Image.Image, "save", broken)
    assert stylize(source, "-o", target, "--overwrite") == 1
    assert target.read_bytes() == content
    assert files(tmp_path / "out") == ["a.png"]


# --- Wrong commands ---


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--strength", "1.5"], "0 to 1"),
        (["--strength", "nan"], "0 to 1"),
        (["--strength", "much"], "0 to 1"),
        (["--longest", "0"], "whole number"),
        (["--longest", "10.5"], "whole number"),
        (["--quality", "101"], "1 to 100"),
        (["--memory-limit", "lots"], "2GB"),
        (["--memory-limit", "0"], "more than 0"),
        (["--device", "tpu"], "invalid choice"),
        (["--precision", "int8"], "invalid choice"),
        (["--long", "10"], "unrecognized"),
        (["--mask", "nowhere.png"], "nowhere.png"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(fails, tmp_path, args, text):
    assert text in fails(2, saved(tmp_path / "a.png"), "-o", tmp_path / "o.png", *args)
    assert not (tmp_path / "o.png").exists()


def test_a_device_that_is_not_there_is_refused(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = saved(tmp_path / "a.png")
    # The last --device counts; the fixture's would come later.
    with pytest.raises(animebg_core.OptionError, match="--device cuda"):
        options._device("cuda")
    assert options._device("auto").type in ("cpu", "mps")
    assert source.exists()


def test_auto_precision_is_half_only_on_cuda():
    assert options._dtype("auto", torch.device("cuda")) == torch.float16
    assert options._dtype("auto", torch.device("cpu")) == torch.float32
    assert options._dtype("bf16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("512mb", 512 * 10**6), ("1000000", 10**6)],
)
def test_memory_sizes(text, size):
    assert options.byte_count(text) == size


def test_an_unknown_style_is_one_line_and_status_2(tmp_path, capsys):
    source = saved(tmp_path / "a.png")
    status = main(["stylize", str(source), "-o", str(tmp_path / "o.png"), "--style", "monet"])
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "monet" in line
    assert "shinkai, hosoda, miyazaki, kon" in line


def test_missing_weights_are_one_line_and_status_1(tmp_path, capsys):
    args = ["stylize", str(saved(tmp_path / "a.png")), "-o", str(tmp_path / "o.png")]
    assert main([*args, "--weights-dir", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("animebg: error: ")
    assert str(tmp_path) in line


@pytest.mark.parametrize(
    "args", [[], ["paint"], ["stylize"], ["stylize", "a.png"], ["convert", "a"]]
)
def test_an_incomplete_command_is_one_line_and_status_2(args, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(args)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("animebg: error: ")


def test_verbose_says_what_is_chosen(stylize, tmp_path, capsys):
    assert stylize(saved(tmp_path / "a.png"), "-o", tmp_path / "o.png", "--verbose") == 0
    told = capsys.readouterr().err
    assert "24x16" in told
    assert "level" in told


# --- The other commands ---


def test_styles_lists_each_style_and_where_it_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "kon_satoshi.pth").write_bytes(b"")
    monkeypatch.setenv("ANIMEBG_WEIGHTS_DIR", str(tmp_path))
    assert main(["styles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == list(animebg_core.STYLES)
    assert str(tmp_path / "kon_satoshi.pth") in lines[4]


def test_download_fetches_all_four_or_the_named_ones(tmp_path, monkeypatch, capsys):
    asked = []

    def resolve(key, *, progress):
        asked.append(key)
        if key == "kon":
            raise animebg_core.WeightsError("no network")
        progress(10, 10)
        return tmp_path / f"{key}.pth"

    monkeypatch.setattr(download, "resolve_weights", resolve)
    assert main(["download", "hosoda"]) == 0
    assert main(["download"]) == 1
    assert asked == ["hosoda", *animebg_core.STYLES]
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert "kon: no network" in printed.err
    assert main(["download", "monet"]) == 2


def test_convert_writes_safetensors_once(checkpoint, tmp_path, capsys):
    state = load_file(checkpoint)
    torch.save(state, tmp_path / "a.pth")
    args = ["convert", str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors")]
    assert main(args) == 0
    made = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(made[name], state[name]) for name in state)
    assert main(args) == 2
    assert "exists" in capsys.readouterr().err


# --- As processes ---


def process(*args, code="", **options):
    """`animebg ARGS` as a process of its own; `code` runs first."""
    program = f"import sys\nfrom animebg_core import cli\n{code}\nsys.exit(cli.main(sys.argv[1:]))"
    root = str(Path(animebg_core.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="surrogateescape",
        **options,
    )


COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = sys.argv[1:3]
del sys.argv[1:3]
from animebg_command import main
status = main()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
sys.exit(status)
"""


def command(*args, first):
    """The command's own door, with modules of a folder before all others."""
    root = Path(animebg_core.__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(first), str(root), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_has_a_door_of_its_own(tmp_path):
    run = command("--version", first=tmp_path)
    printed, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert printed.startswith(f"animebg {animebg_core.__version__}")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_interrupted_while_libraries_load_it_ends_at_once_and_without_a_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    run = command("--version", first=tmp_path)
    assert run.stdout.readline() == "here\n"
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=10) == ("", "")
    assert run.returncode == -signal.SIGINT


# Painting takes a moment, and so does writing: half of the file is there when the signal comes.
SLOW = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import os
import time
from animebg_core import painter
paint = painter.stylize
def slowly(*args, **options):
    time.sleep(0.2)
    return paint(*args, **options)
painter.stylize = slowly
fsync = os.fsync
def slow_sync(descriptor):
    time.sleep(0.2)
    fsync(descriptor)
os.fsync = slow_sync
"""


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_stopped_at_any_moment_finished_files_are_whole_and_a_second_run_goes_on(
    checkpoint, stylize, tmp_path, number, status
):
    for index in range(12):
        saved(tmp_path / "in" / f"{index:02}.png", picture(seed=index))
    out = tmp_path / "out"
    args = ["stylize", tmp_path / "in", "-o", out, "--style", checkpoint, "--device", "cpu"]
    run = process(*args, code=SLOW)
    run.stdout.readline()  # the first is finished; the second is being written, the third painted
    run.stdout.readline()
    time.sleep(0.05)
    run.send_signal(getattr(signal, number))
    _, errors = run.communicate(timeout=30)
    assert run.returncode == status, errors
    left = files(out)
    finished = [name for name in left if name.endswith(".png")]
    assert 2 <= len(finished) < 12
    for name in finished:
        assert pixels(out / name).shape == (16, 24, 3)
    if number == "SIGKILL":
        # What is left then does not look like a photo and is passed over.
        assert all(name.startswith(".animebg-") for name in set(left) - set(finished))
    else:
        assert left == finished
        assert "Traceback" not in errors
    assert stylize(tmp_path / "in", "-o", out) == 0
    assert len([name for name in files(out) if name.endswith(".png")]) == 12


def test_nobody_reading_the_results_does_not_stop_the_work(checkpoint, tmp_path):
    for index in range(3):
        saved(tmp_path / "in" / f"{index}.png")
    args = ["stylize", tmp_path / "in", "-o", tmp_path / "out", "--style", checkpoint]
    run = process(*args)
    run.stdout.close()
    assert run.wait(timeout=60) == 0, run.stderr.read()
    assert len(files(tmp_path / "out")) == 3
    assert "Error" not in run.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no text")
def test_names_that_are_no_valid_text(checkpoint, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    saved(tmp_path / name)
    run = process("stylize", tmp_path / name, "-o", tmp_path / "out", "--style", checkpoint)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert files(tmp_path / "out") == [name]


def test_python_m_runs_the_same_command():
    root = Path(animebg_core.__file__).parent.parent
    command = [sys.executable, "-m", "animebg_core", "--version"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"animebg {animebg_core.__version__}, ")
    assert done.stdout.endswith(" kernels\n") or "native kernels (" in done.stdout


def test_a_photo_is_painted_where_only_the_required_packages_are(tmp_path, checkpoint):
    """And what is for films, clusters and export alone is not even looked for."""
    saved(tmp_path / "a.png")
    code = """if True:
        import sys

        class OnlyRequired:
            extras = "av", "cv2", "ray", "pyarrow", "onnx", "onnxruntime", "animebg_kernels"

            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in self.extras:
                    looked_for.append(name)
                    raise ModuleNotFoundError(name)

        looked_for = []
        sys.meta_path.insert(0, OnlyRequired())
        from animebg_core.cli import main

        assert main(sys.argv[1:]) == 0
        assert set(looked_for) <= {"animebg_kernels"}, looked_for
    """
    args = ["stylize", tmp_path / "a.png", "-o", tmp_path / "o.png", "--style", checkpoint]
    root = Path(animebg_core.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code, *map(str, args)], cwd=root, check=True)
    assert (tmp_path / "o.png").is_file()


def test_the_bar_shows_photos_share_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    report = Report()
    report.total = 4
    clock = iter((100.0, 130.0))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    job = jobs.Job(Path("a/photo.jpg"), Path("b/photo.jpg"))
    report.progress(1, job, 0, 2)
    report.progress(1, job, 1, 2)
    shown = screen.getvalue().split("\r")[-1]
    # An eighth took 30 seconds, five eighths are left.
    assert "[#######             ] 1/4 photos, 50% of photo.jpg, 0:02:30 left" in shown
