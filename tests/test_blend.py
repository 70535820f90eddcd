"""Networks between networks: what is mixed, what is refused, and that a part alone is itself."""

import oracle
import pytest
import torch
from safetensors.torch import save_file

from animebg_core import (
    CheckpointError,
    OptionError,
    blend_generators,
    load_generator,
    stylize,
)
from animebg_core.cli import main
from animebg_core.cli.options import style_parts


@pytest.fixture(scope="module")
def pair(network):
    """A network, and another of its shape."""
    one, other = load_generator(network[0]), load_generator(network[0])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return one, other


def test_a_part_alone_is_the_network_itself(pair):
    for amounts, expected in (((1, 0), pair[0]), ((0, 1), pair[1]), ((0, 0.3), pair[1])):
        blend = blend_generators(list(zip(pair, amounts, strict=True)))
        assert blend is not expected
        for name, tensor in expected.named_parameters():
            assert torch.equal(dict(blend.named_parameters())[name], tensor), name
    image = torch.rand(1, 24, 20, 3)
    alone = blend_generators([(pair[0], 1), (pair[1], 0)])
    assert torch.equal(stylize(image, alone), stylize(image, pair[0]))


def test_parts_are_divided_by_their_sum(pair):
    one, other = (dict(generator.named_parameters()) for generator in pair)
    for amounts in ((0.75, 0.25), (3, 1)):
        blend = blend_generators(list(zip(pair, amounts, strict=True)))
        for name, tensor in blend.named_parameters():
            assert torch.allclose(tensor, 0.75 * one[name] + 0.25 * other[name], atol=1e-6)


def test_a_chain_of_blends_is_one_blend(pair):
    third = load_generator_like(pair[0])
    half = blend_generators([(pair[0], 0.5), (pair[1], 0.5)])
    chained = blend_generators([(half, 0.8), (third, 0.2)])
    at_once = blend_generators([(pair[0], 0.4), (pair[1], 0.4), (third, 0.2)])
    for (name, a), b in zip(chained.named_parameters(), at_once.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def load_generator_like(generator):
    blend = blend_generators([(generator, 1.0)])
    with torch.no_grad():
        for parameter in blend.parameters():
            parameter.mul_(1.1)
    return blend


def test_the_ends_stay_as_they_are(pair):
    before = [parameter.clone() for parameter in pair[0].parameters()]
    blend = blend_generators([(pair[0], 1.0)])
    with torch.no_grad():
        next(blend.parameters()).zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, pair[0].parameters(), strict=True))


def test_the_type_is_the_first_ones(network):
    half = load_generator(network[0], dtype=torch.float16)
    assert blend_generators([(half, 1), (load_generator(network[0]), 1)]).dtype == torch.float16


def test_designs_do_not_mix(checkpoint, tmp_path):
    save_file(oracle.random_lite_state(), tmp_path / "lite.safetensors")
    lite = load_generator(tmp_path / "lite.safetensors")
    with pytest.raises(CheckpointError, match="Lite with Lite"):
        blend_generators([(load_generator(checkpoint), 1), (lite, 1)])


def test_what_does_not_fit_is_named(checkpoint, tmp_path):
    save_file(oracle.random_state((8, 16, 24), 2), tmp_path / "wide.safetensors")
    wide = load_generator(tmp_path / "wide.safetensors")
    with pytest.raises(CheckpointError, match=r"down2.scale is \[32\] in one and \[24\]"):
        blend_generators([(load_generator(checkpoint), 1), (wide, 1)])


@pytest.mark.parametrize(
    "amounts", [(), (0, 0), (1, -1), (float("nan"), 1), (float("inf"), 1), (1e308, 1e308)]
)
def test_bad_parts_are_refused(pair, amounts):
    with pytest.raises(OptionError):
        blend_generators(list(zip(pair, amounts, strict=False)))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("shinkai", [("shinkai", 1)]),
        ("shinkai:0.7,kon:0.3", [("shinkai", 0.7), ("kon", 0.3)]),
        ("a:3,b:1,c:0", [("a", 3), ("b", 1), ("c", 0)]),
        (r"C:\styles\mine.pth", [(r"C:\styles\mine.pth", 1)]),
        (r"C:\mine.pth:0.5,kon:0.5", [(r"C:\mine.pth", 0.5), ("kon", 0.5)]),
        ("shinkai:0.5", [("shinkai", 1)]),
    ],
)
def test_what_stands_behind_the_last_colon_is_a_weight_if_it_is_a_number(text, parts):
    assert style_parts(text) == parts


def test_a_file_may_be_named_as_a_blend_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b:1").touch()
    assert style_parts("a,b:1") == [("a,b:1", 1)]


def test_a_blend_without_weights_is_refused():
    with pytest.raises(OptionError, match="how much of kon"):
        style_parts("shinkai:0.5,kon")


def test_the_command_blends(checkpoint, tmp_path, capsys):
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    other = tmp_path / "other.safetensors"
    save_file({k: v * 1.1 for k, v in oracle.random_state().items()}, other)

    def painted(style):
        out = tmp_path / "out.png"
        status = main(
            ["stylize", str(tmp_path / "in.png"), "-o", str(out), "--style", style, "--overwrite"]
        )
        assert status == 0, capsys.readouterr().err
        return np.asarray(Image.open(out)).astype(int)

    alone, blend = painted(str(checkpoint)), painted(f"{checkpoint}:1,{other}:1")
    assert np.array_equal(painted(f"{checkpoint}:1,{other}:0"), alone)
    assert not np.array_equal(blend, alone)
