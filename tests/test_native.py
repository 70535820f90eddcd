"""The native kernels, where they are installed: they run, they are right, and they step aside."""

import logging
import os
import subprocess
import sys
from dataclasses import replace

import oracle
import pytest
import torch

from animebg_core import load_generator, painting, pipeline, plan_run, stylize
from animebg_core.engine import kernels
from animebg_core.engine.kernels import native, native_rows
from animebg_core.engine.plan import headrooms, sweep_bytes
from animebg_core.engine.schedule import schedule
from animebg_core.errors import MemoryBudgetError

animebg_kernels = pytest.importorskip("animebg_kernels", reason="pip install ./kernels")
# Two results that differ only in the order of float32 operations, one of them through Winograd's
# transforms; seen: 8e-6.
ROUNDING = 2e-5


@pytest.fixture(autouse=True)
def _installed():
    if os.environ.get("ANIMEBG_KERNELS") == "off":
        pytest.skip("ANIMEBG_KERNELS=off")


def _save(state, path):
    torch.save(state, path)
    return load_generator(path)


@pytest.fixture(params=["published", "lite", "odd"])
def style(request, tmp_path):
    """A network and its state dict: with channels that are multiples of 16, and with none."""
    state = {
        "published": lambda: oracle.random_state((32, 48, 64), 1),
        "lite": lambda: oracle.random_lite_state((32, 64, 48), 1),
        "odd": lambda: oracle.random_state((5, 17, 33), 1),
    }[request.param]()
    return _save(state, tmp_path / "style.pth"), state


def test_every_convolution_and_sum_is_run_by_them(style, monkeypatch):
    generator, _ = style
    seen, settled = [], []
    run, settle = animebg_kernels.Layer.run, animebg_kernels.Library.settle

    def counted(layer, rows):
        seen.append(rows.stop - rows.start)
        run(layer, rows)

    def counted_too(library, values):
        settled.append(values.pixels)
        settle(library, values)

    monkeypatch.setattr(animebg_kernels.Layer, "run", counted)
    monkeypatch.setattr(animebg_kernels.Library, "settle", counted_too)
    stylize(torch.rand(1, 45, 38, 3), generator)
    convolutions = sum(len(stage.convs) for stage in generator.stages)
    assert settled
    assert native.instruction_set() in ("avx2", "avx512", "neon")
    assert len(seen) >= convolutions
    chosen = kernels.choose(generator, kernels_device(generator))
    assert all(isinstance(kernel, native_rows.Native) for kernel in chosen.values())


def kernels_device(generator):
    from animebg_core.engine.device import Device

    return Device.of(generator)


@pytest.mark.parametrize(("rows", "block_rows"), [(1000, 1000), (16, 4), (7, 3), (1, 1)])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (33, 37), (50, 61)])
def test_every_cut_equals_the_reference(style, rows, block_rows, height, width):
    generator, state = style
    image = torch.rand(2, height, width, 3)
    plan = replace(plan_run(generator, height, width), rows=rows, block_rows=block_rows, batch=2)
    expected = oracle.stylize(state, image)
    assert (stylize(image, generator, plan=plan) - expected).abs().max() < ROUNDING


@pytest.fixture(params=["published", "lite"])
def written_over(request, tmp_path):
    """A network some of whose maps are written over as they are read, and its state dict."""
    state = {
        "published": lambda: oracle.random_state((5, 17, 33), 1),
        "lite": lambda: oracle.random_lite_state((32, 48, 48), 1),
    }[request.param]()
    return _save(state, tmp_path / "style.pth"), state


@pytest.mark.parametrize("level", ["whole", "store"])
def test_maps_that_are_written_over_are_read_where_they_lie(written_over, level, monkeypatch):
    """Only the picture and what goes from one convolution of a stage to the next are copied."""
    generator, state = written_over
    seen = []
    copy = native_rows._copy

    def counted(target, source):
        seen.append((source.shape[1], *source.shape[2:]))
        copy(target, source)

    monkeypatch.setattr(native_rows, "_copy", counted)
    image = torch.rand(1, 64, 80, 3)
    plan = replace(plan_run(generator, 64, 80), level=level, rows=16, block_rows=4)
    sweeps = schedule(generator, 64, 80, level)
    assert [sweep for sweep in sweeps if sweep.in_place]
    painted = stylize(image, generator, plan=plan)
    assert (painted - oracle.stylize(state, image)).abs().max() < ROUNDING
    assert seen
    assert not [s for s in seen if s[0] == generator.channels["block0b"] and s[2] == 20]


def test_the_room_above_a_map_is_planned_and_taken_for_one_picture_alone(written_over, monkeypatch):
    generator, _ = written_over
    plan = replace(plan_run(generator, 64, 80), level="store", rows=16, block_rows=4)
    sweeps = schedule(generator, 64, 80, "store")
    at = next(i for i, sweep in enumerate(sweeps) if sweep.in_place)
    slot, step = sweeps[at].writes, sweeps[at].steps[0]
    chosen = kernels.choose(generator, kernels_device(generator))
    rows = headrooms(chosen, plan, sweeps)[slot]
    assert rows == 4 + 1  # a strip, and the padding
    with_room = sweep_bytes(generator, plan, 64, 80, masked=False)[at]
    window = chosen[step.stage.name, 0].footprint(step, 1, 4).window
    footprint = native_rows.Native.footprint

    def without_room(*given):
        return replace(footprint(*given), headroom=0)

    monkeypatch.setattr(native_rows.Native, "footprint", without_room)
    without = sweep_bytes(generator, plan, 64, 80, masked=False)[at]
    assert with_room - without == rows * slot.channels * slot.width * 4 - window
    monkeypatch.undo()
    assert headrooms(chosen, replace(plan, batch=2), sweeps) == {}


@pytest.mark.parametrize(("channels", "made"), [
    ((64, 128, 256), oracle.random_state),
    ((32, 64, 64), oracle.random_lite_state),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_strips_are_higher_with_them_and_memory_is_less(
    channels, made, dtype, tmp_path, monkeypatch
):
    path = tmp_path / "style.pth"
    _save(made(channels, 1), path)
    generator = load_generator(path, dtype=dtype)
    sizes = [(480, 720), (1152, 768), (2000, 3000), (3024, 4032), (600, 8000), (400, 20_000)]
    cases = [(size, masked) for size in sizes for masked in (False, True)]
    plans = [plan_run(generator, *size, budget=1 << 40, masked=masked) for size, masked in cases]
    monkeypatch.setattr(native, "_library", lambda: None)
    without = load_generator(path, dtype=dtype)
    for plan, (size, masked) in zip(plans, cases, strict=True):
        other = plan_run(without, *size, budget=1 << 40, masked=masked)
        assert plan.block_rows > other.block_rows or size[1] > 5000
        assert plan.peak_bytes <= other.peak_bytes


def test_they_give_up_high_strips_before_a_level(style):
    generator, _ = style
    height, width = 200, 300
    plans = [plan_run(generator, height, width, budget=1 << 40)]
    while True:
        try:
            plans.append(plan_run(generator, height, width, budget=plans[-1].peak_bytes - 1))
        except MemoryBudgetError:
            break
    assert plans[0].block_rows > plans[0].rows
    assert plans[1] == replace(
        plans[0], block_rows=plans[0].rows // 2, peak_bytes=plans[1].peak_bytes
    )
    assert (plans[-1].rows, plans[-1].block_rows) == (4, 4)


def test_kernels_of_another_version_are_left_alone(style, monkeypatch, caplog):
    generator, state = style
    image = torch.rand(1, 20, 24, 3)
    native._library.cache_clear()
    monkeypatch.setattr(animebg_kernels, "INTERFACE", 1)
    monkeypatch.setattr(animebg_kernels, "Conv", None)
    try:
        assert native.instruction_set() is None
        painted = stylize(image, generator)
    finally:
        native._library.cache_clear()
    assert (painted - oracle.stylize(state, image)).abs().max() < ROUNDING
    assert [
        record.message for record in caplog.records if "pip install ./kernels" in record.message
    ]


@pytest.mark.parametrize("channels", [3, 4])
def test_torch_works_on_one_thread_beside_them(style, channels, monkeypatch):
    """Its others would go on spinning for a while, on the cores that these want."""
    generator, _ = style
    read, written = [], []
    to_network, mix = painting.to_network, pipeline.mix

    def counted(rows):
        read.append(rows.numel())
        return to_network(rows)

    def counted_too(original, rows, share):
        written.append(original.numel())
        return mix(original, rows, share)

    monkeypatch.setattr(painting, "to_network", counted)
    monkeypatch.setattr(pipeline, "mix", counted_too)
    stylize(torch.rand(1, 100, 400, channels), generator)
    assert sum(written) == 100 * 400 * channels
    assert sum(read) >= 100 * 400 * 3  # and the mean colour
    assert max(read + written) < 32_768


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_pictures_stay_with_float64(style, value):
    generator, state = style
    image = torch.full((1, 64, 64, 3), value)
    expected = oracle.stylize(state, image)
    # Random networks blow rounding up more than trained ones, for which 2e-5 in [-1, 1] is asked.
    assert (stylize(image, generator) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_masks_and_every_dtype_of_maps_give_what_torch_gives(
    style, monkeypatch, tmp_path, dtype, masked
):
    generator = load_generator(tmp_path / "style.pth", dtype=dtype)
    image = torch.rand(1, 50, 45, 3)
    mask = None
    if masked:
        mask = torch.zeros(50, 45)
        mask[5:30, 10:40] = 1
    ours = stylize(image, generator, mask=mask)
    monkeypatch.setattr(native, "_library", lambda: None)
    kernels._chosen.clear()
    torchs = stylize(image, generator, mask=mask)
    # Half maps: a value that falls to the other side of a rounding, 2**-11 or 2**-8 of it.
    bound = {torch.float32: ROUNDING, torch.float16: 2e-2, torch.bfloat16: 2e-1}[dtype]
    kernels._chosen.clear()
    assert (ours - torchs).abs().max() < bound


def test_what_they_take_is_planned(style):
    generator, _ = style
    chosen = kernels.choose(generator, kernels_device(generator))
    for sweep in schedule(generator, 200, 300, "store"):
        for step in sweep.steps:
            needed = chosen[step.stage.name, step.index].footprint(step, 1, 16)
            assert needed.scratch["native"] > 0
            assert needed.window > step.source[1] * step.inputs * 4


@pytest.fixture
def _fresh():
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_kernels_that_differ_from_torch_turn_themselves_off_with_one_warning(monkeypatch, caplog):
    run = animebg_kernels.Layer.run

    def wrong(layer, rows):
        rows.relu = not rows.relu
        run(layer, rows)

    monkeypatch.setattr(animebg_kernels.Layer, "run", wrong)
    with caplog.at_level(logging.WARNING):
        assert native.instruction_set() is None
        assert native.instruction_set() is None
    assert len(caplog.records) == 1
    assert "differ from torch" in caplog.text


@pytest.mark.usefixtures("_fresh")
def test_an_unknown_choice_is_said_and_torch_runs(monkeypatch, caplog):
    monkeypatch.setenv("ANIMEBG_KERNELS", "mmx")
    with caplog.at_level(logging.WARNING):
        assert native.instruction_set() is None
    assert "'mmx'" in caplog.text and "only:" in caplog.text


def test_the_environment_switches_them_off():
    code = "from animebg_core.engine.kernels import native; print(native.instruction_set())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ANIMEBG_KERNELS": "off"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
    assert "native" not in done.stderr
