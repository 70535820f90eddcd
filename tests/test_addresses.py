"""Photos and clips at addresses, by fsspec: its memory, a folder, and a server of S3's protocol."""

import os
import subprocess
import sys
import time
import urllib.request

import fsspec
import numpy as np
import oracle
import pytest
from PIL import Image
from safetensors.torch import save_file

from animebg_core.cli import main
from animebg_core.cluster.pieces import Item, piece_of
from animebg_core.files import addresses
from animebg_core.files.addresses import Address, location


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_file(oracle.random_state((4, 8, 12), 1), path)
    return str(path)


@pytest.fixture
def photos(tmp_path):
    """A folder of three photos, one below, and what is none."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "below/c.tif")):
        cells = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(cells).save(folder / name)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(params=["memory", "file"])
def top(request, tmp_path):
    """An address with nothing below it."""
    addresses._below.cache_clear()
    if request.param == "file":
        yield f"file://{tmp_path}/there"
        return
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def there(photos, top):
    """The photos at an address."""
    driver, path = fsspec.core.url_to_fs(f"{top}/in")
    driver.put(f"{photos}/", path, recursive=True)
    return f"{top}/in"


def names(url):
    driver, path = fsspec.core.url_to_fs(url)
    return {name.removeprefix(path + "/") for name in driver.find(path)}


def content(url):
    driver, path = fsspec.core.url_to_fs(url)
    return {name.removeprefix(path + "/"): driver.cat_file(name) for name in driver.find(path)}


def paint(network, *args):
    addresses._below.cache_clear()  # as each command has a process of its own
    return main(["stylize", "--style", network, "--device", "cpu", *map(str, args)])


MADE = {"a.png", "b.jpg", "below/c.tif"}


def test_from_address_to_address_as_from_folder_to_folder(network, photos, there, top, tmp_path):
    assert paint(network, photos, "-o", tmp_path / "out") == 1  # one of them is bad
    assert paint(network, there, "-o", f"{top}/out") == 1
    wanted = {name: (tmp_path / "out" / name).read_bytes() for name in MADE}
    assert content(f"{top}/out") == wanted
    assert paint(network, there, "-o", tmp_path / "here") == 1
    assert {name: (tmp_path / "here" / name).read_bytes() for name in MADE} == wanted
    assert paint(network, photos, "-o", f"{top}/again") == 1
    assert content(f"{top}/again") == wanted


def test_what_is_finished_there_is_left(network, there, top, capsys):
    out = f"{top}/out"
    assert paint(network, there, "-o", out) == 1
    driver, path = fsspec.core.url_to_fs(out)
    driver.rm_file(f"{path}/a.png")
    driver.pipe_file(f"{path}/b.jpg", b"mine")
    capsys.readouterr()
    assert paint(network, there, "-o", out) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"{out}/a.png"]
    assert "2 finished before" in said.err and "no picture" not in said.err
    assert driver.cat_file(f"{path}/b.jpg") == b"mine"
    assert paint(network, there, "-o", out, "--overwrite") == 1
    assert driver.cat_file(f"{path}/b.jpg") != b"mine"


def test_one_file_and_its_list_of_failures(network, there, top, tmp_path, capsys):
    assert paint(network, f"{there}/a.png", "-o", f"{top}/one.jpg") == 0
    assert names(top) >= {"one.jpg"}
    failures = tmp_path / "failures.txt"
    assert paint(network, there, "-o", f"{top}/out", "--failures", failures) == 1
    assert failures.read_text() == f"{there}/bad.png\n"
    driver, path = fsspec.core.url_to_fs(there)
    driver.cp_file(f"{path}/a.png", f"{path}/bad.png")
    capsys.readouterr()
    assert paint(network, there, "-o", f"{top}/out", "--retry", failures) == 0
    assert capsys.readouterr().out == f"{top}/out/bad.png\n"


def test_an_input_is_never_overwritten(network, there, capsys):
    before = content(there)
    assert paint(network, there, "-o", there, "--overwrite") == 2
    assert "is an input" in capsys.readouterr().err
    assert content(there) == before


def test_outputs_within_the_inputs_are_no_inputs(network, there, capsys):
    assert paint(network, there, "-o", f"{there}/painted") == 1
    capsys.readouterr()
    assert paint(network, there, "-o", f"{there}/painted") == 1
    assert capsys.readouterr().out == ""
    assert names(f"{there}/painted") == MADE


def test_a_key_that_leads_out_of_the_output_folder_is_passed_over(network, tmp_path, capsys):
    driver = fsspec.filesystem("memory")
    cells = np.zeros((24, 32, 3), np.uint8)
    Image.fromarray(cells).save(tmp_path / "a.png")
    driver.put_file(str(tmp_path / "a.png"), "/keys/good.png")
    driver.put_file(str(tmp_path / "a.png"), "/keys/../../bad.png")
    try:
        listed = driver.find("/keys")
        assert any(".." in name for name in listed)
        assert paint(network, "memory://keys", "-o", tmp_path / "out" / "deep") == 0
        assert "named to lie elsewhere" in capsys.readouterr().err
        assert [path.name for path in tmp_path.rglob("*.png") if path.name != "a.png"] == [
            "good.png"
        ]
    finally:
        driver.store.clear()


def test_what_lies_here_under_that_name_does_not_count(network, there, tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "a.png").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert paint(network, there, "-o", tmp_path / "out") == 1
    assert (tmp_path / "out" / "a.png").is_file()


def test_what_comes_short_has_no_final_name(network, photos, tmp_path, monkeypatch, capsys):
    """A driver whose connection is lost in the middle of a file."""
    driver = fsspec.filesystem("file")

    def put_file(self, here, there, **_):
        with open(here, "rb") as source, open(there, "wb") as target:
            target.write(source.read()[:100])
        raise ConnectionError("the line is dead")

    (tmp_path / "there").mkdir()
    monkeypatch.setattr(type(driver), "put_file", put_file)
    assert paint(network, photos / "a.png", "-o", f"file://{tmp_path}/there/a.png") == 1
    assert "the line is dead" in capsys.readouterr().err
    assert not (tmp_path / "there" / "a.png").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("memory://nothing/a.png", "memory://nothing/a.png: no such file"),
        ("nonsense://bucket/a.png", "nonsense://bucket/a.png: "),
    ],
)
def test_what_is_not_there_is_told_in_a_line(network, given, said, tmp_path, capsys):
    assert paint(network, given, "-o", tmp_path / "out") in (1, 2)
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_a_driver_that_is_missing_is_named(network, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert paint(network, "gs://bucket/in", "-o", tmp_path / "out") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "gs://bucket/in: no driver for it is installed" in line and "gcsfs" in line


def test_numbered_pictures_at_an_address_are_refused(network, tmp_path, capsys):
    assert paint(network, "memory://bucket/f-%05d.png", "-o", tmp_path / "out.mp4") == 2
    assert "numbered pictures" in capsys.readouterr().err


def test_a_file_of_that_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert location("s3://x") == Address("s3://x")
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:" / "x").touch()
    assert location("s3://x") == tmp_path.__class__("s3://x")


def test_a_piece_keeps_addresses():
    item = Item(Address("memory://a/ä b.png"), Address("memory://b") / "ä b.png", False)
    piece = piece_of([item], [0], "photos")
    [again] = piece.paths
    assert (str(again.source), str(again.target)) == ("memory://a/ä b.png", "memory://b/ä b.png")


def test_a_film_there_and_back(network, tmp_path):
    pytest.importorskip("av", exc_type=ImportError)
    from clips import Sound, make_clip

    cells = np.random.default_rng(0).integers(0, 65536, (9, 26, 3), np.uint16)
    frames = [cells.repeat(4, 0).repeat(4, 1)[:, k : k + 64] for k in range(6)]
    film = tmp_path / "film.mkv"
    make_clip(film, frames, pixels="yuv444p", sound=Sound("aac"))
    driver = fsspec.filesystem("memory")
    driver.put_file(str(film), "/films/film.mkv")
    try:
        assert paint(network, film, "-o", tmp_path / "here.mkv") == 0
        assert paint(network, "memory://films", "-o", "memory://painted") == 0
        assert driver.cat_file("/painted/film.mkv") == (tmp_path / "here.mkv").read_bytes()
    finally:
        driver.store.clear()


# --- S3, from a server on this machine ---


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The address of a bucket."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    log = tmp_path_factory.mktemp("s3") / "log"
    port = 5000 + os.getpid() % 20000
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
        settings = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir("photos")
            yield "s3://photos"
            s3fs.S3FileSystem.clear_instance_cache()
    finally:
        server.terminate()
        server.wait(30)


def test_a_bucket_to_a_bucket(network, photos, bucket, tmp_path, capsys):
    import s3fs

    s3fs.S3FileSystem().put(f"{photos}/", "photos/in", recursive=True)
    assert paint(network, photos, "-o", tmp_path / "out") == 1
    assert paint(network, f"{bucket}/in", "-o", f"{bucket}/out") == 1
    s3fs.S3FileSystem.clear_instance_cache()
    wanted = {name: (tmp_path / "out" / name).read_bytes() for name in MADE}
    assert content(f"{bucket}/out") == wanted
    capsys.readouterr()
    assert paint(network, f"{bucket}/in", "-o", f"{bucket}/out") == 1
    said = capsys.readouterr()
    assert said.out == "" and "3 finished before" in said.err


def test_a_bucket_that_is_not_there(network, bucket, tmp_path, capsys):
    assert paint(network, "s3://other/in/a.png", "-o", tmp_path / "out") == 1
    assert "s3://other/in/a.png: " in capsys.readouterr().err


@pytest.mark.ray
def test_workers_paint_a_bucket(network, photos, bucket, tmp_path):
    pytest.importorskip("ray")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().put(f"{photos}/", "photos/rays", recursive=True)
    assert paint(network, photos, "-o", tmp_path / "out") == 1
    code = "import sys; from animebg_core.cli import main; sys.exit(main(sys.argv[1:]))"
    args = ["stylize", "--style", network, "--device", "cpu", f"{bucket}/rays"]
    command = [sys.executable, "-c", code, *args, "-o", f"{bucket}/by-ray", "--ray", "local:2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1, ended.stderr
    s3fs.S3FileSystem.clear_instance_cache()
    wanted = {name: (tmp_path / "out" / name).read_bytes() for name in MADE}
    assert content(f"{bucket}/by-ray") == wanted
