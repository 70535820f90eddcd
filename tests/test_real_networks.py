"""The real networks against the original implementation's outputs, and published pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from animebg_core import load_generator, plan_run, stylize

pytestmark = pytest.mark.weights

GOLDEN = (
    "hosoda_mamoru-4--24-320x240",
    "kon_satoshi-sjtu-255x190",
    "miyazaki_hayao-15--324-301x203",
    "shinkai_makoto-4--24-640x480",
    "shinkai_makoto-in1-256x256",
    "shinkai_makoto-sjtu-33x37",
)


def network(shared, name, **options):
    return load_generator(shared / "weights" / f"{name}.safetensors", **options)


def golden(shared, name):
    pair = load_file(shared / "golden" / f"{name}.safetensors")
    return pair["input"][None].float() / 255, pair["output"][None]


def decibels(one, other):
    return float(-10 * torch.log10((one.double() - other.double()).square().mean()))


def test_every_golden_is_tested(shared):
    assert sorted(path.stem for path in (shared / "golden").iterdir()) == list(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_parity_with_the_original(shared, name):
    image, expected = golden(shared, name)
    painted = stylize(image, network(shared, name.split("-")[0]))
    # fp32 rounding through 24 convolutions, in another order; seen: 4e-6.
    assert (painted - expected).abs().max() <= 2e-5


@pytest.mark.parametrize("name", GOLDEN[:3])
def test_every_level_equals_the_original(shared, name):
    """Odd sizes, strips that fit nothing, all the way through real networks."""
    image, expected = golden(shared, name)
    generator = network(shared, name.split("-")[0])
    plan = plan_run(generator, *image.shape[1:3])
    for level, rows, block_rows in (("store", 20, 3), ("recompute", 52, 8)):
        cut = replace(plan, level=level, rows=rows, block_rows=block_rows)
        # 1e-5 in [-1, 1] between levels, and what parity leaves.
        assert (stylize(image, generator, plan=cut) - expected).abs().max() <= 2e-5


@pytest.mark.parametrize("name", [GOLDEN[0], GOLDEN[1], GOLDEN[2], GOLDEN[4]])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 75), (torch.bfloat16, 55)])
def test_half_precision_storage(shared, name, dtype, least):
    image, expected = golden(shared, name)
    painted = stylize(image, network(shared, name.split("-")[0], dtype=dtype))
    assert decibels(painted, expected) >= least


@pytest.mark.parametrize(
    ("photo", "published", "name"),
    [
        ("4--24.jpg", "4--24_published_hosoda.jpg", "hosoda_mamoru"),
        ("15--324.jpg", "15--324_published_miyazaki.jpg", "miyazaki_hayao"),
        ("in2.png", "in2_published_miyazaki.png", "miyazaki_hayao"),
    ],
)
def test_the_published_pictures(shared, photo, published, name):
    """As the authors' script made them: 450 pixels on the longer side, bicubic."""
    with Image.open(shared / "photos" / published) as file:
        expected = torch.from_numpy(np.array(file.convert("RGB"))).float() / 255
    with Image.open(shared / "photos" / photo) as file:
        scale = 450 / max(file.size)
        size = (int(file.width * scale), int(file.height * scale))
        small = file.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    image = torch.from_numpy(np.array(small)).float()[None] / 255
    painted = stylize(image, network(shared, name))[0]
    height, width = (
        min(painted.shape[0], expected.shape[0]),
        min(painted.shape[1], expected.shape[1]),
    )
    assert abs(painted.shape[0] - expected.shape[0]) < 4  # theirs is rounded up to 4
    assert abs(painted.shape[1] - expected.shape[1]) < 4
    # They were saved with JPEG losses; seen: 29 to 35.
    assert decibels(painted[:height, :width], expected[:height, :width]) >= 29
