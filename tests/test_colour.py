"""The photo's hue and chroma under the painting's lightness: in Oklab, in gamut."""

import pytest
import torch

from animebg_core import load_generator, stylize
from animebg_core.colour import from_oklab, mix_colours, to_oklab


def test_oklab_is_the_published_one():
    """Lightness, a and b of sRGB's primaries and of white, as published to three digits."""
    primaries = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    expected = torch.tensor(
        [[1.0, 0, 0], [0.628, 0.225, 0.126], [0.866, -0.234, 0.179], [0.452, -0.032, -0.312]]
    )
    found = to_oklab(primaries.T[None, ..., None])[0, ..., 0].T
    assert torch.allclose(found, expected, atol=1e-3)


def test_oklab_and_back_is_the_same():
    picture = torch.rand(2, 3, 40, 50)
    picture[0, :, :2] = torch.tensor([0.0, 1.0])[None, :, None]
    # A tenth of a step of 8 bits.
    assert torch.allclose(from_oklab(to_oklab(picture)), picture, atol=4e-4)


def test_one_is_the_painting_itself_and_zero_of_itself_too():
    painting, photo = torch.rand(2, 1, 3, 20, 30)
    assert mix_colours(painting, photo, 1.0) is painting
    assert torch.allclose(mix_colours(painting, painting, 0.0), painting, atol=4e-4)


@pytest.mark.parametrize("colour", [0.0, 0.3, 0.9])
def test_lightness_is_the_paintings_and_hue_the_mixtures(colour):
    # Of middling colours, all mixtures of which can be shown.
    painting, photo = torch.rand(2, 1, 3, 30, 30) * 0.2 + 0.4
    mixed = to_oklab(mix_colours(painting, photo, colour))
    lightness, *own = to_oklab(painting).unbind(1)
    wanted = to_oklab(photo).unbind(1)[1:]
    assert torch.allclose(mixed[:, 0], lightness, atol=1e-4)
    for found, mine, theirs in zip(mixed.unbind(1)[1:], own, wanted, strict=True):
        assert torch.allclose(found, torch.lerp(theirs, mine, colour), atol=1e-4)


def test_what_cannot_be_shown_loses_chroma_and_neither_lightness_nor_hue():
    painting, photo = torch.rand(2, 1, 3, 60, 60)  # of any colours: many mixtures are outside
    mixed = mix_colours(painting, photo, 0.0)
    assert mixed.min() >= 0
    assert mixed.max() <= 1
    lightness, a, b = to_oklab(mixed).unbind(1)
    wanted, wanted_a, wanted_b = to_oklab(photo).unbind(1)
    # A step of 8 bits; near black and white a step is worth more.
    assert (lightness - to_oklab(painting)[:, 0]).abs().max() < 0.01
    cross = (a * wanted_b - b * wanted_a) / torch.hypot(wanted_a, wanted_b)
    assert cross.abs().max() < 0.01
    assert (torch.hypot(a, b) <= torch.hypot(wanted_a, wanted_b) + 0.01).all()


def test_grey_black_and_white_are_finite():
    painting = torch.tensor([0.0, 1.0, 0.5, 1e-6]).expand(3, 4)[None, :, None]
    for photo in (torch.zeros_like(painting), torch.ones_like(painting), torch.rand(1, 3, 1, 4)):
        assert torch.isfinite(mix_colours(painting, photo, 0.0)).all()


@pytest.mark.parametrize("painting_size", [0, 24])
def test_colour_reaches_the_picture_at_any_painting_size(checkpoint, painting_size):
    generator = load_generator(checkpoint)
    image = torch.rand(1, 48, 40, 4).to(torch.float64)
    painting = stylize(image, generator, painting_size=painting_size)
    mixed = stylize(image, generator, painting_size=painting_size, colour=0.25)
    flat = [x[..., :3].movedim(-1, 1).float() for x in (painting, image)]
    expected = mix_colours(flat[0], flat[1], 0.25).movedim(1, -1).to(torch.float64)
    assert torch.allclose(mixed[..., :3], expected, atol=1e-5)
    assert torch.equal(mixed[..., 3], image[..., 3])
