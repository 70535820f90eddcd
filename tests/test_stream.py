"""The stream gives the whole image's result, however it is cut."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import oracle
import pytest
import torch
import torch.nn.functional as F

from animebg_core import MemoryBudgetError, load_generator, plan_run, stylize
from animebg_core.engine import device
from animebg_core.engine.device import Device, Scratch
from animebg_core.engine.kernels import Layer, torch_ops, winograd
from animebg_core.engine.plan import peak_bytes
from animebg_core.engine.schedule import Step, schedule, total_work
from animebg_core.engine.statistics import Gathering, chunk
from animebg_core.network.design import LITE, Conv, Stage
from animebg_core.network.generator import ConvWeights

CPU = torch.device("cpu")
# Two results that differ only in the order of float32 operations; seen: 4e-6.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def generator(network):
    return load_generator(network[0])


@pytest.mark.parametrize("level", ["whole", "store", "recompute"])
@pytest.mark.parametrize(("rows", "block_rows"), [(1000, 1000), (16, 4), (8, 1), (7, 3), (1, 1)])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (33, 37), (34, 38), (50, 61), (64, 16)])
def test_every_cut_equals_the_reference(generator, network, level, rows, block_rows, height, width):
    image = torch.rand(2, height, width, 3)
    plan = replace(
        plan_run(generator, height, width), level=level, rows=rows, block_rows=block_rows, batch=2
    )
    expected = oracle.stylize(network[1], image)
    assert (stylize(image, generator, plan=plan) - expected).abs().max() < ROUNDING


def test_the_fast_forms_equal_the_reference(tmp_path):
    """Wide and large enough for the Winograd form; odd sizes, strips of all kinds."""
    state = oracle.random_state((16, 96, 104), 2)
    torch.save(state, tmp_path / "wide.pth")
    generator = load_generator(tmp_path / "wide.pth")
    image = torch.rand(1, 270, 261, 3)
    expected = oracle.stylize(state, image)
    for rows, block_rows in ((64, 16), (24, 5)):
        plan = replace(plan_run(generator, 270, 261), rows=rows, block_rows=block_rows)
        assert (stylize(image, generator, plan=plan) - expected).abs().max() < 2 * ROUNDING


@pytest.mark.parametrize("level", ["whole", "store", "recompute"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_forms_for_other_devices_equal_the_reference(network, monkeypatch, level, dtype):
    """The operators' own forms, batches, computing in half: what a GPU runs, run here."""
    monkeypatch.setattr(device, "is_cpu", lambda device: False)
    generator = load_generator(network[0], dtype=dtype)
    image = torch.rand(3, 45, 38, 3)
    cut = replace(plan_run(generator, 45, 38, batch=3), level=level, rows=16, batch=2)
    assert plan_run(generator, 45, 38, batch=3).batch == 3
    mask = torch.ones(45, 38)
    expected = oracle.stylize(network[1], image)
    for painted in (
        stylize(image, generator, plan=cut),
        stylize(image, generator, plan=cut, mask=mask),
    ):
        if dtype == torch.float32:
            assert (painted - expected).abs().max() < 2 * ROUNDING
        else:
            # 10 bits of mantissa, through some ten layers; seen: 0.002.
            assert (painted - expected).square().mean().sqrt() < 0.005


@pytest.mark.parametrize(
    ("conv", "inputs", "outputs"),
    [
        (Conv(3, padding="reflect"), 96, 112),  # Winograd
        (Conv(7, padding="reflect"), 64, 3),  # few channels
        (Conv(3, stride=2, transposed=True), 24, 16),
        (Conv(3, stride=2), 8, 16),
        (Conv(7, stride=2, padding="reflect"), 3, 8),
        (Conv(3, shuffled=True), 8, 12),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [100, 6, 5])
def test_kernels_equal_the_operator(conv, inputs, outputs, bias, rows):
    high, wide = (66, 70) if inputs >= 96 else (13, 17)
    shape = (inputs, outputs) if conv.transposed else (outputs, inputs)
    weights = ConvWeights(torch.randn(*shape, conv.kernel, conv.kernel) / 30, torch.randn(outputs))
    image = torch.randn(2, inputs, high, wide)
    where = Device(CPU, torch.float32, cpu=True)
    layer = Layer(conv, weights, bias)
    kernel = winograd.make(layer, where) or torch_ops.make(layer, where)
    assert isinstance(kernel, winograd.Winograd) == (inputs >= 96)
    size = (conv.output_size(high), conv.output_size(wide))
    stage = Stage("down1", (conv,), shrink=1)
    step = Step(stage, 0, inputs, outputs // (4 if conv.shuffled else 1), 0, (high, wide), size)
    source = SimpleNamespace(height=high, width=wide, rows=lambda a, b: image[:, :, a:b])
    opened = kernel.open(source, step, None, Scratch(CPU))
    strips = [opened.rows(at, min(at + rows, size[0])).clone() for at in range(0, size[0], rows)]
    made = torch.cat(strips, 2)
    offset = weights.bias.double() if bias else None
    pad = (conv.padding_before,) * 2 + (conv.padding_after,) * 2
    mode = "reflect" if conv.padding == "reflect" else "constant"
    window = F.pad(image.double(), pad, mode=mode)
    if conv.transposed:
        expected = F.conv_transpose2d(image.double(), weights.weight.double(), offset, 2, 1, 1)
    else:
        expected = F.conv2d(window, weights.weight.double(), offset, conv.stride)
        expected = F.pixel_shuffle(expected, 2) if conv.shuffled else expected
    assert made.shape == expected.shape
    assert (made - expected).abs().max() < ROUNDING * 2


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 1.0])
def test_a_flat_picture_is_as_in_float64(generator, network, value):
    """The original is 0.1 to 0.6 off its own float64 result here."""
    image = torch.full((1, 41, 54, 3), value)
    expected = oracle.stylize(network[1], image)
    assert (stylize(image, generator) - expected).abs().max() < 2 * ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_picture_is_finite_at_every_precision(network, dtype, value):
    generator = load_generator(network[0], dtype=dtype)
    painted = stylize(torch.full((1, 32, 40, 3), value), generator)
    assert torch.isfinite(painted).all()
    # A constant map has to survive storage: 3 decimal digits in bfloat16, through some ten norms.
    exact = oracle.stylize(network[1], torch.full((1, 32, 40, 3), value))
    limit = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert (painted - exact).abs().mean() < limit


def test_moments_merge_to_those_of_the_whole():
    """By strips of any height, also where the mean is far larger than the deviation."""
    rows = torch.randn(2, 5, 40, 17) + 300 * torch.arange(5.0)[None, :, None, None]
    gathering = Gathering(4)
    for strip in rows.split([1, 20, 3, 16], 2):
        gathering.add(chunk(strip, None, Scratch(CPU)))
    merged = gathering.parts()
    exact = rows.double()
    assert torch.allclose(merged.mean, exact.mean((2, 3)), rtol=1e-6, atol=1e-6)
    variance = exact.var((2, 3), correction=0)
    assert torch.allclose(merged.m2 / merged.count, variance, rtol=1e-4)


def test_weighted_moments_see_only_what_counts():
    rows = torch.randn(1, 3, 8, 10)
    weight = (torch.rand(1, 1, 8, 10) > 0.5).float()
    rows_elsewhere = torch.where(weight > 0, rows, rows * 100 + 7)
    gathering = Gathering(3)
    for strip, counts in zip(rows_elsewhere.split(3, 2), weight.split(3, 2), strict=True):
        gathering.add(chunk(strip, counts, Scratch(CPU)))
    merged = gathering.parts()
    seen = rows[0, :, weight[0, 0] > 0].double()
    assert torch.allclose(merged.mean[0], seen.mean(1), atol=1e-5)
    assert torch.allclose(merged.m2[0] / merged.count[0], seen.var(1, correction=0), rtol=1e-4)
    assert merged.low is not None and torch.equal(merged.low[0], seen.amin(1))
    assert merged.high is not None and torch.equal(merged.high[0], seen.amax(1))


def test_progress_counts_all_work_once(generator):
    seen: list[tuple[int, int]] = []
    # The small design, here with few blocks, has too few passes to divide a single strip evenly.
    height = 80 if generator.design is LITE else 40
    stylize(torch.rand(3, height, 30, 3), generator, progress=lambda *at: seen.append(at))
    done = [at for at, _ in seen]
    total = seen[0][1]
    assert done == sorted(done)
    assert done[-1] == total == 3 * total_work(generator, height, 30, "whole")
    assert len(seen) > 3 * len(schedule(generator, height, 30, "whole")) - 1
    # So that a bar moves evenly: no single step is a large part of one image.
    assert max(b - a for a, b in zip([0, *done], done, strict=False)) < total / 3 / 5


def test_what_progress_raises_stops_the_run(generator):
    class StoppedError(Exception):
        pass

    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        stylize(torch.rand(2, 40, 30, 3), generator, progress=stop)
    assert len(calls) == 3


@pytest.mark.parametrize("level", ["whole", "store", "recompute"])
def test_a_plan_counts_every_map_that_is_held(generator, level, library_bytes):
    """Nothing of the picture's size lives at any step but what the plan says."""
    height, width = 720, 400  # so tall that no kernel's scratch memory is of its size
    chosen = replace(plan_run(generator, height, width), level=level, rows=32, block_rows=16)
    predicted = peak_bytes(generator, chosen, height, width, masked=False)
    image = torch.rand(1, height, width, 3)

    def storages() -> dict[int, int]:
        tensors = [it for it in gc.get_objects() if type(it) is torch.Tensor]
        found = [it.untyped_storage() for it in tensors if it.layout == torch.strided]
        return {storage.data_ptr(): storage.nbytes() for storage in found}

    before, seen = storages(), []

    def look(done, total):
        seen.append([size for at, size in storages().items() if at not in before])

    gc.collect()
    gc.freeze()  # or each look would go through all that other tests have left
    try:
        stylize(image, generator, plan=chosen, progress=look)
    finally:
        gc.unfreeze()
    # The result is there from the beginning, but takes memory only as it is written.
    result = image.nbytes
    peak = max(sum(sizes) for sizes in seen) - result
    predicted -= library_bytes(generator, height, width, level)
    assert peak <= predicted <= 3 * (peak + result)
    # At last there are the map that is read, the result, and parts of a strip's size.
    assert sum(size > 4 * height * width for size in seen[-1]) == 2


def test_levels_give_way_as_memory_shrinks(checkpoint):
    generator = load_generator(checkpoint)
    plan = plan_run(generator, 1200, 1600, budget=1 << 50)
    plans = [plan]
    with pytest.raises(MemoryBudgetError, match="MiB") as caught:
        while True:
            plans.append(plan := plan_run(generator, 1200, 1600, budget=plan.peak_bytes - 1))
    peaks = [plan.peak_bytes for plan in plans]
    assert peaks == sorted(peaks, reverse=True)
    assert [plans[0].level, plans[-1].level] == ["store", "recompute"]
    assert caught.value.needed == peaks[-1]
    assert caught.value.available == peaks[-1] - 1


def test_small_pictures_keep_everything_and_large_ones_do_not(checkpoint):
    generator = load_generator(checkpoint)
    assert plan_run(generator, 480, 720, budget=1 << 50).level == "whole"
    assert plan_run(generator, 2160, 3840, budget=1 << 50).level == "store"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_maps_that_come_by_strips_give_the_same_to_the_bit(network, dtype, masked):
    """As maps in main memory come to a card."""
    generator = load_generator(network[0], dtype=dtype)
    image, mask = torch.rand(1, 70, 91, 3), torch.rand(1, 70, 91) if masked else None
    for level in ("whole", "store", "recompute"):
        plan = plan_run(generator, 70, 91, masked=masked)
        plan = replace(plan, level=level, rows=16, block_rows=4)
        kept = stylize(image, generator, mask=mask, plan=plan)
        brought = stylize(image, generator, mask=mask, plan=replace(plan, on_host=True))
        assert torch.equal(kept, brought)
