"""The training code on a tiny teacher: its beginning, that it learns, resumes, ships what loads."""

import json
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from animebg_core import STYLES, load_generator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # training/ is not installed

from training import data, distill, fit, start  # noqa: E402
from training.network import run_maps  # noqa: E402

WIDTHS = start.Widths(full=4, half=8, quarter=16, inner=8, blocks=(0, 1))


@pytest.fixture
def photos(tmp_path):
    """Eight smooth pictures, two of them held out, and their index."""
    rows = []
    for number in range(8):
        small = np.random.randint(0, 256, (6, 8, 3), np.uint8)
        picture = Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{number}.png")
        rows.append({"file": f"{number}.png", "split": "holdout" if number < 2 else "train"})
    (tmp_path / "index.json").write_text(json.dumps({"photos": rows}))
    return tmp_path


@pytest.fixture
def teacher(tmp_path):
    """A random network of the design, as a file."""
    path = tmp_path / "teacher.safetensors"
    save_file(oracle.random_state((8, 16, 32), blocks=2), path)
    return path


def run(photos, teacher, steps):
    """A run, new or resumed, of the options under test."""
    command = ["--style", "kon", "--teacher", str(teacher), "--photos", str(photos)]
    command += ["--state", str(photos / "state"), "--steps", str(steps), "--device", "cpu"]
    command += ["--variants", "6", "--sizes", "64", "96", "--pixels", "4096"]
    args = distill.parse(command)
    return distill.Run(args, distill.options_of(args, WIDTHS))


def test_variants_in_another_tone(photos):
    """Training pictures only: a share of them, bit for bit again from the same seed."""
    paths = data.photos(photos, "train")
    plain = data.variants(paths, 40, (64, 96), 4096, seed=1)
    toned = data.variants(paths, 40, (64, 96), 4096, seed=1, toned=0.5)
    assert all(variant.tone is None for variant in plain)
    assert 10 < sum(variant.tone is not None for variant in toned) < 30
    assert toned == data.variants(paths, 40, (64, 96), 4096, seed=1, toned=0.5)

    rgb = data.cut(plain[0])
    neutral = data.Tone(gamma=1.0, gains=(1.0, 1.0, 1.0), saturation=1.0)
    np.testing.assert_array_equal(data.with_tone(rgb, neutral), rgb)
    warm = data.with_tone(rgb, data.Tone(gamma=0.8, gains=(1.1, 1.0, 0.9), saturation=0.0))
    assert warm.dtype == np.uint8
    assert warm.shape == rgb.shape
    assert (warm.max(axis=2) == warm.min(axis=2)).all()  # no saturation: grey
    assert warm.mean() > rgb.mean()


def test_nothing_is_lost_where_nothing_is_reduced(teacher):
    """At the teacher's own widths the start paints the teacher's picture."""
    network = load_generator(teacher)
    tensors = dict(network.named_parameters())
    image = torch.rand(1, 3, 64, 80) * 2 - 1
    found = start.moments(network.stages, tensors, [image])
    same = start.Widths(full=8, half=16, quarter=32, inner=32, blocks=(0, 1))
    begun = start.reduced(tensors, found, same).tensors
    pair = [
        run_maps(network.stages, every, image, torch.float32)["output"]
        for every in (tensors, begun)
    ]
    # The small maps' borders differ: zero padding there stands for the mean, not for zero.
    inner = [picture[:, :, 24:-24, 24:-24] for picture in pair]
    assert (inner[0] - inner[1]).abs().mean() < 0.2 * inner[0].std()


def test_rows_and_weights_are_inverse():
    for stage in start.stage_table(1):
        for conv in stage.convs:
            weight = torch.randn(5, 7, conv.kernel, conv.kernel)
            rows = fit.as_rows(weight, conv)
            channels = 5 if conv.transposed else 7
            assert torch.equal(fit.from_rows(rows, conv, channels), weight)


def test_patches_times_rows_is_the_convolution():
    x = torch.randn(1, 7, 12, 16)
    for stage in start.stage_table(1):
        for conv in stage.convs:
            shape = (7, 5) if conv.transposed else (5, 7)
            weight = torch.randn(*shape, conv.kernel, conv.kernel)
            wanted = fit.convolve(x, conv, weight, torch.zeros(5))
            made = fit.as_rows(weight, conv) @ fit.patches(x, conv)
            torch.testing.assert_close(made.view(wanted.shape), wanted, rtol=0, atol=1e-4)


def test_it_learns_resumes_and_ships(photos, teacher):
    first = run(photos, teacher, steps=8)
    before = first.held_out_psnr()
    first.train(look_every=4, save_seconds=1e9)
    second = run(photos, teacher, steps=24)
    assert second.step == 8
    torch.testing.assert_close(second.average, first.average)
    second.train(look_every=8, save_seconds=1e9)
    assert second.held_out_psnr() > before
    path = photos / "small.safetensors"
    second.export(path)
    assert load_generator(path).channels["block1b"] == WIDTHS.quarter
    with safe_open(path, "pt") as file:
        assert file.metadata()["teacher_sha256"] == STYLES["kon"].sha256
