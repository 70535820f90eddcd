"""What a graphics card gives, on one that is not there (`stand_in_card`): the CPU's result, by
tensors that lie where they should, in the memory that was planned. Speed and cuDNN it cannot show.
"""

from dataclasses import replace

import oracle
import pytest
import torch
from safetensors.torch import save_file

from animebg_core import MemoryBudgetError, gather_statistics, load_generator, plan_run, stylize
from animebg_core.engine import device as engine_device
from animebg_core.engine.plan import peak_bytes
from animebg_core.painter import Painter

pytest.importorskip("torch.utils.backend_registration")
if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch takes no backend from Python", allow_module_level=True)

from stand_in_card import CARD, OnCard, card  # noqa: E402

# Two results that differ only in the order of float32 operations, in [0, 1].
ROUNDING = 1e-5
HEIGHT, WIDTH = 70, 91


def enlarged(mask):
    """As masks come from elsewhere: of another size, hard."""
    return (torch.rand(1, 10, 12) > 0.5).float() if mask == "hard" else torch.rand(1, 70, 91)


CASES = {
    "plain": {},
    "strength": {"strength": 0.4},
    "mask": {"mask": "hard"},
    "soft mask": {"mask": "soft"},
    "small": {"painting_size": 50},
    "small, mask": {"painting_size": 50, "mask": "hard"},
    "painting": {"painting_size": 50, "detail": "painting"},
    "painting, mask": {"painting_size": 50, "detail": "painting", "mask": "soft"},
    "colour": {"painting_size": 50, "colour": 0.3},
    "statistics": {"statistics": True},
    "small, statistics": {"painting_size": 50, "statistics": True},
    "store": {"level": "store"},
    "recompute": {"level": "recompute"},
    "recompute, mask": {"level": "recompute", "mask": "hard"},
}


def painted(path, image, device, options):
    """The picture by a network there, and whatever it needs beside."""
    options = dict(options)
    if "mask" in options:
        torch.manual_seed(3)
        options["mask"] = enlarged(options["mask"])
    generator = load_generator(path, device=device)
    if options.pop("statistics", False):
        size = options.get("painting_size", 0)
        options["statistics"] = gather_statistics([image], generator, painting_size=size)
    if level := options.pop("level", None):
        plan = plan_run(generator, HEIGHT, WIDTH, batch=len(image), masked="mask" in options)
        on_host = options.pop("on_host", False)
        options["plan"] = replace(plan, level=level, rows=16, block_rows=4, on_host=on_host)
    return stylize(image, generator, **options)


@pytest.mark.parametrize(
    ("case", "there"),
    [
        *((case, False) for case in CASES),
        *((case, True) for case in ("mask", "painting, mask", "colour", "statistics")),
    ],
)
def test_the_result_is_the_one_of_the_cpu(network, case, there):
    image = torch.rand(1 if there else 2, HEIGHT, WIDTH, 3) * 0.8 + 0.1
    expected = painted(network[0], image, "cpu", CASES[case])
    with card():
        given = image.to(CARD) if there else image
        made = painted(network[0], given, CARD, CASES[case])
        assert isinstance(made, OnCard) == there and made.device == given.device
        made = made.to("cpu")
    # The cube roots of Oklab are steep where a colour is nearly black.
    assert (made - expected).abs().max() < (5e-3 if "colour" in CASES[case] else ROUNDING)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A network of half the published widths, with two blocks."""
    path = tmp_path_factory.mktemp("network") / "wide.safetensors"
    save_file(oracle.random_state((32, 64, 128), 2), path)
    return path


@pytest.mark.parametrize(
    ("level", "batch", "masked"),
    [
        ("whole", 1, False),
        ("store", 1, False),
        ("store", 2, False),
        ("recompute", 1, False),
        ("recompute", 1, True),
    ],
)
def test_tensors_take_what_was_planned(wide, monkeypatch, level, batch, masked):
    """Within 10%; what libraries take beside them is not seen here."""
    monkeypatch.setattr(
        engine_device, "_GPU_STRIP", 1 << 13
    )  # several strips of so small a picture
    height, width = 160, 240
    image, mask = torch.rand(batch, height, width, 3), torch.rand(1, height, width)
    with card() as made:
        generator = load_generator(wide, device=CARD)
        stylize(image[:, :8, :8], generator)  # kernels keep weights in their layout
        plan = plan_run(generator, height, width, batch=batch, budget=1 << 50, masked=masked)
        plan = replace(plan, level=level)
        planned = peak_bytes(generator, plan, height, width, masked=masked)
        before = made.peak = made.taken
        stylize(image, generator, mask=mask if masked else None, plan=plan)
        assert plan.batch == batch and plan.rows < height
        assert 0.95 < planned / (made.peak - before) < 1.1
        assert made.taken == before


def test_tensors_of_both_places_do_not_meet():
    """The stand-in itself: it refuses what a card would."""
    with card():
        there, here = torch.rand(3).to(CARD), torch.rand(3)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        assert torch.equal(there.to("cpu") + here, (there + here.to(CARD)).to("cpu"))


def test_where_the_card_runs_out_a_smaller_plan_paints(wide):
    """Of whose free memory nobody tells, so that the fastest plan is tried first."""
    image = torch.rand(1, 200, 160, 3)
    expected = stylize(image, load_generator(wide))
    with card() as made:
        painter = Painter(load_generator(wide, device=CARD))
        painter.paint_images(image[:, :8, :8])
        free = made.peak = made.taken
        painter.paint_images(image)
        made.total = free + (made.peak - free) * 2 // 3
        assert (painter.paint_images(image) - expected).abs().max() < ROUNDING
        assert made.taken == free and made.refused


WAYS = {"copies": "copies", "maps": "host-maps", "both": "copies,host-maps"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "case", ["plain", "mask", "small, mask", "painting", "colour", "statistics"]
)
def test_the_unmeasured_ways_give_the_same(network, monkeypatch, case, way):
    """Rows that travel beside the computing, maps in main memory: nothing is read too early."""
    monkeypatch.setenv("ANIMEBG_UNMEASURED", WAYS[way])
    options = {"level": "recompute", "on_host": way != "copies"} | CASES[case]
    image = torch.rand(1, HEIGHT, WIDTH, 3) * 0.8 + 0.1
    expected = painted(network[0], image, "cpu", CASES[case])
    with card():
        made = painted(network[0], image, CARD, options)
    assert (made - expected).abs().max() < ROUNDING


@pytest.mark.parametrize("painting_size", [0, 50])
def test_given_statistics_nobody_waits_for_what_was_given_last(
    checkpoint, monkeypatch, painting_size
):
    image = torch.rand(1, HEIGHT, WIDTH, 3)
    waits = {}
    for way in ("", "copies"):
        monkeypatch.setenv("ANIMEBG_UNMEASURED", way)
        with card() as made:
            generator = load_generator(checkpoint, device=CARD)
            given = gather_statistics([image], generator, painting_size=painting_size)
            for rows in (64, 16):
                plan = replace(plan_run(generator, HEIGHT, WIDTH), rows=rows, block_rows=4)
                made.waits.clear()
                made.stalls = 0
                options = {"statistics": given, "plan": plan, "painting_size": painting_size}
                stylize(image, generator, **options)
                waits[way, rows] = len(made.waits), made.stalls
    # However many strips there are: for the norms and the mean colour, the filters of upsampling,
    # and at the end for the last strip.
    assert waits["copies", 16] == waits["copies", 64]
    assert waits["copies", 16][0] < 10 < waits["", 16][0]
    assert waits["copies", 16][1] == 1


def test_maps_in_main_memory_take_what_was_planned(wide, monkeypatch):
    monkeypatch.setenv("ANIMEBG_UNMEASURED", "copies,host-maps")
    monkeypatch.setattr(engine_device, "_GPU_STRIP", 1 << 12)
    height, width = 320, 240
    image = torch.rand(1, height, width, 3)
    with card() as made:
        generator = load_generator(wide, device=CARD)
        stylize(image[:, :8, :8], generator)
        frugal = plan_run(generator, height, width, budget=1 << 50)
        with pytest.raises(MemoryBudgetError):
            while not frugal.on_host:
                frugal = plan_run(generator, height, width, budget=frugal.peak_bytes - 1)
            monkeypatch.setenv("ANIMEBG_UNMEASURED", "copies")
            plan_run(generator, height, width, budget=frugal.peak_bytes)
        before = made.peak = made.taken
        stylize(image, generator, plan=frugal)
        assert 0.8 < frugal.peak_bytes / (made.peak - before) < 1.4
        # However high the picture is.
        assert peak_bytes(generator, frugal, 10 * height, width, masked=False) == frugal.peak_bytes


def test_who_does_not_wait_finds_nothing():
    """The stand-in itself: what travels beside the computing is there when it was waited for."""
    with card():
        module = torch.privateuseone
        lane, here = module.Stream(CARD), torch.ones(3, pin_memory=True)
        with module.stream(lane):
            there = here.to(CARD, non_blocking=True)
        there.record_stream(module.current_stream(CARD))
        assert (there * 1).to("cpu").isnan().all()
        module.current_stream(CARD).wait_stream(lane)
        assert torch.equal((there * 1).to("cpu"), here)
