"""A style from a folder of frames: its palette, what it goes on from, and what it refuses."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import animebg_core
from animebg_core import blend_generators, load_generator
from animebg_core.cli import main
from animebg_core.training import data, drawing, own, palette, patches, pictures
from animebg_core.training.loop import STATE
from benchmarks._forks import ended, fork


def scene(seed, colours=((40, 60, 160), (200, 170, 120), (60, 130, 50)), size=(96, 64)):
    """A smooth picture of areas in such colours."""
    draw = np.random.default_rng(seed)
    weights = draw.random((6, 9, len(colours))) ** 4
    small = weights @ np.array(colours) / weights.sum(2, keepdims=True)
    small = (small * draw.uniform(0.5, 1.3, (6, 9, 1))).clip(0, 255)
    return Image.fromarray(small.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


DUSK = ((90, 30, 90), (240, 120, 60), (250, 200, 120))


@pytest.fixture
def folders(tmp_path):
    """Twenty photos and twenty frames of quite other colours."""
    for name, colours in (("photos", ()), ("frames", (DUSK,))):
        (tmp_path / name).mkdir()
        for number in range(20):
            seed = number + 100 * len(colours)
            scene(seed, *colours).save(tmp_path / name / f"{number:02}.png")
    return tmp_path


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A small random network of the Lite design."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_file(oracle.random_lite_state((8, 12, 8), 1), path)
    return path


@pytest.fixture
def train(start, monkeypatch):
    """`animebg train ARGS` with that network and few, small steps; returns the exit status."""
    monkeypatch.setattr(data, "_WINDOWS", (((48, 32), (64, 96)),))
    monkeypatch.setattr(own, "PALETTE_STEPS", 12)

    def train(*args, start=start):
        fixed = ["--start", str(start), "--device", "cpu"]
        return main(["train", *map(str, args), *fixed])

    return train


def as_arrays(folder):
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def alike(one, other):
    """Two networks have the same weights, bit by bit."""
    assert set(one) == set(other)
    return all(torch.equal(one[name], other[name]) for name in one)


# --- The colour map ---


def test_the_linear_map_gives_the_frames_mean_and_covariance(folders, monkeypatch):
    for bound, value in (("WIDEST", 1e9), ("NARROWEST", 0.0), ("FARTHEST", 1.0), ("TINGED", 1.0)):
        monkeypatch.setattr(palette, bound, value)
    source, target = (palette.moments(as_arrays(folders / name)) for name in ("photos", "frames"))
    towards = palette.linear_map(source, target)
    shift, matrix = towards.weights[0], towards.weights[1:4].T
    np.testing.assert_allclose(matrix @ source.mean + shift, target.mean, atol=1e-9)
    # Up to the grain of 2 levels that both are given.
    covariance = matrix @ source.covariance @ matrix.T
    np.testing.assert_allclose(covariance, target.covariance, atol=2e-3)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)  # it turns no colour, as it need not
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_a_known_change_of_colours_is_found(folders):
    photos = as_arrays(folders / "photos")
    light = [photo / 255 for photo in photos]
    bent = [
        np.stack([x[..., 0] ** 0.7, x[..., 1], 0.3 + 0.5 * x[..., 2] ** 1.6], -1) for x in light
    ]
    wanted = [np.uint8(np.rint(x * 255)) for x in bent]

    def off(towards):
        pairs = zip(photos, wanted, strict=True)
        return np.mean([np.abs(towards(a).astype(float) - b).mean() for a, b in pairs])

    linear = off(palette.linear_map(palette.moments(photos), palette.moments(wanted)))
    found = off(palette.colour_map(photos, wanted))
    assert found < min(6, 0.3 * off(palette.SAME))  # levels of 255
    assert found < 2 * linear  # which has exact moments, of the very same pictures


def test_how_far_the_map_goes_is_chosen(folders):
    source, target = (as_arrays(folders / name) for name in ("photos", "frames"))
    nothing, half, whole = (palette.colour_map(source, target, match) for match in (0, 0.5, 1))
    np.testing.assert_array_equal(nothing(source[0]), source[0])
    np.testing.assert_allclose(half.weights, (palette.SAME.weights + whole.weights) / 2)
    np.testing.assert_allclose(half.whites, whole.whites / 2)


def test_slopes_are_those_of_the_map(folders):
    towards = palette.colour_map(*(as_arrays(folders / name) for name in ("photos", "frames")))
    at = np.random.default_rng(0).random((20, 3))
    step = 1e-6
    for axis in range(3):
        ahead = at + step * np.eye(3)[axis]
        rise = (palette.terms(ahead) - palette.terms(at)) @ towards.weights / step
        np.testing.assert_allclose(towards.slopes(at)[:, :, axis], rise, atol=1e-4)


def test_white_does_not_take_the_colour_of_light_grass():
    """Frames of a meadow under a strip of pale sky, and photos of white walls beside grass."""
    meadow = ((60, 120, 20), (190, 210, 40), (120, 170, 30))
    town = ((230, 230, 228), (150, 150, 152), (70, 110, 60), (90, 120, 170))
    frames = [np.array(scene(seed, meadow)) for seed in range(12)]
    for frame in frames:
        frame[:8] = (232, 228, 240)
    photos = [np.asarray(scene(seed + 50, town)) for seed in range(12)]
    towards = palette.colour_map(photos, frames)

    def tinge(grey):
        r, g, b = towards(np.full((1, 1, 3), grey, np.uint8))[0, 0].astype(int)
        return abs(r - g) + abs(g - b)

    assert tinge(215) < 20 and tinge(190) < 12
    assert tinge(90) > 40  # what is darker goes with the meadow
    leaf = towards(np.array([[[130, 190, 90]]], np.uint8))[0, 0].astype(int)
    assert leaf[1] - leaf[2] > 90


@pytest.mark.parametrize("kind", ["one hue", "night", "snow", "grey", "neon", "noise", "one shot"])
def test_frames_of_other_content_do_not_drive_paintings_to_mud(folders, kind):
    """Whatever the frames: light stays in its order, and contrast within bounds."""
    draw = np.random.default_rng(5)
    made = {
        "one hue": [np.uint8(draw.random((40, 60, 1)) * np.array([200, 120, 20])) for _ in "ab"],
        "night": [np.uint8(draw.random((40, 60, 3)) * 20) for _ in "ab"],
        "snow": [np.uint8(235 + draw.random((40, 60, 3)) * 20) for _ in "ab"],
        "grey": [np.uint8(np.repeat(draw.random((40, 60, 1)) * 255, 3, 2)) for _ in "ab"],
        "neon": [np.uint8(np.round(draw.random((4, 6, 3))) * 255).repeat(9, 0).repeat(9, 1)] * 2,
        "noise": [np.uint8(draw.random((40, 60, 3)) * 255) for _ in "ab"],
        "one shot": [np.asarray(scene(3, DUSK))] * 12,
    }[kind]
    photos = as_arrays(folders / "photos")
    towards = palette.colour_map(photos, made)
    for photo in photos:
        before, after = photo.mean(2).ravel(), towards(photo).mean(2).ravel()
        assert np.corrcoef(before, after)[0, 1] > 0.7
        # Down to 0.4 of it on the whole, half of that in places; black and white take some more.
        assert 0.15 * before.std() < after.std() < 3.3 * before.std()
        moved = np.abs(towards(photo).mean((0, 1)) - photo.mean((0, 1))) / 255
        assert moved.max() < 2 * palette.FARTHEST  # of one picture, not of all


# --- What is learned from, and what not ---


def test_frames_that_show_nothing_new_are_left_out(tmp_path, folders):
    frames = folders / "frames"
    Image.new("RGB", (96, 64), (3, 3, 4)).save(frames / "black.png")
    Image.new("RGB", (96, 64), (130, 20, 20)).save(frames / "flat.png")
    again = np.asarray(Image.open(frames / "07.png")).astype(int) + 2
    Image.fromarray(again.clip(0, 255).astype(np.uint8)).save(frames / "07-again.png")
    (frames / "broken.png").write_bytes((frames / "03.png").read_bytes()[:400])
    (frames / "notes.txt").write_text("no picture")
    found = pictures.read_pictures(frames, "frames", fewest=12)
    assert sorted(path.name for path in found.names) == sorted(
        {f"{number:02}.png" for number in range(20)} - {"07.png"} | {"07-again.png"}
    )
    notes = "\n".join(found.notes)
    for said in ("1 black left out", "1 of one colour left out", "1 nearly the same", "broken.png"):
        assert said in notes


def test_of_many_frames_some_of_every_part_are_kept(monkeypatch):
    monkeypatch.setattr(pictures, "MOST", 10)
    many = [(Path(f"{n}"), np.asarray(scene(n, DUSK, (32, 24)))) for n in range(90)]
    kept, left_out = pictures.chosen(many)
    assert not left_out
    assert 5 <= len(kept) <= 10
    numbers = [int(path.name) for path in kept]
    assert min(numbers) < 20 and max(numbers) > 70


def test_frames_of_a_film_are_chosen(tmp_path):
    """Two shots and black between them: one frame of each still one, none of the black."""
    av = pytest.importorskip("av")
    path = tmp_path / "film.mkv"
    shots = [scene(1, size=(64, 48)), Image.new("RGB", (64, 48)), scene(2, DUSK, (64, 48))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for shot in shots:
            for _ in range(20):
                for packet in stream.encode(av.VideoFrame.from_image(shot)):
                    container.mux(packet)
        container.mux(stream.encode(None))
    found = pictures.read_pictures(path, "frames", fewest=1)
    assert len(found) == 2
    assert any("black" in note for note in found.notes)
    first, last = found.pixels.values()
    assert np.abs(first.astype(int) - np.asarray(shots[0])).mean() < 2  # lossless but for YUV
    assert np.abs(last.astype(int) - np.asarray(shots[2])).mean() < 2


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("none", "there is no"),
        ("empty", "0 frames that can be learned from, and at least 12 are needed"),
        ("five", "5 frames that can be learned from, and at least 12 are needed"),
        ("damaged", "2 frames that can be learned from"),
        ("flat", "20 of one colour left out"),
        ("same", "19 nearly the same as others left out"),
        ("text", "neither a folder of pictures nor a film"),
    ],
)
def test_frames_that_do_not_suffice_are_one_line(train, folders, capsys, wrong, said):
    frames = folders / "frames"
    for number, path in enumerate(sorted(frames.iterdir())):
        if wrong == "empty" or (wrong == "five" and number >= 5):
            path.unlink()
        elif wrong == "damaged" and number >= 2:
            path.write_bytes(path.read_bytes()[:200])
        elif wrong == "flat":
            Image.new("RGB", (48, 32), (number * 9, 40, 90)).save(path)
        elif wrong == "same":
            shutil.copy(frames / "00.png", path) if number else None
    if wrong in ("none", "text"):
        shutil.rmtree(frames)
    if wrong == "text":
        frames.write_text("a film?")
    assert train(frames, "--photos", folders / "photos", "-o", folders / "out.safetensors") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list(folders.glob("*out*"))


def test_photos_that_are_the_frames_are_one_line(train, folders, capsys):
    for path in sorted((folders / "frames").iterdir())[:3]:
        shutil.copy(path, folders / "photos" / f"same-{path.name}")
    assert train(
        folders / "frames", "--photos", folders / "photos", "-o", folders / "o.safetensors"
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 of the 23 photos are frames too" in line


def test_outputs_that_exist_are_not_written_over(train, folders, capsys):
    for name in ("mine.safetensors", "mine.jpg"):
        (folders / name).write_bytes(b"precious")
        assert train(folders / "frames", "-o", folders / "mine.safetensors") == 2
        assert f"{name} exists" in capsys.readouterr().err
        assert (folders / name).read_bytes() == b"precious"
        (folders / name).unlink()
    for other in (folders / "mine.pth", "", ".", "/"):
        assert train(folders / "frames", "-o", other) == 2
        assert "written as .safetensors" in capsys.readouterr().err


# --- What comes of it ---


@pytest.mark.parametrize("with_photos", [True, False])
def test_paintings_get_the_palette_of_the_frames(train, folders, capsys, with_photos, monkeypatch):
    monkeypatch.setattr(own, "PALETTE_STEPS", 25)
    frames, photos, out = folders / "frames", folders / "photos", folders / "mine.safetensors"
    option = ["--photos", photos] if with_photos else []
    assert train(frames, *option, "-o", out, start="shinkai-lite") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(out), str(folders / "mine.jpg")]
    assert ("stand in" in printed.err) == (not with_photos)
    assert sorted(path.name for path in folders.iterdir()) == [
        "frames",
        "mine.jpg",
        "mine.safetensors",
        "photos",
    ]
    before, after = (
        palette.moments(
            [own.painted(load_generator(path), picture) for picture in as_arrays(photos)]
        )
        for path in ("shinkai-lite", out)
    )
    target = palette.moments(as_arrays(frames))

    def distance(one):
        return (
            np.abs(one.mean - target.mean).sum() + np.abs(one.covariance - target.covariance).sum()
        )

    assert distance(after) < 0.75 * distance(before)
    with Image.open(folders / "mine.jpg") as sheet:
        assert sheet.width > 4 * 90  # four columns


def test_the_file_says_where_it_is_from_and_blends(train, folders, start):
    out = folders / "mine.safetensors"
    assert train(folders / "frames", "-o", out, "--seed", 5, "--match", 0.5) == 0
    with safe_open(out, "pt") as file:
        said = file.metadata()
    assert said["start"] == str(start)
    assert said["frames"] == "20"
    assert len(said["frames_sha256"]) == len(said["start_sha256"]) == 64
    assert (said["seed"], said["match"], said["steps"]) == ("5", "0.5", "12")
    assert animebg_core.__version__ in said["made_by"]
    assert out.stat().st_size < 1.2 * start.stat().st_size / 2 + 4000  # float16, and nothing else
    mixed = blend_generators([(load_generator(out), 0.5), (load_generator(start), 0.5)])
    photo = as_arrays(folders / "photos")[0]
    assert own.painted(mixed, photo).shape == photo.shape
    painted = ["-o", str(folders / "p.png"), "--style", f"{out}:0.7,{start}:0.3"]
    assert main(["stylize", str(folders / "photos" / "00.png"), *painted]) == 0


def test_a_style_of_a_published_network_keeps_its_names(train, folders, checkpoint):
    out = folders / "mine.safetensors"
    assert train(folders / "frames", "-o", out, start=checkpoint) == 0
    assert "conv01_1.weight" in load_file(out)
    assert load_generator(out).channels == load_generator(checkpoint).channels


def test_the_seed_decides(train, folders):
    torch.set_num_threads(1)
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = folders / f"{name}.safetensors"
        assert train(folders / "frames", "-o", out, "--seed", seed) == 0
        made.append(load_file(out))
    assert alike(made[0], made[1])
    assert not alike(made[0], made[2])


# --- Its drawing ---


def hatched(picture, seed):
    """A picture with fine dark lines over its left half."""
    pixels = np.array(picture).astype(int)
    pixels[:, : pixels.shape[1] // 2][:, seed % 4 :: 4] -= 60
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def drawn(folders, monkeypatch):
    """Frames that are hatched, and a drawing of few steps."""
    for seed, path in enumerate(sorted((folders / "frames").iterdir())):
        hatched(Image.open(path), seed).save(path)
    monkeypatch.setattr(data, "_PLAIN", ((48, 32), (64, 96)))
    monkeypatch.setattr(drawing, "DRAWING_STEPS", 8)
    monkeypatch.setattr(own, "LOOK_EVERY", 2)
    return folders


def test_patches_are_nearer_to_those_of_areas_that_are_drawn_alike(folders):
    frames = [np.asarray(hatched(scene(seed), seed)) for seed in range(12)]
    plain = [np.asarray(scene(seed)) for seed in range(50, 62)]
    found = patches.Patches(frames, plain, 1)

    def distance(picture):
        draw = torch.Generator().manual_seed(1)
        given = data.to_input(picture)
        return float(found.loss(given, found.matched(given, draw), draw))

    mine = np.asarray(scene(99))
    assert distance(np.asarray(hatched(scene(99), 0))) < 0.8 * distance(mine)


def test_areas_are_matched_by_colour():
    """Red areas with red ones and blue with blue, though there are more of the one."""

    def halves(left, seed):
        noise = np.random.default_rng(seed).integers(-9, 9, (64, 96, 3))
        picture = np.zeros((64, 96, 3), int) + np.array((30, 40, 200))
        picture[:, :left] = (200, 40, 30)
        return (picture + noise).clip(0, 255).astype(np.uint8)

    found = patches.Patches([halves(32, n) for n in range(4)], [halves(48, n) for n in (7, 8)], 1)
    picture = data.to_input(halves(48, 9))
    tiles = found._tiles[0][found.matched(picture, torch.Generator().manual_seed(0))].float()
    red = (tiles[:, 2] > tiles[:, 0]).float().mean((1, 2)).reshape(4, 6)  # BGR
    assert red[:, :2].min() > 0.8 and red[:, 4:].max() < 0.2


def test_drawing_goes_on_from_the_palette_and_keeps_the_best(train, drawn, capsys):
    args = [drawn / "frames", "--photos", drawn / "photos", "-o", drawn / "mine.safetensors"]
    assert train(*args, "--hours", 1) == 0
    with safe_open(drawn / "mine.safetensors", "pt") as file:
        said = file.metadata()
    assert said["steps"] == "12" and int(said["drawing_steps"]) % 2 == 0
    load_generator(drawn / "mine.safetensors")
    assert not list(drawn.glob(".*"))
    with Image.open(drawn / "mine.jpg") as sheet:
        assert sheet.width > 4 * 90


def test_drawing_that_gets_worse_leaves_the_palette(train, drawn, monkeypatch):
    out, again = drawn / "mine.safetensors", drawn / "again.safetensors"
    args = [drawn / "frames", "--photos", drawn / "photos", "-o"]
    torch.set_num_threads(1)
    assert train(*args, out) == 0
    # Where patches say nothing, nothing is nearer to the palette's paintings than these.
    monkeypatch.setattr(patches.Patches, "loss", lambda *_: torch.zeros(()))
    assert train(*args, again, "--hours", 1) == 0
    with safe_open(again, "pt") as file:
        assert file.metadata()["drawing_steps"] == "0"
    assert alike(load_file(out), load_file(again))


def test_drawing_ends_with_its_hours(train, drawn):
    out = drawn / "mine.safetensors"
    args = [drawn / "frames", "--photos", drawn / "photos", "-o", out]
    assert train(*args, "--hours", 1e-7) == 0
    with safe_open(out, "pt") as file:
        assert file.metadata()["drawing_steps"] in "01"


@pytest.mark.parametrize("wrong, said", [("photos", "--hours needs --photos"), ("small", "small")])
def test_drawing_without_what_it_needs_is_one_line(train, drawn, capsys, wrong, said):
    args = [drawn / "frames", "-o", drawn / "mine.safetensors", "--hours", 1]
    if wrong == "small":
        for path in (drawn / "frames").iterdir():
            Image.open(path).resize((40, 24)).save(path)
        args += ["--photos", drawn / "photos"]
    assert train(*args) != 0
    *_, line = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (drawn / "mine.safetensors").exists()


# --- Interrupted ---

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@FORKS
def test_killed_and_gone_on_with_it_ends_with_the_same_weights(train, folders, monkeypatch):
    torch.set_num_threads(1)  # a pool of threads does not live on in a forked child
    monkeypatch.setattr(own, "SAVE_SECONDS", 0.0)
    whole, cut = folders / "whole.safetensors", folders / "cut.safetensors"
    args = [folders / "frames", "--photos", folders / "photos", "-o"]
    began = time.monotonic()
    assert ended(fork(lambda: train(*args, whole))) == 0
    lasts = time.monotonic() - began
    draw = np.random.default_rng(0)
    for _ in range(3):
        pid = fork(lambda: train(*args, cut))
        time.sleep(draw.uniform(0.3, 0.8) * lasts)
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    # The last one may have ended before it was killed, and a finished style is not made again.
    assert ended(fork(lambda: train(*args, cut))) in (0, 2)
    assert alike(load_file(cut), load_file(whole))
    assert not list(folders.glob(".*"))


@FORKS
def test_a_drawing_that_was_killed_ends_with_the_same_weights(train, drawn, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(own, "SAVE_SECONDS", 0.0)
    whole, cut = drawn / "whole.safetensors", drawn / "cut.safetensors"
    args = [drawn / "frames", "--photos", drawn / "photos", "--hours", 1, "-o"]
    assert ended(fork(lambda: train(*args, whole))) == 0
    drawing_state = own.state_folder(cut) / "drawing" / STATE
    for _ in range(2):
        pid = fork(lambda: train(*args, cut))
        until = time.monotonic() + 60
        while not drawing_state.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    assert ended(fork(lambda: train(*args, cut))) in (0, 2)
    assert alike(load_file(cut), load_file(whole))
    assert not list(drawn.glob(".*"))


def test_ctrl_c_in_the_drawing_keeps_the_best_and_it_goes_on(train, drawn, monkeypatch, capsys):
    from animebg_core.cli import train as command

    torch.set_num_threads(1)
    out, whole = drawn / "mine.safetensors", drawn / "whole.safetensors"
    args = [drawn / "frames", "--photos", drawn / "photos", "-o"]
    assert train(*args, whole, "--hours", 1) == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, "_Report", Stopped)
        patch.setattr(Stopped, "what", "drawing")
        assert train(*args, out, "--hours", 1) == 130
    with safe_open(out, "pt") as file:
        assert int(file.metadata()["drawing_steps"]) <= 4
    assert train(*args, out, "--hours", 1) == 0
    assert alike(load_file(out), load_file(whole))


class Stopped:
    """A report that stops the training as Ctrl-C does, after a step."""

    at, what = 5, "palette"

    def __init__(self, what, steps):
        self._told = what

    def __call__(self, now):
        if now.step == self.at and self._told == self.what:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_what_was_learned_and_the_same_command_goes_on(
    train, folders, monkeypatch, capsys
):
    torch.set_num_threads(1)
    from animebg_core.cli import train as command

    out, whole = folders / "mine.safetensors", folders / "whole.safetensors"
    assert train(folders / "frames", "-o", whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, "_Report", Stopped)
        assert train(folders / "frames", "-o", out) == 130
    assert "interrupted" in capsys.readouterr().err
    with safe_open(out, "pt") as file:
        assert file.metadata()["steps"] == "5"
    load_generator(out)
    # Another order does not take it over.
    assert train(folders / "frames", "-o", out, "--seed", 2) == 1
    assert "was begun with other seed: name another output" in capsys.readouterr().err
    assert train(folders / "frames", "-o", out) == 0
    assert "going on after step 5 of 12" in capsys.readouterr().err
    assert alike(load_file(out), load_file(whole))
    assert not list(folders.glob(".*"))


def test_a_damaged_state_is_one_line(train, folders, monkeypatch, capsys):
    from animebg_core.cli import train as command

    out = folders / "mine.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(command, "_Report", Stopped)
        assert train(folders / "frames", "-o", out) == 130
    state = own.state_folder(out) / STATE
    state.write_bytes(state.read_bytes()[:5000])
    capsys.readouterr()
    assert train(folders / "frames", "-o", out) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert "to begin anew" in line


@FORKS
def test_a_full_disk_is_one_line_and_loses_nothing(train, folders, monkeypatch):
    """A limit for the size of files fails writes as a full disk does."""
    import resource

    torch.set_num_threads(1)
    monkeypatch.setattr(own, "SAVE_SECONDS", 0.0)
    out, said = folders / "mine.safetensors", folders / "said.txt"

    def run(limit):
        def work():
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return train(folders / "frames", "-o", out)

        return ended(fork(work))

    assert run(20_000) == 1  # the state has more
    *_, line = said.read_text().splitlines()
    assert "cannot be written" in line
    assert "Traceback" not in said.read_text()
    assert not out.exists()
    assert run(0) == 0, said.read_text()
    load_generator(out)
    assert not list(folders.glob(".*"))
