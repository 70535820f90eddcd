"""What a plan says a run takes is what it takes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import oracle
import pytest
import torch
from safetensors.torch import save_file

from animebg_core import load_generator, plan_run, stylize
from animebg_core.engine.device import Device, Scratch
from animebg_core.engine.kernels import Layer, torch_ops, winograd
from animebg_core.engine.plan import peak_bytes, sweep_bytes
from animebg_core.engine.schedule import Step, schedule
from animebg_core.network.design import Conv, Stage
from animebg_core.network.generator import ConvWeights

CPU = Device(torch.device("cpu"), torch.float32, cpu=True)
ROOT = Path(__file__).resolve().parent.parent
LITE = ROOT / "weights" / "animebg-lite-shinkai.safetensors"


@pytest.fixture(scope="module")
def published_shapes(tmp_path_factory):
    """A random network of the published shapes: 8 blocks, 64 to 256 channels."""
    path = tmp_path_factory.mktemp("network") / "full.safetensors"
    save_file(oracle.random_state((64, 128, 256), 8), path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory of a process")
@pytest.mark.parametrize("masked", ["plain", "masked"])
@pytest.mark.parametrize(
    ("network", "height", "width", "dtype"),
    [
        ("published", 576, 864, "float32"),
        ("lite", 576, 864, "float32"),
        ("lite", 2304, 3456, "float32"),
        ("lite", 2304, 3456, "float16"),
        pytest.param("published", 2304, 3456, "float32", marks=pytest.mark.slow),  # a minute each
    ],
)
def test_a_run_takes_what_its_plan_says(published_shapes, network, height, width, dtype, masked):
    """Half a megapixel and eight, in a process of its own, by the system's accounts."""
    path = LITE if network == "lite" else published_shapes
    command = [sys.executable, str(ROOT / "tests" / "memory_run.py"), str(path)]
    done = subprocess.run(
        [*command, str(height), str(width), dtype, masked],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    predicted, taken = map(int, done.stdout.split())
    # 24 MiB: what libraries take beside the tensors varies by as much.
    assert abs(predicted - taken) <= 0.15 * taken + (24 << 20)


@pytest.mark.parametrize(("level", "most"), [("whole", 470), ("store", 215), ("recompute", 170)])
def test_a_plan_takes_no_more_bytes_a_pixel_than_the_maps_need(published_shapes, level, most):
    """At eight megapixels, float32. store: two maps of half size and 128 channels are 256 bytes a
    pixel; the first of them is freed before the second is there."""
    generator = load_generator(published_shapes)
    plan = replace(plan_run(generator, 2304, 3456), level=level)
    taken = peak_bytes(generator, plan, 2304, 3456, masked=False) / (2304 * 3456)
    assert 0.6 * most < taken <= most
    masked = peak_bytes(generator, plan, 2304, 3456, masked=True) / (2304 * 3456)
    # The mask, what is made of it at three sizes, and the picture filled outside it: at least 4 for
    # the mask, 4 + 1 + 1/4 for the weights, 12 for the picture.
    assert masked - taken > 21


@pytest.mark.parametrize("gathers", [True, False])
@pytest.mark.parametrize("level", ["whole", "store", "recompute"])
def test_every_map_is_freed_after_its_last_use_and_not_before(network, level, gathers):
    sweeps = schedule(load_generator(network[0]), 61, 50, level, gathers=gathers)
    living = set()
    for at, sweep in enumerate(sweeps):
        assert not sweep.reads or sweep.reads in living
        assert not sweep.adds or sweep.adds in living
        living |= {sweep.writes} - {None}
        assert set(sweep.frees) <= living
        living -= set(sweep.frees)
        later = [
            slot for other in sweeps[at + 1 :] for slot in (other.reads, other.adds, other.writes)
        ]
        assert living <= set(later), "held, though nothing uses it any more"
    assert not living


def test_a_schedule_reuses_the_memory_of_the_blocks(published_shapes):
    """Two maps of quarter size serve all residual blocks."""
    sweeps = schedule(load_generator(published_shapes), 64, 64, "recompute")
    blocks = [sweep for sweep in sweeps if sweep.stage.in_block]
    assert len(blocks) == 16
    assert (
        len({slot for sweep in blocks for slot in (sweep.reads, sweep.writes, sweep.adds)} - {None})
        == 2
    )


def test_with_given_statistics_nothing_is_run_for_their_sake(network):
    generator = load_generator(network[0])
    gathering = schedule(generator, 64, 64, "recompute")
    given = schedule(generator, 64, 64, "recompute", gathers=False)
    assert not any(sweep.gathers for sweep in given)
    assert len(given) < len(gathering)
    steps = [(step.stage.name, step.index) for sweep in given for step in sweep.steps]
    assert len(steps) == len(set(steps)), "a convolution runs once"


@pytest.mark.parametrize(
    ("conv", "inputs", "outputs"),
    [
        (Conv(3, padding="reflect"), 96, 112),
        (Conv(3), 128, 96),
        (Conv(7, padding="reflect"), 64, 3),
        (Conv(3, stride=2, transposed=True), 24, 16),
        (Conv(3, stride=2), 8, 16),
        (Conv(3, shuffled=True), 8, 12),
    ],
)
def test_a_kernel_says_what_it_takes(monkeypatch, conv, inputs, outputs):
    """Windows and scratch memory to the byte where strips are whole, at most a fifth above."""
    shape = (inputs, outputs) if conv.transposed else (outputs, inputs)
    weights = ConvWeights(torch.zeros(*shape, conv.kernel, conv.kernel), torch.zeros(outputs))
    layer = Layer(conv, weights, bias=True)
    kernel = winograd.make(layer, CPU) or torch_ops.make(layer, CPU)
    high, wide, rows = 96, 101, 16
    size = (conv.output_size(high), conv.output_size(wide))
    made = outputs // (4 if conv.shuffled else 1)
    step = Step(Stage("s", (conv,), 1), 0, inputs, made, 0, (high, wide), size)
    image = torch.zeros(1, inputs, high, wide)
    source = SimpleNamespace(height=high, width=wide, rows=lambda a, b: image[:, :, a:b])
    scratch = Scratch(torch.device("cpu"))
    opened = kernel.open(source, step, None, scratch)
    for start in range(0, size[0], rows):
        opened.rows(start, min(start + rows, size[0]))
    said = kernel.footprint(step, 1, rows)
    window = opened._window.numel() * 4
    assert window <= said.window <= 1.2 * window
    held = {name: buffer.numel() * 4 for name, buffer in scratch._buffers.items()}
    prepared = sum(count for name, count in held.items() if name.startswith("weights"))
    assert said.weights == prepared
    others = {name: count for name, count in held.items() if not name.startswith("weights")}
    assert others == dict(said.scratch)


def test_the_result_counts_where_the_network_runs_on_the_cpu(network):
    """Four channels of float32 a pixel, beside the map that is read at last."""
    generator = load_generator(network[0])
    plan = replace(plan_run(generator, 2000, 64), level="recompute", rows=4, block_rows=1)
    tall, low = (
        sweep_bytes(generator, plan, height, 64, masked=False)[-1]
        - 4 * schedule(generator, height, 64, "recompute")[-1].reads.numel
        for height in (2000, 1000)
    )
    assert tall - low == 1000 * 64 * 16


def test_a_smaller_picture_takes_less(network):
    generator = load_generator(network[0])
    sizes = [(64, 64), (256, 256), (1024, 1024)]
    peaks = [plan_run(generator, *size, budget=1 << 50).peak_bytes for size in sizes]
    assert peaks == sorted(peaks)
    stylize(torch.rand(1, 64, 64, 3), generator)
