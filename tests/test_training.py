"""The training code on tiny teachers: its lessons, that it learns, resumes, ships what loads."""

import json
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from animebg_core import LITE_STYLES, STYLES, load_generator, stylize
from animebg_core.training import data, optimizer
from animebg_core.training.loop import Training
from animebg_core.training.network import exported, levelled, run_maps
from training import blends, distill, evaluate, gather, teach


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
    paths = gather.photos(photos, "train")
    found = data.variants(paths, 40, seed=1)
    assert found == data.variants(paths, 40, seed=1)
    assert found != data.variants(paths, 40, seed=2)
    assert found[:17] == data.variants(paths, 17, seed=1)
    assert {variant.photo for variant in found} == set(paths)
    assert 10 < sum(variant.tone is not None for variant in found) < 30
    assert 0 < sum(variant.islands > 0 for variant in found) < 12
    assert 10 < sum(variant.other is not None for variant in found) < 28
    assert {variant.other for variant in found} <= {None, *paths}
    for variant in found[:8]:
        assert data.cut(variant).shape == (32, 48, 3)


def test_tones(photos):
    rgb = data.cut(data.variants(gather.photos(photos, "train"), 1, seed=1)[0])
    neutral = data.Tone(gamma=1.0, gains=(1.0, 1.0, 1.0), saturation=1.0)
    np.testing.assert_array_equal(data.with_tone(rgb, neutral), rgb)
    warm = data.with_tone(rgb, data.Tone(gamma=0.8, gains=(1.1, 1.0, 0.9), saturation=0.0))
    assert warm.dtype == np.uint8
    assert warm.shape == rgb.shape
    assert (warm.max(axis=2) == warm.min(axis=2)).all()  # no saturation: grey
    assert warm.mean() > rgb.mean()


def test_islands_are_small_and_far_from_their_ground():
    """Smooth, but for shapes that cover little of the picture."""
    flat = np.full((192, 288, 3), 150, np.uint8)
    signs = set()
    for seed in range(1, 20):
        made = data.with_islands(flat, seed)
        assert made.shape == flat.shape
        assert made.dtype == np.uint8
        np.testing.assert_array_equal(made, data.with_islands(flat, seed))
        off = made[..., 0] - np.median(made)
        assert 0.0005 < (np.abs(off) > 60).mean() < 0.15
        signs.add(float(np.sign(off[np.abs(off) > 60].mean())))
    assert signs == {-1.0, 1.0}  # darker than their ground, or lighter


def test_another_photograph_shows_in_places(photos):
    """In one of ten to nine of ten parts, with an edge of a pixel or two."""
    dark, light = np.zeros((192, 288, 3), np.uint8), np.full((192, 288, 3), 255, np.uint8)
    parts = []
    for seed in range(12):
        made = data.with_other(dark, light, seed)
        assert made.shape == dark.shape
        assert made.dtype == np.uint8
        np.testing.assert_array_equal(made, data.with_other(dark, light, seed))
        parts.append((made == 255).all(axis=2).mean())
        assert ((made > 0) & (made < 255)).mean() < 0.2
        assert 0.05 < parts[-1] < 0.95
    assert min(parts) < 0.4
    assert max(parts) > 0.6
    alone = data.Variant(photos / "3.png", 64, (48, 32), (0.5, 0.5), mirrored=False, tone=None)
    mixed = replace(alone, other=photos / "4.png", places=1)
    differs = (data.cut(alone) != data.cut(mixed)).any(axis=2).mean()
    assert 0.1 < differs < 0.95
    assert mixed.named().other.parent == mixed.named().photo.parent == Path()


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


def test_lessons_of_another_plan_are_not_mixed_in(photos, teachers, lessons):
    with pytest.raises(SystemExit, match="other lessons"):
        plan = teach.plan_lessons(photos, 8, seed=2)
        teach.teach(teach.load_teachers(teachers), plan, lessons, show=False)


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


def test_no_gradient_is_no_step():
    weight = torch.randn(4, 3, 3, 3)
    before = weight.clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.RelativeMuon([weight]).step(0.1)
    assert torch.equal(weight, before)


def test_a_resumed_run_is_the_uninterrupted_one(photos, lessons):
    whole = run(photos, "--state", str(photos / "whole"), "--steps", "8")
    whole.train(look_every=100, save_seconds=1e9)
    begun = run(photos, "--state", str(photos / "cut"), "--steps", "8")
    for _ in range(4):
        begun.train_step()
    begun.save()
    resumed = run(photos, "--state", str(photos / "cut"), "--steps", "8")
    resumed.train(look_every=100, save_seconds=1e9)
    for name, value in whole.values.items():
        assert torch.equal(value, resumed.values[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_a_run_goes_on_as_it_began(photos, lessons):
    run(photos, "--state", str(photos / "all")).save()
    with pytest.raises(SystemExit, match=r"rate 0.002, not 0.004: name another --state"):
        run(photos, "--state", str(photos / "all"), "--rate", "0.004")


class Counting(Training):
    """One weight, moved a little each step."""

    looks = 0

    def __init__(self, folder):
        super().__init__(folder, {"w": torch.zeros(3)}, device=torch.device("cpu"))

    def train_step(self):
        self.learn((self.values["w"] - 10).square().sum(), 1.0)
        return (0.0,)

    def look(self):
        self.looks += 1
        return {}


def test_ctrl_c_within_an_update_waits_for_its_end(tmp_path, monkeypatch):
    whole = Counting(tmp_path / "whole")
    whole.go(1, look_every=1, save_seconds=9)
    cut = Counting(tmp_path / "cut")
    update = cut.muon.step

    def interrupted(rate):
        signal.raise_signal(signal.SIGINT)
        update(rate)

    monkeypatch.setattr(cut.muon, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.go(9, look_every=1, save_seconds=9)
    assert cut.step == 1 and torch.equal(cut.average["w"], whole.average["w"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_look_that_was_interrupted_is_made_up_for(tmp_path, monkeypatch):
    cut = Counting(tmp_path / "cut")

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cut, "look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.go(9, look_every=1, save_seconds=9)
    again = Counting(tmp_path / "cut")
    again.take(torch.load(tmp_path / "cut/state.pt", weights_only=True))
    again.go(3, look_every=1, save_seconds=9)
    assert again.looks == 3 and [entry["step"] for entry in again.history] == [1, 2, 3]


def test_a_spike_costs_and_a_step_away_from_it_costs_less():
    """One pixel of a map, far from all others; as far as the photograph's own is free."""
    stages = distill.Widths(0, 4, 8, 8, 1).stages
    photo = torch.rand(1, 3, 80, 120)
    maps = {f"{stage.name}.{len(stage.convs) - 1}": torch.randn(1, 4, 40, 60) for stage in stages}
    assert distill.spike_loss(stages, maps, photo) == 0
    spiked = maps["block0b.0"].clone()
    spiked[0, 0, 7, 9] = 200.0
    spiked.requires_grad_()
    cost = distill.spike_loss(stages, {**maps, "block0b.0": spiked}, photo)
    assert 0.1 < cost.item() < 0.25  # in one channel of four
    cost.backward()
    lower = spiked - 1e4 * spiked.grad
    assert lower[0, 0, 7, 9] < 200
    assert distill.spike_loss(stages, {**maps, "block0b.0": lower}, photo) < cost
    moon = torch.rand(1, 3, 80, 120)
    moon[..., 20, 30] = 300
    assert distill.spike_loss(stages, {**maps, "block0b.0": spiked}, moon) == 0


def test_the_cost_of_spikes_is_felt_in_a_step(photos, lessons, monkeypatch):
    def first_step(state):
        one = run(photos, "--style", "kon", "--state", str(photos / state), "--steps", "30")
        cost = one.train_step()[2]
        return cost, one.values["down.0.weight"].detach().clone()

    _, without = first_step("without")
    monkeypatch.setattr(distill, "spike_loss", lambda _, maps, __: maps["down.0"].float().std())
    cost, changed = first_step("with")
    assert cost > 0
    assert not torch.equal(changed, without)


def test_spots_are_counted():
    """A coloured one; not the same one in the wanted picture, nor a grey one, nor another tone."""
    plain = np.full((96, 120, 3), 90, np.uint8)
    spotted = plain.copy()
    spotted[40:48, 60:68, 0] = 250
    assert evaluate.spots(spotted, plain) == 4
    assert evaluate.spots(spotted, spotted) == 0
    assert evaluate.spots(np.roll(spotted, 4, axis=1), spotted) == 0
    assert evaluate.spots(plain + np.uint8(60), plain) == 0
    grey = plain.copy()
    grey[40:48, 60:68] = 250
    assert evaluate.spots(grey, plain) == 0


def test_an_error_of_tone_is_told_from_one_of_detail():
    plain = np.full((64, 96, 3), 90, np.uint8)
    assert evaluate.tone_share(plain + np.uint8(9), plain) == pytest.approx(1)
    checks = np.indices((64, 96)).sum(0)[:, :, None] % 2 * np.uint8(20)
    assert evaluate.tone_share(plain - np.uint8(10) + checks, plain) == pytest.approx(0)
    uneven = np.full((70, 100, 3), 90, np.uint8)
    border = uneven.copy()
    border[60:] += 9  # 4 of these 10 rows are in whole areas
    assert 0 < evaluate.tone_share(border, uneven) < 1


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

    # A shipped file is a start as well; its weights are float16.
    again = run(photos, "--style", "kon", "--state", str(photos / "more"), "--start", str(path))
    assert again.held_out_psnr("kon") == pytest.approx(resumed.held_out_psnr("kon"), abs=0.05)
    with pytest.raises(SystemExit, match="other widths"):
        start = ["--style", "kon", "--state", str(photos / "wide"), "--start", str(path)]
        run(photos, *start, widths=(0, 8, 8, 8, 2))

    # The core paints what the training code did.
    published = evaluate.Published(photos / "teachers", photos / "published")
    photo, _ = published.pair("kon", photos / "0.png", 96)
    network = resumed.tensors(resumed.average, "kon")
    trained = run_maps(resumed.stages, network, data.to_input(photo), torch.float32)["output"]
    painted = evaluate.paint(load_generator(path), photo)
    error = np.abs(data.to_pixels(trained).astype(int) - painted)
    assert error.mean() < 1  # the file's weights are float16


def between(photos, *options):
    """A training of what lies between the shipped networks, new or resumed."""
    command = ["--photos", str(photos), "--steps", "4", "--every", "1", *options]
    return blends.Blends(blends.parse(command))


def test_what_lies_between_is_trained_resumed_and_shipped(photos):
    whole = between(photos, "--state", str(photos / "whole"))
    before = whole.look()
    assert all(np.isinf(before[key]) for key in LITE_STYLES)  # dB: they are as they were
    whole.train(look_every=100, save_seconds=1e9)
    assert whole.look()["blends"] != before["blends"]
    assert all(25 < whole.look()[key] < 90 for key in LITE_STYLES)  # they have moved, a little

    begun = between(photos, "--state", str(photos / "cut"))
    for _ in range(2):
        begun.train_step()
    begun.save()
    resumed = between(photos, "--state", str(photos / "cut"))
    resumed.train(look_every=100, save_seconds=1e9)
    for name, value in whole.values.items():
        assert torch.equal(value, resumed.values[name]), name

    whole.export(photos / "out")
    for key, style in LITE_STYLES.items():
        path = photos / "out" / style.file
        with safe_open(path, "pt") as file:
            assert file.metadata()["style"] == key
            assert file.metadata()["blends_steps"] == "4"
        made = exported(whole.stages, whole.of(whole.average, key), {})
        shipped = dict(load_generator(key).named_parameters())
        for name, tensor in load_generator(path).named_parameters():
            assert torch.equal(tensor, made[name].float()), name
        assert any(not torch.equal(made[name].float(), shipped[name]) for name in made)
    again = between(photos, "--state", str(photos / "more"), "--start", str(photos / "out"))
    assert again.files["kon-lite"] == photos / "out" / LITE_STYLES["kon-lite"].file
    with pytest.raises(SystemExit, match="other seed: name another --state"):
        between(photos, "--state", str(photos / "cut"), "--seed", "2")
    with pytest.raises(SystemExit, match="kon-lite: name another --state"):
        between(photos, "--state", str(photos / "cut"), "--start", str(photos / "out"))


def test_a_shadow_is_dark_and_the_rest_is_as_it_was(photos):
    rgb = np.asarray(Image.open(photos / "3.png"))
    for seed in range(1, 6):
        made = data.with_shadow(rgb, seed)
        assert made.shape == rgb.shape
        assert made.dtype == np.uint8
        assert (made <= np.maximum(rgb, rgb.max() * 0.3)).all()
        changed = (made != rgb).any(2)
        assert 0.01 < changed.mean() < 0.8


@pytest.mark.parametrize("widths", [(0, 4, 8, 8, 2), (4, 4, 8, 8, 2)])
def test_a_levelled_network_is_the_same_with_sums_that_float16_holds(widths):
    """Relative steps have let the weights grow."""
    stages = distill.Widths(*widths).stages
    grown = {
        name: tensor * 1000 if name.endswith(("weight", "bias")) else tensor
        for name, tensor in distill.fresh_tensors(distill.Widths(*widths)).items()
        if not name.startswith("output")
    }
    stages = stages[:-1]
    for name, tensor in grown.items():
        if name.endswith("bias"):
            tensor.normal_(0, 300)
    image = torch.rand(1, 3, 48, 64) * 2 - 1
    before = run_maps(stages, grown, image, torch.float32)
    after = run_maps(stages, levelled(stages, grown), image, torch.float32)
    for stage in stages:
        torch.testing.assert_close(after[stage.name], before[stage.name], rtol=1e-3, atol=1e-3)
        sums = f"{stage.name}.{len(stage.convs) - 1}"
        assert before[sums].abs().max() > 500
        assert after[sums].abs().max() < 50


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
    """By content, whatever is checked out."""
    clone = tmp_path / "clones" / "someone+pictures"
    clone.mkdir(parents=True)
    picture = Image.fromarray(np.random.randint(0, 256, (60, 2000, 3), np.uint8))
    picture.save(clone / "a b.png")

    def git(*command):
        done = subprocess.run(
            ["git", "-C", str(clone), *command], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    blob = git("hash-object", "-w", "a b.png")
    (clone / "a b.png").unlink()
    row = {"file": "pictures-a.jpg", "split": "train", "repository": "someone/pictures"}
    row |= {"path": "a b.png", "commit": "0" * 40, "blob": blob}
    gather.gather([row], tmp_path / "clones", tmp_path / "photos")
    with Image.open(tmp_path / "photos" / "pictures-a.jpg") as made:
        assert max(made.size) == gather.LONGEST
    assert gather.photos(tmp_path / "photos", "train") == [tmp_path / "photos" / "pictures-a.jpg"]
    with pytest.raises(SystemExit, match="has no a b.png of commit 000"):
        gather.gather([row | {"blob": "0" * 40}], tmp_path / "clones", tmp_path / "other")


def test_the_list_of_photographs_and_of_their_sources_agree():
    text = (Path(gather.__file__).parent / "SOURCES.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| github:(\S+) .* (\d+) \((\d+) / (\d+)\) \|$", text, re.MULTILINE)
    rows = gather.listed()
    assert {row["repository"] for row in rows} == {repository for repository, *_ in stated}
    for repository, *numbers in stated:
        splits = [row["split"] for row in rows if row["repository"] == repository]
        counted = [len(splits), splits.count("train"), splits.count("holdout")]
        assert counted == [int(number) for number in numbers]
    assert sum(row["split"] == "holdout" for row in rows) >= 40
