"""The painting at a size of its own, brought back along the photo's edges; its colours."""

import oracle
import pytest
import torch
import torch.nn.functional as F

from animebg_core import OptionError, Painter, load_generator, plan_run, stylize
from animebg_core.painter import image_of
from animebg_core.upsampling import fit, painted_size, shrink, upsample


@pytest.fixture(scope="module")
def generator(network):
    return load_generator(network[0])


def picture(batch=1, height=96, width=72, channels=3):
    """Smooth shapes with edges between them, as photos have; some noise."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 5, width), indexing="ij")
    waves = torch.stack([torch.sin(x + k) * torch.cos(y - k) for k in range(channels)], -1)
    image = (waves > 0.2) * 0.5 + waves.abs() * 0.3 + torch.rand(height, width, channels) * 0.02
    return (image[None] * torch.linspace(0.7, 1, batch).view(-1, 1, 1, 1)).clamp(0, 1)


@pytest.mark.parametrize("size", [0, 96, 97, 4000])
def test_a_painting_size_of_the_pictures_own_or_more_changes_nothing(generator, size):
    image = picture()
    expected = stylize(image, generator)
    assert torch.equal(stylize(image, generator, painting_size=size), expected)
    assert torch.equal(stylize(image, generator, painting_size=size, detail="painting"), expected)


@pytest.mark.parametrize(
    ("own", "wanted", "size"),
    [
        ((3000, 4000), 1280, (960, 1280)),
        ((4000, 3000), 1280, (1280, 960)),
        ((3000, 4000), 0, (3000, 4000)),
        ((3000, 4000), 4000, (3000, 4000)),
        ((1, 4000), 10, (1, 10)),
        ((5, 7), 1, (1, 1)),
    ],
)
def test_the_painting_size_is_of_the_longer_side(own, wanted, size):
    assert painted_size(*own, wanted) == size


@pytest.mark.parametrize("detail", ["photo", "painting"])
@pytest.mark.parametrize("size", [1, 2, 5, 31, 95])
def test_any_painting_size_comes_back_at_the_pictures_own(generator, size, detail):
    image = picture(height=33, width=96)
    painted = stylize(image, generator, painting_size=size, detail=detail)
    assert painted.shape == image.shape
    assert torch.isfinite(painted).all()
    assert painted.min() >= 0
    assert painted.max() <= 1


def test_the_preview_is_the_painting_of_the_smaller_picture(generator):
    image = picture()
    seen = []
    stylize(image, generator, painting_size=48, preview=seen.append)
    small = F.interpolate(image.movedim(-1, 1), (48, 36), mode="bilinear", antialias=True)
    expected = stylize(small.movedim(1, -1), generator)
    # The mean colour of a picture in another layout is added up in another order.
    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_shrunk_again_it_is_the_small_painting():
    """Faithful: no other palette, whatever the guide. 30 dB; plain enlargement has some 45."""
    painting, guide = (picture(height=h, width=w).movedim(-1, 1) for h, w in ((64, 48), (256, 192)))
    painting = 1 - painting.roll(1, 1)
    result = brought_up(guide, painting)
    error = F.avg_pool2d(result, 4) - painting
    assert error.square().mean() < 1e-3


def brought_up(guide, painting, rows=64):
    height, width = guide.shape[2:]
    small = shrink(lambda a, b: guide[:, :, a:b], height, width, painting.shape[2:])
    square = guide.square().mean(1, keepdim=True)
    square = shrink(lambda a, b: square[:, :, a:b], height, width, painting.shape[2:])
    spread = (square - small.square().mean(1, keepdim=True)).clamp_min(0)
    maps = fit(small, painting, spread)
    parts = [
        upsample(maps, guide[:, :, at : at + rows], at, height) for at in range(0, height, rows)
    ]
    return torch.cat(parts, 2)


def test_strips_of_any_height_give_the_same():
    guide, painting = picture(height=150, width=90).movedim(-1, 1), torch.rand(1, 3, 50, 30)
    whole = brought_up(guide, painting, rows=150)
    for rows in (1, 7, 64):
        assert torch.equal(brought_up(guide, painting, rows), whole)

    def read(start, stop):
        return guide[:, :, start:stop]

    expected = shrink(read, 150, 90, (50, 30), rows=150)
    for rows in (1, 7, 64):
        assert torch.equal(shrink(read, 150, 90, (50, 30), rows=rows), expected)


@pytest.mark.parametrize("scale", [2, 3, 7])
@pytest.mark.parametrize("noise", [0, 0.02])
def test_beside_an_edge_nothing_leaves_the_paintings_own_range(scale, noise):
    """Overshoot: at most 2% of the step beyond the 5 x 5 small pixels around."""
    height, width = 40 * scale, 44 * scale
    guide = torch.full((1, 3, height, width), 0.3)
    guide[..., width // 2 + scale // 2 :] = 0.7
    guide[..., width // 4 : width // 4 + 1] = 1.0  # a thin bright line before a plain ground
    guide = (guide + torch.randn_like(guide) * noise).clamp(0, 1)
    painting = F.avg_pool2d(guide, scale).flip(1) * 0.5 + 0.2
    result = brought_up(guide, painting)
    most = F.interpolate(F.max_pool2d(painting, 5, 1, 2), scale_factor=scale, mode="nearest")
    least = F.interpolate(-F.max_pool2d(-painting, 5, 1, 2), scale_factor=scale, mode="nearest")
    step = 0.2
    assert (result - most).max() <= 0.02 * step
    assert (least - result).max() <= 0.02 * step


def test_an_edge_of_the_photo_is_an_edge_of_the_result():
    """Not smeared over the pixels of the small size, as plain enlargement leaves it."""
    guide = torch.full((1, 3, 160, 160), 0.3)
    guide[..., 82:] = 0.7
    painting = F.avg_pool2d(guide, 4) * torch.tensor([1.0, 0.5, 0.8]).view(3, 1, 1)
    result = brought_up(guide, painting)
    plain = F.interpolate(painting, (160, 160), mode="bilinear")

    def steepest(rows):
        return rows.diff(dim=3).abs().amax(3).mean()

    assert steepest(result) > 2.5 * steepest(plain)


def test_noise_of_the_photo_is_no_grain_of_the_result():
    guide = torch.full((1, 3, 192, 192), 0.5)
    guide[..., 96:] = 0.52  # a soft thing, that a fit would otherwise take for an edge
    guide = (guide + torch.randn_like(guide) * 0.03).clamp(0, 1)
    painting = F.avg_pool2d(guide, 4)
    painting = F.avg_pool2d(painting, 3, 1, 1, count_include_pad=False)
    result = brought_up(guide, painting)

    def deviation(rows, size):
        mean = F.avg_pool2d(rows, size, size)
        return (F.avg_pool2d(rows.square(), size, size) - mean.square()).clamp_min(0).mean().sqrt()

    assert deviation(result, 20) <= deviation(painting, 5) * 1.1


@pytest.mark.parametrize("detail", ["photo", "painting"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_alpha_come_back_and_the_input_stays(generator, dtype, detail):
    image = picture(2, 48, 40, 4).to(dtype)
    before = image.clone()
    painted = stylize(image, generator, painting_size=24, detail=detail)
    assert painted.dtype == dtype
    assert torch.equal(image, before)
    assert torch.equal(painted[..., 3], image[..., 3])
    assert not torch.equal(painted[..., :3], image[..., :3])


@pytest.mark.parametrize("detail", ["photo", "painting"])
def test_a_batch_is_its_pictures(generator, detail):
    image = picture(3)
    painted = stylize(image, generator, painting_size=40, detail=detail)
    for index in range(3):
        alone = stylize(image[index : index + 1], generator, painting_size=40, detail=detail)
        assert torch.equal(painted[index : index + 1], alone)


def test_a_batch_painted_together_is_its_pictures(generator):
    """As on a GPU. Sums over two pictures may be added up in another order."""
    from dataclasses import replace

    image = picture(3)
    masks = torch.ones(3, 96, 72)
    masks[1] = 0  # so that the pictures painted together are no slice
    plan = replace(plan_run(generator, 40, 30), batch=2)
    for detail in ("photo", "painting"):
        options = {"painting_size": 40, "mask": masks, "detail": detail}
        painted = stylize(image, generator, plan=plan, **options)
        assert torch.allclose(painted, stylize(image, generator, **options), atol=1e-4)
        assert torch.equal(painted[1], image[1])
        assert not torch.equal(painted[0], image[0])


@pytest.mark.parametrize("detail", ["photo", "painting"])
def test_strength_mixes_at_full_size(generator, detail):
    image = picture()
    full = stylize(image, generator, painting_size=40, detail=detail)
    half = stylize(image, generator, painting_size=40, detail=detail, strength=0.5)
    assert torch.allclose(half, (image + full) / 2, atol=1e-6)
    assert torch.equal(stylize(image, generator, painting_size=40, strength=0), image)


@pytest.mark.parametrize("detail", ["photo", "painting"])
def test_what_lies_outside_the_mask_neither_changes_nor_matters(generator, detail):
    image = picture(2)
    image[1, :48] = image[0, :48]
    image[1, 48:] = 1
    mask = torch.zeros(96, 72)
    mask[:40] = 1
    mask[40:48] = 0.5
    painted = stylize(image, generator, mask=mask, painting_size=37, detail=detail)
    assert torch.equal(painted[:, 48:], image[:, 48:])
    assert torch.equal(painted[0, :48], painted[1, :48])
    assert (painted[:, :40] - image[:, :40]).abs().mean() > 0.02


def test_a_full_mask_is_no_mask(generator):
    image = picture()
    masked = stylize(image, generator, mask=torch.ones(1, 1, 1), painting_size=40)
    # The weighted sums are added up in another order, and a fit enlarges that.
    assert torch.allclose(masked, stylize(image, generator, painting_size=40), atol=1e-3)


@pytest.mark.parametrize("detail", ["photo", "painting"])
def test_progress_adds_up_and_can_stop_anywhere(generator, detail):
    image = picture(2)
    calls = []
    options = {"painting_size": 40, "detail": detail}
    stylize(image, generator, progress=lambda *call: calls.append(call), **options)
    done, total = zip(*calls, strict=True)
    assert len(set(total)) == 1
    assert done[-1] == total[0]
    assert list(done) == sorted(done)

    for stop_at in (0, len(calls) // 2, len(calls) - 1):

        def stop(done, total, wanted=calls[stop_at]):
            if (done, total) == wanted:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stylize(image, generator, progress=stop, **options)


@pytest.mark.parametrize("channels", [3, 4])
def test_bytes_are_painted_as_floats_are(generator, channels):
    pixels = (picture(channels=channels)[0] * 255).round().to(torch.uint8).numpy()
    painter = Painter(generator, painting_size=40, colour=0.5, strength=0.75)
    painted = painter.paint(pixels)
    floats = painter.paint_images(image_of(pixels))[0]
    assert painted.dtype == pixels.dtype
    assert torch.equal(torch.from_numpy(painted), (floats * 255).round().to(torch.uint8))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_pixels_of_either_kind_come_back_in_kind(generator, dtype):
    pixels = (picture()[0].numpy() * (255 if dtype == "uint8" else 65535)).astype(dtype)
    for detail in ("photo", "painting"):
        painter = Painter(generator, painting_size=40, detail=detail)
        painted = painter.paint(pixels)
        assert painted.shape == pixels.shape
        assert painted.dtype == pixels.dtype


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"painting_size": -1}, "painting_size"),
        ({"painting_size": 1.5}, "painting_size"),
        ({"painting_size": True}, "painting_size"),
        ({"detail": "both"}, "photo, painting"),
        ({"colour": -0.1}, "colour"),
        ({"colour": 1.1}, "colour"),
        ({"colour": None}, "colour"),
    ],
)
def test_bad_options_are_refused(generator, options, text):
    with pytest.raises(OptionError, match=text):
        stylize(torch.rand(1, 8, 8, 3), generator, **options)


def test_the_reference_paints_the_small_picture(network):
    """The network sees what the published one would be given: an independent oracle says so."""
    image, seen = picture(), []
    stylize(image, load_generator(network[0]), painting_size=48, preview=seen.append)
    small = F.interpolate(image.movedim(-1, 1), (48, 36), mode="bilinear", antialias=True)
    expected = oracle.stylize(network[1], small.movedim(1, -1))[:, :48, :36]
    assert (seen[0] - expected).abs().max() < 1e-4
