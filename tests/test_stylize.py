"""`stylize` as a caller meets it: shapes, dtypes, strength, masks, alpha, and what it refuses."""

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
import torch

from animebg_core import (
    ImageError,
    MaskError,
    OptionError,
    gather_statistics,
    load_generator,
    stylize,
)
from animebg_core.images import to_image, to_network
from animebg_core.masks import check_strength, fit_mask


@pytest.fixture(scope="module")
def generator(network):
    return load_generator(network[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (3, 4), (4, 4), (5, 5), (6, 31), (17, 2)])
def test_any_size_comes_back(generator, size):
    painted = stylize(torch.rand(1, *size, 3), generator)
    assert painted.shape == (1, *size, 3)
    assert torch.isfinite(painted).all()
    assert painted.min() >= 0
    assert painted.max() <= 1


def test_a_tiny_picture_is_extended_by_reflection(generator, network):
    image = torch.rand(1, 3, 8, 3)
    mirrored = torch.cat([image, image[:, 1:2], image[:, 0:1]], 1)
    expected = oracle.stylize(network[1], mirrored)[:, :3]
    assert (stylize(image, generator) - expected).abs().max() < 1e-5


def test_channel_order_and_range():
    image = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    assert to_network(image).flatten().tolist() == [-1.0, 0.0, 1.0]
    image = torch.rand(2, 4, 5, 3)
    assert torch.allclose(to_image(to_network(image)), image, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_comes_back_and_the_input_stays(generator, dtype):
    image = torch.rand(2, 20, 24, 4).to(dtype)
    before = image.clone()
    painted = stylize(image, generator)
    assert painted.dtype == dtype
    assert painted.shape == image.shape
    assert torch.equal(image, before)
    assert torch.equal(painted[..., 3], image[..., 3])
    assert not torch.equal(painted[..., :3], image[..., :3])


def test_a_view_is_fine(generator):
    image = torch.rand(1, 3, 40, 30)
    view = image.permute(0, 2, 3, 1)[:, ::2]
    # Sums over another layout are added up in another order.
    assert torch.allclose(
        stylize(view, generator), stylize(view.contiguous(), generator), atol=1e-5
    )


def test_strength_mixes(generator):
    image = torch.rand(1, 24, 20, 3)
    full = stylize(image, generator)
    assert torch.equal(stylize(image, generator, strength=0), image)
    half = stylize(image, generator, strength=0.5)
    assert torch.allclose(half, (image + full) / 2, atol=1e-6)


def test_an_empty_mask_returns_the_input_and_runs_nothing(generator):
    image = torch.rand(2, 24, 20, 4)

    def never(done, total):
        raise AssertionError("the network ran")

    painted = stylize(image, generator, mask=torch.zeros(64, 64), progress=never)
    assert torch.equal(painted, image)
    assert painted.data_ptr() != image.data_ptr()


def test_a_full_mask_is_no_mask(generator):
    image = torch.rand(1, 33, 27, 3)
    # The weighted sums are added up in another order.
    masked = stylize(image, generator, mask=torch.ones(1, 33, 27))
    assert torch.allclose(masked, stylize(image, generator), atol=1e-5)


@pytest.mark.parametrize("shape", [(48, 40), (1, 48, 40), (2, 48, 40), (24, 20), (1, 96, 80)])
def test_outside_the_mask_the_input_comes_back_exactly(generator, shape):
    image = torch.rand(2, 48, 40, 3)
    mask = torch.zeros(shape)
    mask[..., : shape[-2] // 2, :] = 1
    painted = stylize(image, generator, mask=mask)
    # A mask that is resized bilinearly reaches over its edge by less than one of its own pixels.
    assert torch.equal(painted[:, 27:], image[:, 27:])
    assert (painted[:, :21] - image[:, :21]).abs().mean() > 0.05


def test_masks_repeat_over_a_longer_batch(generator):
    image = torch.rand(3, 24, 20, 3)
    masks = torch.stack([torch.ones(24, 20), torch.zeros(24, 20)])
    painted = stylize(image, generator, mask=masks)
    assert torch.equal(painted[1], image[1])
    third = stylize(image[2:], generator, mask=masks[:1])
    assert torch.equal(painted[2:], third)


def test_what_lies_outside_the_mask_does_not_matter(generator):
    image = torch.rand(2, 96, 64, 3)
    image[1, :48] = image[0, :48]
    image[1, 48:] = 1
    mask = torch.zeros(96, 64)
    mask[:40] = 1
    mask[40:48] = 0.5
    painted = stylize(image, generator, mask=mask)
    assert torch.equal(painted[0, :48], painted[1, :48])
    plain = stylize(image, generator)
    assert not torch.allclose(plain[0, :24], plain[1, :24], atol=0.01)


def test_the_norms_see_only_what_is_painted(checkpoint):
    """Masked statistics, against the reference run on the painted part alone.

    Far from the mask's edge the two differ only by the rows near it that the statistics see, and
    are close; with statistics of the whole picture they are not.
    """
    generator = load_generator(checkpoint)
    image = torch.rand(1, 256, 64, 3)
    image[:, 192:] = image[:, 192:] * 0.02 + 0.9
    mask = torch.zeros(256, 64)
    mask[:192] = 1
    alone = oracle.stylize(oracle.random_state(), image[:, :192])[:, :128]

    def away(painted):
        return (painted[:, :128] - alone).square().mean().sqrt()

    assert away(stylize(image, generator, mask=mask)) < away(stylize(image, generator)) / 3


def test_a_mask_of_a_few_pixels_gives_finite_results(generator):
    image = torch.rand(1, 64, 64, 3)
    image[:, :40] = 0.25
    for box in (slice(10, 11), slice(4, 36)):  # one pixel; a flat area in a busy picture
        mask = torch.zeros(64, 64)
        mask[box, box] = 1
        painted = stylize(image, generator, mask=mask)
        assert torch.isfinite(painted).all()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (torch.rand(8, 8, 3), "3 dimensions"),
        (torch.rand(1, 3, 8, 8), "channels last"),
        (torch.rand(1, 8, 8, 1), "got 1"),
        (torch.rand(1, 0, 8, 3), "no pixels"),
        (torch.rand(0, 8, 8, 3), "no pixels"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "uint8"),
        (torch.full((1, 8, 8, 3), math.nan), "NaN"),
        (torch.full((1, 8, 8, 3), math.inf), "NaN or infinite"),
        ([[1.0]], "list"),
        (torch.rand(1, 8, 8, 3).to(torch.float8_e4m3fn), "convert it to float32"),
        (torch.rand(1, 8, 8, 3).to_sparse(), "dense"),
        (torch.rand(1, 8, 8, 3).to("meta"), "holds its values"),
        (torch.nested.nested_tensor([torch.rand(8, 8, 3)]), "dense"),
    ],
)
def test_bad_images_are_refused(generator, image, text):
    with pytest.raises(ImageError, match=text):
        stylize(image, generator)


def test_a_tensor_that_is_negated_when_read_is_an_image(generator):
    image = torch.rand(1, 8, 8, 3)
    lazy = torch.complex(image, -image).conj().imag
    assert lazy.is_neg()
    assert torch.equal(stylize(lazy, generator), stylize(image, generator))


@pytest.mark.parametrize("style", ["shinkai", None, torch.nn.Linear(2, 2)])
def test_what_is_no_generator_is_told_so(style):
    with pytest.raises(OptionError, match="load_generator"):
        stylize(torch.rand(1, 8, 8, 3), style)
    with pytest.raises(OptionError, match="load_generator"):
        gather_statistics([torch.rand(1, 8, 8, 3)], style)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(8),
        torch.ones(1, 1, 8, 8),
        torch.ones(0, 8),
        torch.full((8, 8), math.nan),
        torch.ones(8, 8).to_sparse(),
        torch.ones(8, 8).to("meta"),
        "mask",
    ],
)
def test_bad_masks_are_refused(generator, mask):
    with pytest.raises(MaskError):
        stylize(torch.rand(1, 8, 8, 3), generator, mask=mask)


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan, math.inf, None, "1", True])
def test_bad_strengths_are_refused(generator, strength):
    with pytest.raises(OptionError, match="0 .* to 1"):
        stylize(torch.rand(1, 8, 8, 3), generator, strength=strength)


# --- Masks that are no [B, H, W], and numbers that are no Python float ---


def top_half(*shape):
    mask = torch.zeros(shape)
    mask[: shape[0] // 2] = 1
    return mask


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mask_with_channels_is_the_picture_that_it_is(channels):
    image = torch.rand(1, 12, 20, 3)
    wanted = fit_mask(top_half(12, 20), image)
    mask = top_half(12, 20, channels)
    assert torch.equal(fit_mask(mask, image), wanted)
    assert torch.equal(fit_mask(mask, image.expand(3, -1, -1, -1)), wanted.expand(3, -1, -1))


def test_masks_for_a_narrow_image_are_masks():
    mask = torch.rand(2, 12, 3)
    assert torch.equal(fit_mask(mask, torch.rand(2, 12, 3, 3)), mask)
    assert fit_mask(torch.rand(1, 12, 1), torch.rand(4, 30, 30, 3)).shape == (4, 30, 30)


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        (torch.rand(12, 20, 3), (1, 12, 20, 3)),  # coloured
        (torch.rand(12, 20, 2), (1, 12, 20, 3)),  # grey and alpha
        (torch.rand(12, 20, 5), (2, 12, 20, 3)),
        (torch.rand(12, 20, 1), (12, 12, 20, 3)),  # 12 masks for 12 images, or one
        (torch.rand(7, 9, 3), (1, 12, 20, 3)),  # of another size: nothing tells
        (torch.rand(1, 12, 20, 1), (1, 12, 20, 3)),
    ],
)
def test_a_mask_that_may_be_two_things_is_refused(mask, image):
    with pytest.raises(MaskError):
        fit_mask(mask, torch.rand(image))


@pytest.mark.parametrize("value", [np.float32(1), np.float64(0.5), np.int64(1), Fraction(1, 2), 0])
def test_any_real_number_is_a_strength(value):
    assert check_strength(value) == float(value)


def test_any_whole_number_is_a_painting_size(generator):
    image = torch.rand(1, 12, 20, 3)
    wanted = stylize(image, generator, painting_size=10)
    assert torch.equal(stylize(image, generator, painting_size=np.int64(10)), wanted)
    for value in (10.0, np.float32(10), "10", True, -1, None):
        with pytest.raises(OptionError, match="painting_size"):
            stylize(image, generator, painting_size=value)


@pytest.mark.parametrize("value", [True, np.bool_(True), "1", None, np.float32("nan"), 1j])
def test_what_is_no_real_number_is_no_strength(value):
    with pytest.raises(OptionError):
        check_strength(value)


def test_a_pixel_between_zeros_of_an_enlarged_mask_is_zero():
    """Or machines that round differently would paint different pixels."""
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    for width in range(5, 400):
        fitted = fit_mask(mask, torch.rand(1, 3, width, 3))
        assert not ((fitted > 0) & (fitted < 1e-5)).any()
    assert (fit_mask(torch.tensor([[1e-7, 0.0]]), torch.rand(1, 1, 4, 3)) == 0).all()
