"""Every benchmark runs through, on pictures and networks so small that its figures say nothing."""

import importlib
import sys
from pathlib import Path

import oracle
import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_file(oracle.random_state((4, 8, 12), 1), path)
    return str(path)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a benchmark from the root, and gives the cells of its tables, row by row."""
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()

    def rows(name, *args):
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        importlib.import_module(f"benchmarks.{name}").main()
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    yield rows
    torch.set_num_threads(threads)


def test_every_form_of_a_layer_gives_the_result_of_float64(run):
    rows = run("kernels", "--rounds", 1)
    errors = {}
    for title, _, _, _, error in rows:
        if error not in ("error", "") and not error.startswith("-"):
            errors.setdefault(title, []).append(float(error))
    for form in ("Winograd F(2x2)", "Winograd F(4x4), points 0 1 -1 1/2 -2", "ours, centred"):
        assert form in errors
    # Sums of some thousand products of numbers around 1 in float32: what is wrong is wrong by 1.
    assert max(max(found) for found in errors.values()) < 1e-3


def test_speed_finds_ours_equal_to_the_published_network(run, network):
    rows = run("speed", "--style", network, "--size", "32x48", "--rounds", 1)
    difference = {row[0]: float(row[3]) for row in rows if row[0].startswith("ours")}
    assert set(difference) == {
        f"ours, {how}" for how in ("one strip", "whole", "store", "recompute", "default")
    }
    # Float32 with other orders of summation, through ten layers, in [-1, 1].
    assert max(difference.values()) < 1e-3


def test_exact_strips_are_nearer_to_the_whole_picture_than_a_thumbnails_statistics(run, network):
    rows = run("quality", "--style", network, "--longest", 64)
    # The thumbnails are larger than this picture, so that they are not its pixels.
    exact, thumbnail = float(rows[2][2]), float(rows[2][5])
    assert exact > 80 > thumbnail  # rounding in float32 is at 120 dB and more


@linux
@pytest.mark.parametrize("name", ["memory", "scale"])
def test_runs_in_processes_of_their_own_are_measured(run, network, name):
    size = {"memory": ["--sizes", "32x48"], "scale": ["--megapixels", "0.002", "--rounds", 1]}
    rows = run(name, "--style", network, "--variants", "store", *size[name])
    assert [row[1] for row in rows[2:]] == ["store"]


@linux
def test_networks_of_two_sizes_are_compared(run, network, tmp_path):
    other = tmp_path / "lite.safetensors"
    save_file(oracle.random_lite_state((4, 8, 4), 1), other)
    rows = run("lite", "--style", network, "--also", other, "--size", "32x48", "--rounds", 1)
    assert [row[0] for row in rows[2:]] == [network, str(other)]


@pytest.mark.parametrize("layers", [[], ["--layers"]])
def test_the_native_kernels_are_compared(run, network, layers):
    args = ["--style", network, "--sizes", "32x48", "--threads", 1, "--rounds", 1, *layers]
    assert len(run("native", *args)) > 4


def test_without_a_graphics_card_nothing_is_measured_on_one(monkeypatch, capsys):
    from benchmarks import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 1
    assert "no CUDA device" in capsys.readouterr().out


def test_a_film_of_a_pan_is_measured(run, network):
    pytest.importorskip("av")
    pytest.importorskip("cv2")
    rows = run("video", "pans", "--style", network)
    assert len(rows) == 2 + 5


def test_ours_is_more_faithful_than_the_guided_filter_and_oversteps_no_edge(run, tmp_path):
    photo = f"{ROOT / 'docs' / 'images' / 'demo-photo.jpg'}@320:160"
    rows = run("look", photo, "--styles", "shinkai-lite", "--pictures", tmp_path / "crops")
    faithful = {row[3]: float(row[4]) for row in rows if len(row) == 7 and row[4][-1].isdigit()}
    assert faithful["plain enlargement"] > faithful["ours"] > faithful["simplest form"]
    overshoot = {row[0]: row[1] for row in rows if row[-1].endswith("%")}
    assert float(overshoot["ours"].rstrip("%")) <= 2 < float(overshoot["simplest form"].rstrip("%"))
    assert len(list((tmp_path / "crops").iterdir())) == 1


def test_spots_of_blends_are_counted(run, network, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file(oracle.random_state((4, 8, 12), 1, seed=1), other)
    rows = run("blends", "--styles", network, other, "--longest", 64)
    blends, wrong, more = map(int, rows[-1])
    assert blends == 3
    listed = [[int(count) for count in row[3:]] for row in rows if row[2].endswith(".jpg")]
    assert sum(count > worse for *counts, worse in listed for count in counts) == wrong
    assert sum(max(0, count - worse) for *counts, worse in listed for count in counts) == more


def test_the_benchmarks_own_way_back_is_that_of_the_library(network):
    """The step is measured through it."""
    from animebg_core import load_generator, stylize
    from benchmarks import look

    generator, image, seen = load_generator(network), torch.rand(1, 60, 80, 3), []
    painted = stylize(image, generator, painting_size=40, preview=seen.append)
    again = look.ours(image.movedim(-1, 1), seen[0].movedim(-1, 1))
    assert (painted.movedim(-1, 1) - again).abs().max() < 1e-4  # sums in another order
