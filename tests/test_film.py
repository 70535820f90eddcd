"""Films painted: cuts, fades, steadiness, and a film that no crash can change."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

av = pytest.importorskip("av", exc_type=ImportError)

from clips import Sound, make_clip, packets, pictures, times_of  # noqa: E402

from animebg_core import load_generator, stylize  # noqa: E402
from animebg_core.errors import OptionError, VideoError  # noqa: E402
from animebg_core.files.video.output import film_output  # noqa: E402
from animebg_core.files.video.pictures import Animation  # noqa: E402
from animebg_core.files.video.reading import Film  # noqa: E402
from animebg_core.files.video.writing import Trim  # noqa: E402
from animebg_core.film import film as film_module  # noqa: E402
from animebg_core.film import frames as frames_module  # noqa: E402
from animebg_core.film.batch import paint_batch  # noqa: E402
from animebg_core.film.film import FilmRun  # noqa: E402
from animebg_core.film.looks import burst  # noqa: E402
from animebg_core.film.motion import _Shift, find_motion, shift  # noqa: E402
from animebg_core.film.shots import find_cuts, find_shots  # noqa: E402
from animebg_core.film.steady import Painted, steadied  # noqa: E402
from animebg_core.painter import Painter  # noqa: E402

SIZE = 36, 64


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with structure at every size, [H, W, 3] in 0..1."""
    rng = np.random.default_rng(seed)
    result = np.zeros((height, width, 3))
    for cell in (1, 2, 4, 8, 16):
        part = rng.random((height // cell + 2, width // cell + 2, 3))
        result += cell * part.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return (result / result.max() * 0.8 + 0.1).clip(0, 1)


def sixteen(frames) -> list[np.ndarray]:
    return [np.rint(np.clip(frame, 0, 1) * 65535).astype(np.uint16) for frame in frames]


def pan(count: int, step: int = 1, seed: int = 0) -> list[np.ndarray]:
    wide = texture(SIZE[0], SIZE[1] + count * step, seed)
    return [wide[:, k * step : k * step + SIZE[1]] for k in range(count)]


def glances(frames) -> np.ndarray:
    return np.stack([frame.reshape(9, 4, 16, 4, 3).mean((1, 3)) for frame in frames]).astype("f4")


@pytest.fixture(scope="module")
def painter(checkpoint) -> Painter:
    return Painter(load_generator(checkpoint))


@pytest.fixture
def paint(tmp_path, painter):
    """Paints a clip; returns the path of the film."""

    def run(
        frames,
        name="out.mkv",
        *,
        strength=1.0,
        mask=None,
        report=None,
        codec=None,
        painting_size=0,
        **options,
    ):
        source = tmp_path / "in.mkv"
        if not source.exists():
            make_clip(source, sixteen(frames), pixels="yuv444p", sound=Sound("aac"))
        clip = Film(source)
        if codec is None and name.endswith(".mkv"):
            codec = "ffv1"
        output = film_output(tmp_path / name, clip.shape, codec=codec, vectors=False)
        one = Painter(painter.generator, strength=strength, mask=mask, painting_size=painting_size)
        FilmRun(clip, output, one, source=source, report=report, **options).whole()
        return tmp_path / name

    return run


# --- cuts and exposure ---


def test_cuts_are_found_and_none_invented():
    frames = [*pan(12), *pan(9, 2, seed=1), *pan(15, 3, seed=2)]
    assert find_cuts(glances(frames)) == [12, 21]


def test_a_flash_and_a_fade_are_no_cuts_and_a_scene_behind_black_is_one():
    scene, other = pan(30), pan(30, seed=3)
    flash = [np.ones_like(f) if k == 14 else 0.9 + 0.1 * f if k == 15 else f
             for k, f in enumerate(scene)]  # fmt: skip
    assert find_cuts(glances(flash)) == []
    dip = [f * min(1, abs(k - 15) / 10) for k, f in enumerate(scene)]
    assert find_cuts(glances(dip)) == []
    ramp = np.clip(np.arange(30) / 20, 0, 1)
    through_black = [f * r for f, r in zip(scene, ramp[::-1], strict=True)]
    through_black += [f * r for f, r in zip(other, ramp, strict=True)]
    [cut] = find_cuts(glances(through_black))
    assert 20 < cut <= 31


@pytest.mark.parametrize("end", [0.0, 1.0], ids=["black", "white"])
def test_the_gain_of_a_fade_is_found_though_the_camera_moves(end):
    ramp = np.clip(1 - (np.arange(40) - 10) / 25, 0, 1)
    frames = [f * r + end * (1 - r) for f, r in zip(pan(40), ramp, strict=True)]
    [shot] = find_shots(glances(frames), keys=4)
    # The scene's own contrast changes by some percent as the camera moves.
    assert np.abs(shot.gain - ramp).max() < 0.08
    assert np.abs(shot.offset - end * (1 - ramp)[:, None]).max() < 0.08
    assert all(ramp[key] > 0.6 for key in shot.keys)


def test_a_scene_that_merely_moves_has_no_exposure():
    for step in (1, 3):
        [shot] = find_shots(glances(pan(30, step)), keys=4)
        assert np.all(shot.gain == 1) and np.all(shot.offset == 0)


def test_a_shot_has_a_key_frame_for_sixteen_frames_at_most():
    """Each is painted once more: more of them would make short shots slow."""
    for length, most in ((10, 1), (30, 2), (60, 4), (90, 4)):
        [shot] = find_shots(glances(pan(length, 4)), keys=4)
        assert len(shot.keys) == most


def test_a_fade_stays_a_fade_and_black_stays_black(paint):
    ramp = np.clip(1 - np.arange(16) / 12, 0, 1)
    scene = pan(16)
    film = paint([f * r for f, r in zip(scene, ramp, strict=True)], steadiness=0.0)
    means = [float(p.mean()) for p in frames_of(film)]
    for before, behind in zip(means, means[1:], strict=False):
        assert behind <= before + 0.005  # a step of 255: it never brightens
    assert means[0] > 0.25
    assert max(means[12:]) < 1.5 / 255  # the painter never sees them


def test_a_painting_bursts_where_the_frames_own_does_not():
    photo = np.full_like(sixteen([texture(64, 64)])[0], 9000)
    white, dim = np.full_like(photo, 60000), np.full_like(photo, 12000)
    assert burst(photo, white, dim)
    # A style that paints it white all the same has not burst.
    assert not burst(photo, white, white)
    assert not burst(photo, dim, white)


# --- steadiness ---


@pytest.mark.parametrize("offset", [(3, 0), (-2, 1), (0.5, 0.25)])
def test_a_shift_is_measured_to_a_fraction_of_a_pixel(offset):
    big = (texture(256, 512, 4) * 255).astype(np.float32)
    tensor = torch.from_numpy(big).permute(2, 0, 1)[None]
    columns, rows = offset

    def view(right, down):
        y, x = torch.meshgrid(torch.arange(96.0) + 80, torch.arange(160.0) + 120, indexing="ij")
        grid = torch.stack([(x + right) * 2 / 511 - 1, (y + down) * 2 / 255 - 1], -1)[None]
        part = torch.nn.functional.grid_sample(tensor, grid, align_corners=True, mode="bicubic")
        return part[0].mean(0).clamp(0, 255).numpy().astype(np.uint8)

    found = shift(view(columns, rows), view(0, 0))
    # A tenth of a pixel moves an edge of half the range by a twentieth of it.
    assert found == pytest.approx((columns, rows), abs=0.1)


@pytest.mark.parametrize("motion", [find_motion(), _Shift()], ids=["best", "plain"])
def test_flicker_of_the_painting_goes_and_the_photo_is_followed(motion):
    rng = np.random.default_rng(0)
    wide = texture(96, 200, 5)
    photos = [wide[:, 2 * k : 2 * k + 128] for k in range(9)]
    noisy = [photo + rng.normal(0, 0.05, photo.shape) for photo in photos]
    frames = [
        Painted(k, 0, *sixteen([photo, painting]))
        for k, (photo, painting) in enumerate(zip(photos, noisy, strict=True))
    ]
    for frame, mean in steadied(frames, motion, 1.0):
        inside = (slice(8, -8), slice(12, -12))
        before = np.abs(noisy[frame.index] - photos[frame.index])[inside].mean()
        after = np.abs(mean - photos[frame.index])[inside].mean()
        # Five frames' noise averages to 0.45 of one's; the ends have three, 0.58.
        assert after < 0.75 * before


def test_nothing_of_another_shot_or_of_what_differs_comes_into_a_frame():
    one, other = sixteen([texture(48, 64, 1), texture(48, 64, 2)])
    frames = [Painted(k, k // 3, *([one, one] if k < 3 else [other, other])) for k in range(6)]
    for frame, mean in steadied(frames, find_motion(), 1.0):
        assert np.abs(mean * 65535 - frame.painting).max() < 66  # a thousandth: sums in float32
    # A bright thing passes over a grey ground: no ghost of it where it is not.
    frames = []
    for k in range(5):
        photo = np.full((48, 64, 3), 0.3)
        photo[16:32, 12 * k : 12 * k + 8] = 0.9
        frames.append(Painted(k, 0, *sixteen([photo, photo])))
    for frame, mean in steadied(frames, _Shift(), 1.0):
        # But for its rim of two pixels: where a shift is a fraction off, an edge is softer there.
        away = np.ones((48, 64), bool)
        away[14:34, max(0, 12 * frame.index - 2) : 12 * frame.index + 10] = False
        difference = np.abs(mean - frame.painting / 65535)
        assert difference[away].max() < 0.02  # five steps of 255
        assert difference.max() < 0.15


def test_steadiness_zero_leaves_each_frame_as_it_is_painted():
    photos = sixteen(pan(4))
    frames = [Painted(k, 0, photo, photo[::-1].copy()) for k, photo in enumerate(photos)]
    for frame, mean in steadied(frames, find_motion(), 0.0):
        assert np.array_equal(np.rint(mean * 65535), frame.painting)


def test_colours_of_a_still_noisy_scene_hardly_drift():
    lite = Path(__file__).resolve().parent.parent / "weights" / "animebg-lite-shinkai.safetensors"
    one = Painter(load_generator(lite))
    draw, still = np.random.default_rng(0), texture(72, 96, 6)
    photos = batch([np.clip(still + draw.normal(0, 4 / 255, still.shape), 0, 1) for _ in range(8)])
    alone = torch.cat([stylize(photo[None], one.generator) for photo in photos])
    own, by_frame, film = (
        255 * images.double().mean((1, 2)).std(0).max()
        for images in (photos, alone, paint_batch(photos, one))
    )
    # The photo's own, to a twentieth of a step of 255.
    assert film < own + 0.05 and film < by_frame / 2


# --- the film ---


def frames_of(path) -> list[np.ndarray]:
    """Frames as RGB in 0..1."""
    return [frame.pixels() / 65535 for _, frame in Film(path).frames()]


def test_strength_zero_gives_the_film_back(paint, tmp_path):
    film = paint(pan(10), strength=0.0)
    for one, other in zip(pictures(tmp_path / "in.mkv"), pictures(film), strict=True):
        assert np.array_equal(one, other)
    assert packets(film, "audio") == packets(tmp_path / "in.mkv", "audio")
    assert times_of(film) == times_of(tmp_path / "in.mkv")


def test_painting_small_takes_statistics_of_small_key_frames(paint, painter, monkeypatch):
    seen = []
    gather = Painter.gather

    def spy(self, pictures, **options):
        seen.extend(picture.shape[:2] for picture in pictures)
        return gather(self, pictures, **options)

    monkeypatch.setattr(Painter, "gather", spy)
    assert len(frames_of(paint(pan(3), painting_size=32))) == 3
    assert set(seen) == {(18, 32)}


def test_what_the_mask_keeps_is_the_photo_exactly(paint, tmp_path):
    mask = torch.zeros(1, *SIZE)
    mask[:, :, 32:] = 1
    film = paint(pan(6), mask=mask)
    for photo, painted in zip(frames_of(tmp_path / "in.mkv"), frames_of(film), strict=True):
        assert np.array_equal(photo[:, :32], painted[:, :32])
        assert np.abs(photo[:, 32:] - painted[:, 32:]).mean() > 0.02


@pytest.mark.parametrize("size", [0, 32], ids=["whole", "small"])
def test_what_a_mask_leaves_out_changes_nothing(paint, tmp_path, size):
    mask = torch.zeros(1, *SIZE)
    mask[:, 4:30, 20:50] = 1
    scene, other = (texture(*SIZE, seed) for seed in (0, 1))
    mixed = np.where(mask[0, ..., None].numpy() > 0, scene, other**3)
    films = []
    for name, frame in (("one", scene), ("other", mixed)):
        (tmp_path / "in.mkv").unlink(missing_ok=True)
        name = f"{name}.mkv"
        films.append(frames_of(paint([frame] * 3, name, mask=mask, painting_size=size)))
    for first, second in zip(*films, strict=True):
        # Steps of the clips' own 8 bits of luma and colours.
        assert np.abs(first - second)[4:30, 20:50].max() < 3 / 255


def test_a_trim_is_the_same_frames_at_earlier_times(paint, tmp_path):
    film = paint(pan(20), strength=0.0, trim=Trim(Fraction(2, 10), Fraction(5, 10)))
    whole = pictures(tmp_path / "in.mkv")
    start = times_of(tmp_path / "in.mkv")[0]
    moments = [10 * (t - start) for t in times_of(tmp_path / "in.mkv")]
    wanted = [at for at, moment in enumerate(moments) if 2 <= moment < 5]
    for at, picture in zip(wanted, pictures(film), strict=True):
        assert np.array_equal(whole[at], picture)
    assert times_of(film)[0] == 0
    sound = [t for _, t in packets(film, "audio")]
    assert min(sound) >= 0 and max(sound) < 0.3
    with pytest.raises(VideoError, match="nothing to paint"):
        paint(pan(20), name="late.mkv", trim=Trim(Fraction(99)))


@pytest.mark.parametrize(
    ("trim", "lasts"),
    [
        (Trim(), Fraction(2)),
        (Trim(Fraction(1, 10), Fraction(1)), Fraction(9, 10)),
        (Trim(stop=Fraction(1, 4)), Fraction(1, 4)),
    ],
    ids=["whole", "to a frame", "within a frame"],
)
def test_the_last_frame_stays_as_long_as_in_the_film(tmp_path, painter, trim, lasts):
    from PIL import Image

    pictures8 = [Image.fromarray((frame * 255).astype(np.uint8)) for frame in pan(5)]
    durations = [100, 200, 400, 300, 1000]
    others = {"save_all": True, "append_images": pictures8[1:], "duration": durations}
    pictures8[0].save(tmp_path / "in.gif", **others)
    found = []
    for stopped in (False, True):
        clip = Animation(tmp_path / "in.gif")
        output = film_output(tmp_path / f"{stopped}.mkv", clip.shape, codec="ffv1", vectors=False)
        one = dataclasses.replace(painter, strength=0.0)
        if stopped:
            FilmRun(clip, output, one, source=None, trim=trim).begin()
            begun = FilmRun(clip, output, one, source=None, trim=trim)
            begun.begin()
            begun.paint(begun.missing())
            clip = Animation(tmp_path / "in.gif")  # another process, which reads nothing again
        FilmRun(clip, output, one, source=None, trim=trim).whole()
        with av.open(str(output.target)) as film:
            found.append(Fraction(film.duration, 1_000_000))
    assert found == [lasts, lasts]


def test_what_is_wrong_with_a_clip_is_said_once_and_again_when_it_goes_on(tmp_path, painter):
    source = make_clip(tmp_path / "in.mkv", sixteen(pan(40)), pixels="yuv444p")
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    clip = Film(source)
    output = film_output(tmp_path / "out.mkv", clip.shape, codec="ffv1", vectors=False)
    one = dataclasses.replace(painter, strength=0.0)
    FilmRun(clip, output, one, source=None).begin()
    notes = FilmRun(Film(source), output, one, source=None).whole()
    assert len(notes) == 1 and "breaks off" in notes[0]


def test_a_part_beyond_the_end_leaves_nothing_behind(paint, tmp_path):
    with pytest.raises(VideoError, match="nothing to paint"):
        paint(pan(3), trim=Trim(Fraction(9)))
    assert {path.name for path in tmp_path.iterdir()} == {"in.mkv"}


def test_options_outside_their_range_are_refused(paint):
    with pytest.raises(OptionError, match="0 to 1"):
        paint(pan(2), steadiness=1.5)
    for strength in (1.5, float("nan")):
        with pytest.raises(OptionError, match=r"strength is a number from 0 .* to 1"):
            paint(pan(2), strength=strength)


class StopHere(Exception):  # noqa: N818 - no error
    pass


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_a_stopped_film_goes_on_and_ends_the_same(paint, tmp_path, monkeypatch, codec):
    monkeypatch.setattr("animebg_core.film.work.SEGMENT", 5)
    frames = [*pan(9), *pan(8, 2, seed=1)]
    whole = paint(frames, "whole.mkv", codec=codec)
    painted = []
    for stop_at in (3, 8, 9, 15):
        begun = None

        def report(progress, stop_at=stop_at):
            nonlocal begun
            if progress.stage == "painting":
                begun = progress.done if begun is None else begun
                if progress.done >= stop_at:
                    raise StopHere

        with pytest.raises(StopHere):
            paint(frames, "again.mkv", codec=codec, report=report)
        assert not (tmp_path / "again.mkv").exists()
        painted.append(begun)
    again = paint(frames, "again.mkv", codec=codec)
    # Segments of five: all that is whole is kept.
    assert painted == [0, 0, 5, 5]
    assert packets(again, "video") == packets(whole, "video")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_other_options_begin_anew(paint, tmp_path, monkeypatch):
    monkeypatch.setattr("animebg_core.film.work.SEGMENT", 4)
    frames = pan(9)

    def report(progress):
        if progress.stage == "painting" and progress.done >= 6:
            raise StopHere

    with pytest.raises(StopHere):
        paint(frames, report=report)
    kept = []
    film = paint(frames, steadiness=0.0, report=lambda progress: kept.append(progress.kept))
    assert set(kept) == {0}
    assert len(pictures(film)) == 9


def test_a_full_disk_keeps_what_is_finished(paint, monkeypatch):
    monkeypatch.setattr("animebg_core.film.work.SEGMENT", 4)
    frames = pan(10)
    whole = paint(frames, "whole.mkv")
    add, count = frames_module.SegmentFile.add, 0

    def full(self, pixels):
        nonlocal count
        count += 1
        if count == 6:
            raise OSError(28, "No space left on device")
        add(self, pixels)

    monkeypatch.setattr(frames_module.SegmentFile, "add", full)
    with pytest.raises(OSError, match="No space left"):
        paint(frames, "again.mkv")
    kept = []
    again = paint(frames, "again.mkv", report=lambda progress: kept.append(progress.kept))
    assert max(kept) == 4
    assert packets(again, "video") == packets(whole, "video")


def test_too_little_disk_is_said_before_anything_is_painted(paint, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(film_module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(VideoError, match="make room"):
        paint(pan(4))


def test_a_segment_painted_alone_equals_the_whole(paint, tmp_path, monkeypatch):
    monkeypatch.setattr("animebg_core.film.work.SEGMENT", 4)
    frames = pan(12)
    whole = pictures(paint(frames, "whole.mkv"))

    def report(progress):
        if progress.stage == "joining":
            raise StopHere

    with pytest.raises(StopHere):
        paint(frames, "again.mkv", report=report)
    (tmp_path / ".again.mkv.animebg" / "segment-00001.mkv").unlink()
    again = pictures(paint(frames, "again.mkv"))
    for one, other in zip(whole, again, strict=True):
        assert np.array_equal(one, other)


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from animebg_core.cli import main
import animebg_core.film.work as work
work.SEGMENT = 4
main(sys.argv[1:])
"""


def test_a_killed_command_goes_on_and_ends_the_same(tmp_path, checkpoint):
    source = make_clip(tmp_path / "in.mkv", sixteen(pan(14)), pixels="yuv444p", sound=Sound("aac"))

    def command(name):
        line = ["stylize", str(source), "-o", str(tmp_path / name), "--style", str(checkpoint)]
        return [sys.executable, "-c", KILLED, *line]

    subprocess.run(command("whole.mp4"), check=True, timeout=120)
    work = tmp_path / ".again.mp4.animebg"
    kills = 0
    for wanted in (1, 2):
        process = subprocess.Popen(command("again.mp4"))
        while process.poll() is None and len(list(work.glob("segment-*.mkv"))) < wanted:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait(60)
        kept = len(list(work.glob("segment-*.mkv"))) if work.exists() else 99
        assert kept >= wanted
    assert kills  # else it showed nothing
    done = subprocess.run(
        command("again.mp4"), check=True, timeout=120, stderr=subprocess.PIPE, text=True
    )
    assert "of them painted before" in done.stderr or kills < 2
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in.mkv", "whole.mp4", "again.mp4"}


# In a process of its own: its children are forked, which a suite with threads is no place for.
CAMPAIGN = """
import dataclasses, json, torch
from benchmarks import film_kills
torch.set_num_threads(1)
film_kills.work.SEGMENT = film_kills.SEGMENT
print(json.dumps(dataclasses.asdict(film_kills.kills(3, 5))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts on fork")
def test_films_killed_at_random_moments_end_the_same():
    done = subprocess.run(
        [sys.executable, "-c", CAMPAIGN],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 3 and found["films"] and found["wrong"] == []
    # A segment, and what was on its way to its file.
    assert found["again"] < 2 * 8


def test_a_plan_that_is_not_readable_is_made_anew(paint, tmp_path):
    def report(progress):
        if progress.stage == "painting" and progress.done >= 1:
            raise StopHere

    with pytest.raises(StopHere):
        paint(pan(3), report=report)
    plan = tmp_path / ".out.mkv.animebg" / "plan.json"
    assert json.loads(plan.read_text())["steadiness"] == 1.0
    plan.write_text("{")
    assert len(pictures(paint(pan(3)))) == 3


def test_animations_and_numbered_pictures_go_in_and_out(tmp_path, checkpoint, monkeypatch):
    from PIL import Image

    from animebg_core.cli import main

    monkeypatch.chdir(tmp_path)
    first, *others = [Image.fromarray((f // 257).astype(np.uint8)) for f in sixteen(pan(4))]
    durations = [40, 120, 80, 200]
    first.save("in.webp", save_all=True, append_images=others, duration=durations, lossless=True)
    style = ["--style", str(checkpoint), "--strength", "0"]
    assert main(["stylize", "in.webp", "-o", "film.mkv", "--codec", "ffv1", *style]) == 0
    assert [1000 * t for t in times_of(tmp_path / "film.mkv")] == [0, 40, 160, 240]
    assert main(["stylize", "in.webp", "-o", "frames/%03d.png", *style]) == 0
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["001.png", "002.png", "003.png", "004.png"]
    for picture, name in zip([first, *others], names, strict=True):
        assert np.array_equal(picture, Image.open(tmp_path / "frames" / name))
    assert main(["stylize", "frames/%03d.png", "-o", "again.apng", *style]) == 0
    with Image.open("again.apng") as again:
        assert again.n_frames == 4 and again.size == first.size


# --- Batches ---


def batch(frames) -> torch.Tensor:
    return torch.from_numpy(np.stack(frames)).float()


CUT = [*pan(6), *pan(5, seed=1)]


def test_a_batch_of_frames_is_painted_as_the_film_of_them(paint, painter):
    film = Film(paint(CUT, steadiness=1.0))
    its = np.stack([frame.pixels() for _, frame in film.frames()]).astype(np.float32) / 257
    mine = paint_batch(batch(CUT), painter).numpy() * 255
    # The clip has 8 bits of a luma and two colours; random networks blow that up.
    assert np.abs(mine - its).mean() < 3
    assert np.abs(mine - np.stack(CUT) * 255).mean() > 15


def test_a_shot_of_a_batch_owes_nothing_to_the_one_before(painter):
    painted = paint_batch(batch(CUT), painter)
    alone = [paint_batch(batch(part), painter) for part in (CUT[:6], CUT[6:])]
    assert torch.equal(painted, torch.cat(alone))


def test_a_still_batch_is_painted_as_its_picture(painter):
    still = batch(CUT[:1]).repeat(4, 1, 1, 1)
    expected = stylize(still[:1], painter.generator)
    # 16 bits on the way in and out, which the norms of a small random network blow up.
    assert (paint_batch(still, painter) - expected).abs().max() < 1e-3


def test_strength_masks_and_alpha_of_a_batch_are_those_of_images(painter):
    images = torch.cat([batch(CUT[:4]), torch.rand(4, *SIZE, 1)], 3)
    full = paint_batch(images, painter)
    assert torch.equal(full[..., 3], images[..., 3])
    masks = torch.zeros(4, *SIZE)
    masks[1, 10:20] = 1
    masks[2] = 1
    one, half = (Painter(painter.generator, strength=s, mask=masks) for s in (1.0, 0.5))
    mixed = paint_batch(images, half)
    assert torch.equal(mixed[0], images[0]) and torch.equal(mixed[1, :10], images[1, :10])
    half = (images + paint_batch(images, one)) / 2
    for got, wanted in ((mixed[2], half[2]), (mixed[1, 10:20], half[1, 10:20])):
        assert (got - wanted).abs().max() < 1e-6
    assert torch.equal(paint_batch(images, Painter(painter.generator, strength=0)), images)


def test_statistics_of_a_batch_are_those_of_what_its_masks_paint(painter, monkeypatch):
    masks, seen = torch.rand(5, *SIZE), []
    gather = Painter.gather
    monkeypatch.setattr(
        Painter,
        "gather",
        lambda self, *a, masks, **o: seen.extend(masks) or gather(self, *a, masks=masks, **o),
    )
    paint_batch(batch(pan(5, 8)), Painter(painter.generator, mask=masks))
    assert len(seen) > 1
    assert all(any(torch.equal(one[0], mask) for mask in masks) for one in seen)


def test_a_batch_tells_how_far_it_is_and_can_be_stopped(painter):
    told, shown = [], []
    paint_batch(batch(CUT[:3]), painter, tell=told.append, finished=shown.append)
    assert told == sorted(told) and told[-1] >= 3 and len(shown) == 3
    assert shown[0].shape == (1, *SIZE, 3)

    def stop(done):
        if done > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paint_batch(batch(CUT[:3]), painter, tell=stop)
    with pytest.raises(OptionError):
        paint_batch(batch(CUT[:1]), painter, steadiness=2.0)
