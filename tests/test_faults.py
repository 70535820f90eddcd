"""The command among what goes wrong on strangers' machines: it says so, and loses nothing."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import animebg_core
from animebg_core.cli import jobs, main, stylize, terminal
from animebg_core.files.whole import whole_file
from animebg_core.painter import Painter

ROOT = Path(animebg_core.__file__).parent.parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs what Linux has")


def saved(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def run(checkpoint):
    """`animebg stylize ARGS` with the small network; returns the exit status."""

    def run(*args):
        return main(["stylize", *map(str, args), "--style", str(checkpoint), "--device", "cpu"])

    return run


def process(*args, **options):
    # Children inherit what is ignored, and in the background of a script that is SIGINT.
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from animebg_core.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, text=True, **options
    )


# --- Folders ---


def test_linked_folders_are_walked_once_and_never_in_a_circle(run, tmp_path, capsys):
    photos = tmp_path / "photos"
    saved(photos / "real" / "a.png")
    saved(tmp_path / "elsewhere" / "b.png", seed=1)
    saved(tmp_path / "c.png", seed=2)
    (photos / "a_link").symlink_to(photos / "real")
    (photos / "other").symlink_to(tmp_path / "elsewhere")
    (photos / "real" / "up").symlink_to(photos)
    (photos / "real" / "above").symlink_to(tmp_path)
    assert run(photos, "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["other/b.png", "real/a.png"]
    assert "3 folders linked to more than once" in capsys.readouterr().err


def test_what_is_passed_over_is_counted_with_its_reasons(run, tmp_path, capsys):
    photos = tmp_path / "photos"
    saved(photos / "a.png")
    for name in ("b.txt", "c.NEF", "d", ".e.png"):
        (photos / name).write_bytes(b"")
    if hasattr(os, "mkfifo"):
        os.mkfifo(photos / "pipe.png")
    assert run(photos, "-o", tmp_path / "out") == 0
    told = capsys.readouterr().err.splitlines()[-1]
    assert "3 not named as pictures (.nef, .txt, no suffix)" in told
    assert "1 hidden" in told
    assert not hasattr(os, "mkfifo") or "1 no regular files" in told


@pytest.mark.parametrize("suffix", ["mpo", "apng", "j2k", "jpx", "pnm", "qoi", "ico"])
def test_formats_that_pillow_reads_are_found_in_folders(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"")
    passed = {}
    found = jobs.plan_jobs([str(tmp_path)], str(tmp_path / "out"), None, None, passed)
    assert [job.source for job in found] == [path]
    assert not passed


# --- Paths ---


def test_a_path_that_is_too_long_fails_alone(run, tmp_path, capsys):
    long = "x" * 251 + ".gif"  # with .png behind it, too long for a name
    saved(tmp_path / "in" / long)
    saved(tmp_path / "in" / ("x" * 251 + ".bmp"))
    saved(tmp_path / "in" / ("x" * 251 + ".tga"))
    saved(tmp_path / "in" / "a.png")
    assert run(tmp_path / "in", tmp_path / ("y" * 300 + ".png"), "-o", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert str(tmp_path / "out" / "a.png") in printed.out
    assert printed.err.count("File name too long") == 3


def test_a_folder_that_cannot_be_searched_fails_alone(run, tmp_path, monkeypatch, capsys):
    saved(tmp_path / "in" / "sub" / "a.png")
    saved(tmp_path / "in" / "b.png")
    closed = tmp_path / "out" / "sub"
    closed.mkdir(parents=True)
    look = os.lstat

    def refusing(path, **options):  # the suite may run as root, to whom nothing is closed
        if Path(path).parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "lstat", refusing)
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(tmp_path / "out" / "b.png")]
    assert f"{closed / 'a.png'} cannot be written: Permission denied" in printed.err


def test_where_no_files_can_be_made_is_told_before_painting(run, tmp_path, monkeypatch, capsys):
    saved(tmp_path / "in" / "sub" / "a.png")
    (tmp_path / "out" / "sub").mkdir(parents=True)
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).name != "sub" and allowed(path, mode)
    )
    monkeypatch.setattr(stylize, "load_network", lambda args: pytest.fail("too late"))
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 1
    assert "no permission in" in capsys.readouterr().err


# --- What is written to, and read from ---


@LINUX
def test_a_full_standard_output_is_told_once_and_all_photos_are_painted(checkpoint, tmp_path):
    for index in range(3):
        saved(tmp_path / "in" / f"{index}.png", seed=index)
    with open("/dev/full", "w") as full:
        args = ["stylize", tmp_path / "in", "-o", tmp_path / "out", "--style", checkpoint]
        child = process(*args, stdout=full, stderr=subprocess.PIPE)
        errors = child.communicate(timeout=60)[1]
    assert child.returncode == 1
    assert files(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    lines = errors.splitlines()
    assert sum("standard output cannot be written" in line for line in lines) == 1
    assert sum("of 3: " in line for line in lines) == 3
    assert len(lines) == 4, errors


@LINUX
@pytest.mark.parametrize("option", [[], ["--mask", "pipe.png"]])
def test_a_pipe_named_like_a_photo_is_one_line(run, tmp_path, capsys, option, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    saved(tmp_path / "a.png")
    assert run("pipe.png" if not option else "a.png", "-o", "o.png", *option) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no regular file" in line


@LINUX
def test_ctrl_c_answers_within_a_second_while_a_read_hangs(checkpoint, tmp_path):
    saved(tmp_path / "a.png")
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from animebg_core.cli import main, photos\n"
        "def hang(*args, **options):\n"
        "    print('hangs', flush=True)\n"
        "    time.sleep(60)\n"
        "photos.read_photo = hang\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    args = ["stylize", tmp_path / "a.png", "-o", tmp_path / "o.png", "--style", checkpoint]
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child.stdout.readline()
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=30)[1]
    # A second, and a little for a busy machine to end a process that has torch loaded.
    assert time.monotonic() - began < 3
    assert child.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors


def test_an_error_of_torch_is_one_line_and_the_others_go_on(run, tmp_path, monkeypatch, capsys):
    saved(tmp_path / "in" / "a.png")
    saved(tmp_path / "in" / "b.png")
    paint = Painter.paint
    tried = []

    def failing(self, *args, **options):
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("could not create a primitive\nat line 1")
        return paint(self, *args, **options)

    monkeypatch.setattr(Painter, "paint", failing)
    assert run(tmp_path / "in", "-o", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "a.png: could not create a primitive\n" in printed.err
    assert files(tmp_path / "out") == ["b.png"]


@LINUX
@pytest.mark.parametrize("command", ["--version", "styles"])
def test_no_output_ends_in_a_traceback(command):
    for where, status in ((">/dev/full", 1), (">&-", 0)):
        line = f"{sys.executable} -m animebg_core {command} {where}"
        ended = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == status
        assert len(ended.stderr.splitlines()) == status, ended.stderr


@pytest.mark.parametrize("name", ["summer%20day.png", "50%d.png", "frame-%05d.png"])
def test_a_photo_whose_name_looks_like_a_pattern_is_a_photo(run, tmp_path, capsys, name):
    photo, out = saved(tmp_path / "in" / name), tmp_path / "out"
    assert run(tmp_path / "in", "-o", out) == 0
    assert files(out) == [name]
    assert run(photo, "-o", out) == 0
    assert "1 finished before" in capsys.readouterr().err


def test_the_spaces_of_the_web_number_no_pictures(run, tmp_path):
    photo = saved(tmp_path / "a.png")
    assert run(photo, "-o", tmp_path / "summer%20day.png") == 0
    assert (tmp_path / "summer%20day.png").is_file()


@pytest.mark.parametrize("empty", [("", "-o", "out"), ("a.png", "-o", "")])
def test_an_empty_path_is_not_the_current_folder(run, tmp_path, monkeypatch, capsys, empty):
    monkeypatch.chdir(tmp_path)
    saved(Path("a.png"))
    assert run(*empty) == 2
    assert "a path is empty" in capsys.readouterr().err
    assert files(tmp_path) == ["a.png"]


def test_a_mask_that_paints_nothing_is_told(run, tmp_path, capsys):
    photo, mask = saved(tmp_path / "a.png"), tmp_path / "mask.png"
    for value, told in ((0, True), (255, False)):
        Image.new("L", (24, 16), value).save(mask)
        assert run(photo, "-o", tmp_path / "o.png", "--mask", mask, "--overwrite") == 0
        assert ("nothing is painted" in capsys.readouterr().err) == told


# --- What failed ---


@pytest.mark.parametrize("name", ["bad.png", "new\nline.png", '"quoted".png'])
def test_what_failed_is_listed_and_tried_again_alone(run, tmp_path, capsys, name):
    photos, out, listed = tmp_path / "in", tmp_path / "out", tmp_path / "failed.txt"
    saved(photos / "sub" / "good.png")
    (photos / "sub" / name).write_bytes(b"no picture")
    assert run(photos, "-o", out, "--failures", listed) == 1
    assert f"1 painted, 1 failed, listed in {listed}" in capsys.readouterr().err
    assert len(listed.read_bytes().splitlines()) == 1
    saved(photos / "sub" / name, seed=1)
    retry = [photos, "-o", out, "--retry", listed, "--failures", listed, "--overwrite"]
    assert run(*retry) == 0
    assert capsys.readouterr().out == f"{out / 'sub' / name}\n"
    assert listed.read_bytes() == b""
    assert run(*retry) == 0
    assert capsys.readouterr().out == ""


@LINUX
@pytest.mark.parametrize(
    "place", ["photo.jpg", "photo", "mask", "out.png", "net.bin", "fifo", "in"]
)
def test_a_list_of_failures_is_written_over_nothing_else(run, tmp_path, capsys, place):
    photos = tmp_path / "in"
    saved(photos / "a.png")
    for name in ("photo.jpg", "photo", "mask"):
        saved(tmp_path / "other.png").rename(tmp_path / name)
    (tmp_path / "net.bin").write_bytes(b"PK\3\4\0\0")
    os.mkfifo(tmp_path / "fifo")
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    args = [photos, "-o", tmp_path / "out", "--failures", tmp_path / place]
    assert run(*args) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "--failures" in told[0]
    assert not (tmp_path / "out").exists()
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_a_list_of_failures_makes_its_folder_or_is_told_before_painting(run, tmp_path, capsys):
    saved(tmp_path / "in" / "a.png")
    (tmp_path / "file").write_bytes(b"")
    args = [tmp_path / "in", "-o", tmp_path / "out", "--failures"]
    assert run(*args, tmp_path / "file" / "list.txt") == 1
    assert "cannot be made" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(*args, tmp_path / "lists" / "list.txt") == 0
    assert (tmp_path / "lists" / "list.txt").read_bytes() == b""


@LINUX
def test_a_pipe_is_never_replaced_by_a_file(run, tmp_path, capsys):
    source, pipe = saved(tmp_path / "a.png"), tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert run(source, "-o", pipe, "--overwrite") == 2
    assert "no regular file" in capsys.readouterr().err
    with pytest.raises(OSError, match="no regular file"), whole_file(pipe) as file:
        file.write(b"1")
    assert pipe.is_fifo()
    assert files(tmp_path) == ["a.png"]


# --- The bar ---


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return 2


NAMES = [
    "photo.jpg",
    "\u5c71\u306e\u5199\u771f" * 10 + ".jpg",
    "\U0001f3d4\ufe0f\U0001f469\u200d\U0001f3a8" * 20 + ".png",
    "cafe\u0301" * 20 + ".png",
    "two\nlines\x1b[2J\r\u202e.png",
    os.fsdecode(b"caf\xe9.png"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", [1, 20, 80, 200])
def test_the_bar_stays_on_its_line_whatever_a_photo_is_called(monkeypatch, name, columns):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((columns, 24)))
    bar = terminal.Bar()
    bar.show(0.5, f"1/2 photos, 50% of {name}")
    shown = screen.getvalue()
    assert shown.startswith("\r")
    assert terminal.columns_of(shown[1:]) <= max(0, columns - 1)
    assert shown[1:].isprintable() or set("\u200d") & set(shown)
    assert "\x1b" not in shown


def test_the_bar_asks_the_terminal_that_it_is_on(monkeypatch):
    asked = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(
        os, "get_terminal_size", lambda fd=1: asked.append(fd) or os.terminal_size((33, 24))
    )
    assert terminal._columns() == 33
    assert asked == [2]


def test_no_name_steers_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    terminal.say("a\x1b]0;title\x07b\x9b2J: no picture")
    assert "\x1b" not in screen.getvalue()
    assert "\x9b" not in screen.getvalue()
    monkeypatch.setattr(sys, "stdout", screen)
    terminal.result("a\x1b[31m\nb.png")
    assert screen.getvalue().splitlines()[-1] == "a\\x1b[31m\\nb.png"
