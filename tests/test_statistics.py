"""Statistics as a value: gathered together, saved, given; and stylize in any mode of torch."""

import threading

import oracle
import pytest
import torch

from animebg_core import OptionError, Statistics, gather_statistics, load_generator, stylize
from animebg_core.engine.device import Scratch
from animebg_core.engine.statistics import chunk

# Two results that differ only in the order of float32 operations; seen: 4e-6.
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def generator(network):
    return load_generator(network[0])


def test_a_pictures_own_statistics_change_nothing(generator):
    image = torch.rand(1, 45, 52, 3)
    own = gather_statistics([image], generator)
    assert (
        stylize(image, generator, statistics=own) - stylize(image, generator)
    ).abs().max() < ROUNDING


def test_statistics_of_a_picture_twice_are_those_of_it_once(generator):
    image = torch.rand(1, 45, 52, 3)
    once, twice = (
        gather_statistics([image], generator),
        gather_statistics([image, image], generator),
    )
    painted = [stylize(image, generator, statistics=found) for found in (once, twice)]
    assert (painted[0] - painted[1]).abs().max() < ROUNDING


def test_several_pictures_count_as_one(network, generator, monkeypatch):
    """Against the reference, with norms over both pictures at once: not each by itself."""
    pair = torch.rand(2, 44, 52, 3)
    pair[1] = pair[1] * 0.3 + 0.6

    def norm(x, scale, shift):
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = x.var((0, 2, 3), correction=0, keepdim=True)
        normed = (x - mean) / (variance + 1e-9).sqrt()
        return normed * scale[None, :, None, None] + shift[None, :, None, None]

    monkeypatch.setattr(oracle, "norm", norm)
    expected = oracle.stylize(network[1], pair)
    shared = gather_statistics([pair[:1], pair[1:]], generator)
    painted = stylize(pair, generator, statistics=shared)
    assert (painted - expected).abs().max() < ROUNDING
    assert (stylize(pair, generator) - expected).abs().max() > 100 * ROUNDING


def test_pictures_of_different_sizes_are_weighted_by_their_pixels(generator):
    """A picture beside a hundredth of itself: nearly its own statistics; the order is nothing."""
    large, small = torch.rand(1, 160, 200, 3), torch.rand(1, 16, 20, 3)
    one = gather_statistics([large, small], generator)
    other = gather_statistics([small, large], generator)
    for name, moments in one.moments.items():
        assert torch.allclose(moments.mean, other.moments[name].mean, rtol=1e-4, atol=1e-5)
    counted = next(iter(one.moments.values())).count
    alone = [gather_statistics([it], generator) for it in (large, small)]
    assert counted == sum(next(iter(it.moments.values())).count for it in alone)


def test_saved_statistics_come_back_to_the_bit(generator, tmp_path):
    shared = gather_statistics([torch.rand(1, 30, 40, 3)], generator)
    shared.save(tmp_path / "shot.safetensors")
    again = Statistics.load(tmp_path / "shot.safetensors")
    assert torch.equal(again.colour, shared.colour)
    assert list(again.moments) == list(shared.moments) or set(again.moments) == set(shared.moments)
    image = torch.rand(1, 30, 40, 3)
    painted = [stylize(image, generator, statistics=found) for found in (shared, again)]
    assert torch.equal(*painted)


def test_statistics_of_another_network_are_refused(generator, checkpoint):
    shared = gather_statistics([torch.rand(1, 30, 40, 3)], generator)
    wrong = Statistics(shared.colour, dict(list(shared.moments.items())[:-1]))
    with pytest.raises(OptionError, match="another network"):
        stylize(torch.rand(1, 30, 40, 3), generator, statistics=wrong)


def test_progress_of_a_run_with_given_statistics_ends_at_its_total(generator):
    image, seen = torch.rand(1, 60, 40, 3), []
    shared = gather_statistics([image], generator, progress=lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1]
    seen.clear()
    stylize(image, generator, statistics=shared, progress=lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1] == max(done for done, _ in seen)


def test_the_result_is_an_ordinary_tensor(generator):
    painted = stylize(torch.rand(1, 12, 16, 3), generator)
    assert not painted.is_inference() and not painted.requires_grad
    painted.mul_(255)
    painted.requires_grad_(True).sum().backward()


@pytest.mark.parametrize("mode", ["inference", "no_grad", "autocast", "dtype", "device", "grad"])
def test_whatever_the_caller_has_switched_on_the_result_is_the_same(generator, mode):
    image, mask = torch.rand(1, 33, 37, 3), (torch.rand(33, 37) > 0.3).float()
    expected = stylize(image, generator), stylize(image, generator, mask=mask)

    def check():
        given = image.clone().requires_grad_(mode == "grad")
        for painted, wanted in zip(
            (stylize(given, generator), stylize(given, generator, mask=mask)), expected, strict=True
        ):
            assert painted.dtype == torch.float32 and painted.device == image.device
            assert not painted.is_inference() and not painted.requires_grad
            assert torch.equal(painted, wanted)

    if mode == "inference":
        with torch.inference_mode():
            check()
    elif mode == "no_grad":
        with torch.no_grad():
            check()
    elif mode == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            check()
    elif mode == "dtype":
        torch.set_default_dtype(torch.float64)
        try:
            check()
        finally:
            torch.set_default_dtype(torch.float32)
    elif mode == "device":
        torch.set_default_device("meta")
        try:
            check()
        finally:
            torch.set_default_device(None)
    else:
        check()


def test_threads_paint_side_by_side(generator):
    images = [torch.rand(1, 40 + 8 * at, 44, 3) for at in range(4)]
    expected = [stylize(image, generator) for image in images]
    painted = [None] * 4

    def work(at):
        painted[at] = stylize(images[at], generator)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(*pair) for pair in zip(painted, expected, strict=True))


@pytest.mark.parametrize("painting_size", [0, 40])
def test_under_a_mask_they_are_those_of_what_it_paints(generator, painting_size):
    image, mask = torch.rand(1, 60, 80, 3), torch.zeros(60, 80)
    mask[10:50, 20:70] = 1
    mask[20, :] = 0.5
    options = {"painting_size": painting_size}
    shared = gather_statistics([image], generator, masks=[mask], **options)
    own = stylize(image, generator, mask=mask, **options)
    # Sums of moments in another order.
    assert (
        stylize(image, generator, mask=mask, statistics=shared, **options) - own
    ).abs().max() < 1e-4
    # A picture that is left out counts for nothing, unless all are.
    empty = torch.zeros(1, 1)
    with_empty = gather_statistics(
        [image, torch.rand(1, 30, 40, 3)], generator, masks=[mask, empty], **options
    )
    for name, moments in shared.moments.items():
        assert torch.equal(moments.mean, with_empty.moments[name].mean)
    all_left_out = gather_statistics([image], generator, masks=[empty], **options)
    whole = gather_statistics([image], generator, **options)
    assert torch.equal(all_left_out.colour, whole.colour)


def test_half_a_pixel_is_covered_however_it_is_rounded():
    rows = torch.rand(1, 4, 5, 6)
    found = [
        chunk(rows, torch.full((1, 1, 5, 6), 0.5 + error), Scratch(torch.device("cpu")))
        for error in (-1e-6, 0, 1e-6)
    ]
    for part in found:
        assert torch.equal(part.low, rows.amin((2, 3))), "not counted"
        assert torch.equal(part.high, rows.amax((2, 3))), "not counted"
