"""Folders and films on many machines: pieces, a worker, and Ray on this machine."""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

pytest.importorskip("av", exc_type=ImportError)

import oracle  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from animebg_core import Painter  # noqa: E402
from animebg_core.cli import main, many  # noqa: E402
from animebg_core.cluster import fleet as fleet_module  # noqa: E402
from animebg_core.cluster.pieces import Item, photo_pieces, piece_of, runs  # noqa: E402
from animebg_core.cluster.worker import Place, Worker  # noqa: E402
from benchmarks import cluster as campaign  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def items(folder, count, size=10):
    folder.mkdir()
    made = [Item(folder / f"{k}.png", folder / "out" / f"{k}.png", False) for k in range(count)]
    for item in made:
        item.source.touch()
        os.truncate(item.source, size)
    return made


# --- Pieces ---


def test_small_files_are_batched_and_every_worker_gets_several_pieces(tmp_path):
    small = items(tmp_path / "small", 200)
    for workers, most in ((1, 32), (4, 12), (100, 1)):
        pieces = photo_pieces(small, workers)
        assert [at for piece in pieces for at in piece.items] == list(range(200))
        assert max(len(piece.items) for piece in pieces) == most
    large = items(tmp_path / "large", 40, 40 << 20)
    assert {len(piece.items) for piece in photo_pieces(large, 1)} == {1}


def test_a_piece_keeps_names_that_are_no_text(tmp_path):
    odd = Item(Path(os.fsdecode(b"/in/\xff.png")), Path(os.fsdecode(b"/out/\xff.png")), False)
    piece = piece_of([odd], [0], "photos")
    assert piece.paths == [odd]


def test_runs_of_segments_are_as_long_as_all_workers_allow():
    assert list(runs(range(10), 10, 1)) == [(0, 2), (3, 5), (6, 8), (9, 9)]
    assert list(runs([2, 3, 7], 3, 100)) == [(2, 2), (3, 3), (7, 7)]
    assert list(runs([], 0, 3)) == []


# --- A worker, in this process ---


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Photos, bad ones among them, and a film with three cuts.

    The arguments that paint them, and a folder with the outputs of one process.
    """
    folder = tmp_path_factory.mktemp("job")
    args = campaign.make_job(folder / "in", 12, True)
    with redirect_stdout(None), redirect_stderr(None):
        assert main([*args, "-o", str(folder / "wanted")]) == 1
    return args, folder / "wanted"


@pytest.fixture
def source(job):
    return job[1].parent / "in"


def parsed(args):
    from animebg_core.cli import _parser

    return _parser().parse_args(args)


@pytest.fixture
def worker(job, tmp_path):
    """A worker, what it has told, and what is begun: a count by name."""
    args = parsed([*job[0], "-o", str(tmp_path / "out")])
    kit = many.Kit(args, many.load_parts(args), None, os.getcwd())
    counts = {}

    def begun(name):
        counts[name] = counts.get(name, 0) + 1
        return counts[name]

    folder = os.getcwd()
    yield Worker(kit, Place("cpu", 1, 2), begun), counts
    os.chdir(folder)


def test_a_film_in_pieces_is_the_film_of_one_machine(job, source, worker, tmp_path, monkeypatch):
    from animebg_core.cluster import worker as worker_module

    monkeypatch.setattr(worker_module, "_FEW_SHOTS", 0)
    (one, _), told = worker, []
    film = [Item(source / "film.mkv", tmp_path / "out" / "film.mkv", True)]

    def do(kind, first=0, last=0):
        del told[:]
        one.do(piece_of(film, [0], kind, first, last), lambda *event: told.append(event))
        return told

    [*_, (at, what, text)] = do("begin")
    assert (at, what) == (0, "planned")
    assert json.loads(text) == {"frames": 80, "gather": [0, 1, 2, 3], "paint": [0, 1, 2]}
    for first, last in ((2, 3), (0, 1)):
        assert do("gather", first, last) == []
    one._film = None  # as another machine that comes to it
    for first, last in ((1, 2), (0, 0), (1, 2)):
        assert do("paint", first, last) == []
    assert do("join") == [(0, "done", "")]
    assert film[0].target.read_bytes() == (job[1] / "film.mkv").read_bytes()
    # A worker that died as it had just joined it: the next finds it made.
    again = piece_of([Item(film[0].source, film[0].target, True)], [0], "join")
    again.stamps[0] = ""
    one.do(again, lambda *event: told.append(event))
    assert told[-1] == (0, "done", "")


def test_a_photo_that_kills_its_workers_is_given_up_and_the_others_are_painted(
    source, worker, tmp_path
):
    one, counts = worker
    made = [Item(source / n, tmp_path / "out" / n, False) for n in ("0.png", "1.jpg")]
    piece, told = piece_of(made, [0, 1], "photos"), []
    counts.update({piece.id: 3, f"{piece.id}/0": 3})
    one.do(piece, lambda *event: told.append(event))
    assert [(at, what) for at, what, _ in told] == [(0, "failed"), (1, "done")]
    assert "died" in told[0][2]
    del told[:]
    one.do(piece, lambda *event: told.append(event))
    assert (1, "done", "") in told  # found made


def test_a_worker_of_another_version_paints_nothing(job, source, tmp_path):
    args = parsed([*job[0], "-o", str(tmp_path / "out")])
    kit = many.Kit(args, [], None, os.getcwd(), "0.0.1")
    piece, told = piece_of([Item(source / "0.png", tmp_path / "0.png", False)], [0],
                           "photos"), []  # fmt: skip
    Worker(kit, Place("cpu", 1, 1), lambda name: 1).do(piece, lambda *event: told.append(event))
    [(at, what, text)] = told
    assert (at, what) == (0, "failed") and "0.0.1" in text


def test_what_would_be_painted_otherwise_is_refused(source, worker, tmp_path):
    (one, _), told = worker, []
    film = [Item(source / "film.mkv", tmp_path / "out" / "film.mkv", True)]
    one.do(piece_of(film, [0], "begin"), lambda *event: told.append(event))
    plan = tmp_path / "out" / ".film.mkv.animebg" / "plan.json"
    identity = json.loads(plan.read_text())
    plan.write_text(json.dumps({**identity, "device": "cuda"}))
    one._film = None
    one.do(piece_of(film, [0], "paint", 0, 2), lambda *event: told.append(event))
    assert told[-1][1] == "failed" and "device" in told[-1][2]
    assert plan.exists()  # of whoever paints it


def test_each_worker_of_a_machine_counts_on_its_share_of_the_memory(worker):
    one, _ = worker
    whole = Painter(one._painter.generator).memory.free()
    # It changes as other processes come and go.
    assert one._painter.memory.free() < 0.75 * whole


# --- Without a cluster ---


def test_without_ray_the_message_says_what_to_install(job, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fleet_module.importlib.util, "find_spec", lambda name: None)
    capsys.readouterr()
    assert main([*job[0], "-o", str(tmp_path / "out"), "--ray", "local"]) == 1
    error = "animebg: error: --ray needs Ray: pip install 'animebg[ray]'\n"
    assert capsys.readouterr().err == error


def test_nothing_but_the_cluster_knows_of_ray():
    code = "import sys, animebg_core.cli; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_dry_run_says_what_would_go_where_and_makes_nothing(job, source, capsys, tmp_path):
    capsys.readouterr()
    out = tmp_path / "out"
    assert main([*job[0], "-o", str(out), "--dry-run"]) == 0
    said = capsys.readouterr()
    assert f"{source / 'film.mkv'} -> {out / 'film.mkv'}" in said.out.splitlines()
    assert len(said.out.splitlines()) == 15 and "nothing is" in said.err
    assert not out.exists()


# --- Ray on this machine ---


@pytest.fixture
def ray():
    pytest.importorskip("ray")


def below(pid):
    """The processes that one has started, and those that they have, itself too."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rsplit(") ", 1)[1].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pids):
    """The addresses, hexadecimal, that processes listen on."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and f"socket:[{cells[9]}]" in sockets:
                found.add(cells[1].split(":")[0])
    return found


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_rays_workers_paint_what_one_process_does_byte_for_byte(ray, job, tmp_path):
    args, wanted = job
    command = [sys.executable, "-m", "animebg_core", *args, "-o", str(tmp_path / "out")]
    command += ["--ray", "local:2", "--verbose", "--failures", str(tmp_path / "failed")]
    seen, said = set(), tmp_path / "said"
    with said.open("w") as file:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, cwd=ROOT)
        ours = {child.pid}
        while child.poll() is None:
            ours = below(child.pid)
            seen |= listening(ours)
            time.sleep(0.5)
    assert child.returncode == 1
    # IPv4's loopback address, by itself and as IPv6 writes it.
    assert seen and {address[-8:] for address in seen} == {"0100007F"}
    assert not [pid for pid in ours if Path(f"/proc/{pid}").exists()]  # the cluster ended with it
    names = sorted(path.name for path in wanted.iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (wanted / name).read_bytes(), name
    lines = said.read_text().splitlines()
    assert lines[-1].startswith("animebg: 13 painted, 2 failed")
    failed = (tmp_path / "failed").read_text().splitlines()
    assert sorted(Path(line).name for line in failed) == ["cut.jpg", "none.png"]
    assert any("Ray Data" in line and "MapBatches(RowWorker)" in line for line in lines)


@pytest.mark.ray
def test_overhead_is_measured(ray, tmp_path):
    """The smallest of the benchmark's rows; its fleet would take too long to start here."""
    network = tmp_path / "net.safetensors"
    save_file(oracle.random_state((2, 3, 4), 1), network)
    code = "import sys; from pathlib import Path; from benchmarks import cluster;"
    code += "print(*cluster.overhead(Path(sys.argv[1]), 0.01, 4, 1, 2), sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(network)], cwd=ROOT, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    workers, seconds, batch, photos, more, *_ = done.stdout.split("|")
    assert (workers, seconds, batch, photos) == ("1", "0.01", "2", "4")
    assert 0 <= float(more) < 1000  # milliseconds: two rows, handed over on a busy machine


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_killed_workers_and_a_killed_driver_lose_nothing(ray, tmp_path):
    args = campaign.make_job(tmp_path / "in", 16, False)
    with redirect_stdout(None), redirect_stderr(None):
        main([*args, "-o", str(tmp_path / "wanted")])
    chance, kills = random.Random(1), ["worker", "driver"]
    result, again = campaign.killed(tmp_path / "k", args, tmp_path / "wanted", kills, chance)
    assert result == "right"
    # The worker's, and those of both when the driver is killed.
    assert again <= 3
