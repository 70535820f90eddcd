"""The training code on tiny teachers: its lessons, that it learns, resumes, ships what loads."""

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

from animebg_core import STYLES, load_generator, stylize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # training/ is not installed

from training import data, distill, evaluate, gather, optimizer, teach  # noqa: E402
from training.network import run_maps  # noqa: E402


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Eight smooth pictures, two of them held out, and their index; small windows."""
    monkeypatch.setattr(data, "_WINDOWS", (((48, 32), (64, 96)),))
    rows = []
    for number in range(8):
        small = np.random.randint(0, 256, (6, 8, 3), np.uint8)
        picture = Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{number}.png")
        rows.append({"file": f"{number}.png", "split": "holdout" if number < 2 else "train"})
    (tmp_path / "index.json").write_text(json.dumps({"photos": rows}))
    return tmp_path


@pytest.fixture
def teachers(tmp_path):
    """Four random networks of the published design, as files under the published names."""
    folder = tmp_path / "teachers"
    folder.mkdir()
    for seed, style in enumerate(STYLES.values()):
        state = oracle.random_state((4, 8, teach.DIRECTIONS), blocks=8, seed=seed)
        save_file(state, folder / Path(style.file).with_suffix(".safetensors").name)
    return folder


@pytest.fixture
def lessons(photos, teachers):
    """Eight lessons, painted."""
    found = teach.Lessons(photos / "lessons")
    plan = teach.plan_lessons(photos, 8, seed=1)
    teach.teach(teach.load_teachers(teachers), plan, found, show=False)
    return found


def run(photos, *options, widths=(0, 4, 8, 8, 2)):
    """A run, new or resumed."""
    command = ["--teachers", str(photos / "teachers"), "--lessons", str(photos / "lessons")]
    command += ["--photos", str(photos), "--published", str(photos / "published")]
    command += ["--every", "1", "--widths", *map(str, widths), *options]
    args = distill.parse(command)
    return distill.Run(args, distill.options_of(args))


def test_variants_are_the_same_from_the_same_seed(photos):
    """Training pictures only; half of them in another tone."""
    paths = data.photos(photos, "train")
    found = data.variants(paths, 40, seed=1)
    assert found == data.variants(paths, 40, seed=1)
    assert found != data.variants(paths, 40, seed=2)
    assert {variant.photo for variant in found} == set(paths)
    assert 10 < sum(variant.tone is not None for variant in found) < 30
    for variant in found[:8]:
        assert data.cut(variant).shape == (32, 48, 3)


def test_tones(photos):
    rgb = data.cut(data.variants(data.photos(photos, "train"), 1, seed=1)[0])
    neutral = data.Tone(gamma=1.0, gains=(1.0, 1.0, 1.0), saturation=1.0)
    np.testing.assert_array_equal(data.with_tone(rgb, neutral), rgb)
    warm = data.with_tone(rgb, data.Tone(gamma=0.8, gains=(1.1, 1.0, 0.9), saturation=0.0))
    assert warm.dtype == np.uint8
    assert warm.shape == rgb.shape
    assert (warm.max(axis=2) == warm.min(axis=2)).all()  # no saturation: grey
    assert warm.mean() > rgb.mean()


def test_photographs_smaller_than_the_window_are_enlarged(photos):
    variant = data.Variant(photos / "3.png", 64, (120, 80), (0.5, 0.5), mirrored=True, tone=None)
    assert data.cut(variant).shape == (80, 120, 3)


def test_a_lesson_is_what_the_teacher_paints(photos, teachers, lessons):
    variant = teach.plan_lessons(photos, 8, seed=1)[5]
    style = teach.style_of(5)
    kept = lessons.load(5)
    np.testing.assert_array_equal(kept.photo, data.cut(variant))
    image = torch.from_numpy(kept.photo).float()[None] / 255
    generator = load_generator(style, weights_dir=teachers)
    painted = stylize(image, generator)[0] * 255
    # It was painted in bfloat16.
    assert (painted - torch.from_numpy(kept.picture).float()).abs().mean() < 3

    maps = run_maps(generator.stages, dict(generator.named_parameters()), data.to_input(kept.photo))
    directions = lessons.directions()
    assert directions is not None
    exact = directions.describe(style, maps).clamp(-4, 4)
    assert (kept.carried - exact).abs().max() < 0.02  # half of 8 / 254, and rounding
    assert kept.carried.shape == (len(teach.DEPTHS), teach.DIRECTIONS, 8, 12)


def test_the_directions_are_orthonormal(lessons):
    rows = lessons.directions().rows
    torch.testing.assert_close(rows @ rows.T, torch.eye(teach.DIRECTIONS), rtol=0, atol=1e-4)


def test_lessons_are_painted_once(photos, teachers, lessons):
    before = lessons.path(7).stat().st_mtime_ns
    plan = teach.plan_lessons(photos, 10, seed=1)
    teach.teach(teach.load_teachers(teachers), plan, lessons, show=False)
    assert lessons.count() == 10
    assert lessons.path(7).stat().st_mtime_ns == before


def test_what_the_optimizer_makes_is_orthogonal():
    matrix = torch.randn(12, 30) * torch.logspace(-2, 1, 12)[:, None]
    for side in (matrix, matrix.T):
        values = torch.linalg.svdvals(optimizer.orthogonal(side))
        # As published: five steps bring the singular values to about 0.7 to 1.2.
        assert values.max() < 1.3
        assert (values > 0.5).sum() >= 10


def test_steps_are_in_proportion_to_the_weight():
    weights = [torch.randn(4, 3, 3, 3) * size for size in (0.01, 1.0)]
    before = [weight.clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.RelativeMuon(weights).step(0.1)
    for weight, old in zip(weights, before, strict=True):
        torch.testing.assert_close((weight - old).norm() / old.norm(), torch.tensor(0.1))


def test_it_learns_resumes_and_ships(photos, lessons):
    together = run(photos, "--state", str(photos / "all"), "--steps", "24")
    before = together.held_out_psnr("kon")
    together.train(look_every=100, save_seconds=1e9)
    assert together.held_out_psnr("kon") > before

    start = ["--style", "kon", "--start", str(photos / "all" / "state.pt"), "--maps", "0"]
    alone = run(photos, "--state", str(photos / "kon"), "--steps", "8", *start)
    assert alone.held_out_psnr("kon") == pytest.approx(together.held_out_psnr("kon"))
    alone.train(look_every=100, save_seconds=1e9)
    resumed = run(photos, "--state", str(photos / "kon"), "--steps", "40", *start)
    assert resumed.step == 8
    torch.testing.assert_close(resumed.average, alone.average)
    resumed.train(look_every=20, save_seconds=1e9)
    assert [row["step"] for row in resumed.history] == [8, 20, 40]

    path = photos / "small.safetensors"
    resumed.export("kon", path)
    assert load_generator(path).channels["block1b"] == 8
    with safe_open(path, "pt") as file:
        assert file.metadata()["teacher_sha256"] == STYLES["kon"].sha256

    # The core paints what the training code did.
    published = evaluate.Published(photos / "teachers", photos / "published")
    photo, _ = published.pair("kon", photos / "0.png", 96)
    network = resumed.tensors(resumed.average, "kon")
    trained = run_maps(resumed.stages, network, data.to_input(photo), torch.float32)["output"]
    painted = evaluate.paint(load_generator(path), photo)
    error = np.abs(data.to_pixels(trained).astype(int) - painted)
    assert error.mean() < 1  # the file's weights are float16


def test_the_published_design_can_be_trained_as_well(photos, lessons):
    narrow = run(
        photos,
        "--style",
        "kon",
        "--state",
        str(photos / "n"),
        "--steps",
        "2",
        widths=(4, 4, 8, 8, 2),
    )
    narrow.train(look_every=100, save_seconds=1e9)
    narrow.export("kon", photos / "narrow.safetensors")
    assert load_generator(photos / "narrow.safetensors").channels["up2"] == 4


def test_photographs_are_gathered_from_clones(tmp_path):
    """From the list that the repository keeps, by content: another file of the name is refused."""
    git = tmp_path / "clones" / "someone+pictures"
    git.mkdir(parents=True)
    picture = Image.fromarray(np.random.randint(0, 256, (60, 2000, 3), np.uint8))
    picture.save(git / "a b.png")
    blob = gather.blob_of((git / "a b.png").read_bytes())
    row = {"file": "pictures-a.jpg", "split": "train", "repository": "someone/pictures"}
    rows = [{**row, "path": "a b.png", "blob": blob}]
    gather.gather(rows, tmp_path / "clones", tmp_path / "photos")
    with Image.open(tmp_path / "photos" / "pictures-a.jpg") as made:
        assert max(made.size) == gather.LONGEST
    assert data.photos(tmp_path / "photos", "train") == [tmp_path / "photos" / "pictures-a.jpg"]
    with pytest.raises(SystemExit, match="another file"):
        gather.gather([{**rows[0], "blob": "0" * 40}], tmp_path / "clones", tmp_path / "other")
