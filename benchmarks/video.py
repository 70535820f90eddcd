"""Films: flicker and what is paid for its removal, cuts, frames a second, memory against length.

    python -m benchmarks.video steadiness CLIP --frames 140:163 --style shinkai-lite
    python -m benchmarks.video pans --style shinkai-lite
    python -m benchmarks.video scenes --style shinkai-lite
    python -m benchmarks.video strip --style shinkai-lite --picture docs/video/strip.jpg
    python -m benchmarks.video cuts CLIP [CLIP ...]
    python -m benchmarks.video speed --frames 0:48 --style shinkai-lite
    python -m benchmarks.video memory --style shinkai-lite --lengths 100 3000

Needs PyAV and OpenCV: pip install '.[video,flow]'.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from animebg_core import Painter
from animebg_core.files.styles import LITE_STYLES, STYLES
from animebg_core.files.video.reading import Film
from animebg_core.film.batch import paint_batch
from animebg_core.film.motion import find_motion
from animebg_core.film.shots import find_cuts, find_shots
from animebg_core.film.steady import Painted, steadied

from . import _common

Pictures = list[NDArray[np.float32]]  # [H, W, 3] in 0..1


def _sixteen(picture: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.rint(np.clip(picture, 0, 1) * 65535).astype(np.uint16)


def _unit(picture: NDArray[np.uint16]) -> NDArray[np.float32]:
    return picture.astype(np.float32) / 65535


# --- what is measured ---


class Flows:
    """The photo's motion between each frame and the one before, and where it can be trusted."""

    def __init__(self, photos: Pictures) -> None:
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        grey = [cv2.cvtColor(np.uint8(p * 255 + 0.5), cv2.COLOR_RGB2GRAY) for p in photos]
        rows, columns = np.mgrid[: grey[0].shape[0], : grey[0].shape[1]].astype(np.float32)
        self._grid = np.stack([columns, rows], -1)
        self._steps = []
        for before, now in zip(grey, grey[1:], strict=False):
            there, back = dis.calc(now, before, None), dis.calc(before, now, None)
            missed = there + self._moved(back, there)
            self._steps.append((there, np.square(missed).sum(-1) < 1))

    def _moved(self, picture: NDArray, flow: NDArray) -> NDArray:
        border = cv2.BORDER_REPLICATE
        return cv2.remap(picture, self._grid + flow, None, cv2.INTER_LINEAR, borderMode=border)

    def error(self, frames: Pictures) -> tuple[float, float]:
        """Warping error (Lai et al., ECCV 2018), times 1000, and mean difference of 255."""
        squares, means = [], []
        for before, now, (flow, sure) in zip(frames, frames[1:], self._steps, strict=False):
            difference = (now - self._moved(before, flow))[sure]
            squares.append(1000 * float(np.square(difference).mean()))
            means.append(255 * float(np.abs(difference).mean()))
        return float(np.mean(squares)), float(np.mean(means))


def sharpness(frames: Pictures) -> float:
    """The mean absolute Laplacian."""
    return float(np.mean([np.abs(cv2.Laplacian(f, cv2.CV_32F)).mean() for f in frames]))


def decibels(frames: Pictures, others: Pictures) -> float:
    error = np.mean([np.square(a - b).mean() for a, b in zip(frames, others, strict=True)])
    return float("inf") if error == 0 else float(-10 * np.log10(error))


# --- what is painted ---


def shared(painter: Painter, photos: Pictures) -> Pictures:
    """Painted under the statistics of their shots' key frames."""
    small = [cv2.resize(p, (16, 9), interpolation=cv2.INTER_AREA) for p in photos]
    result: Pictures = []
    for shot in find_shots(np.stack(small), keys=6):
        statistics = painter.gather([_sixteen(photos[k]) for k in shot.keys])
        for photo in photos[shot.start : shot.stop]:
            result.append(_unit(painter.paint(_sixteen(photo), statistics=statistics)))
    return result


def alone(painter: Painter, photos: Pictures) -> Pictures:
    return [_unit(painter.paint(_sixteen(photo))) for photo in photos]


def windowed(photos: Pictures, paintings: Pictures, steadiness: float) -> Pictures:
    frames = (
        Painted(k, 0, _sixteen(photo), _sixteen(painting))
        for k, (photo, painting) in enumerate(zip(photos, paintings, strict=True))
    )
    return [mean for _, mean in steadied(frames, find_motion(), steadiness)]


def temporal_median(frames: Pictures) -> Pictures:
    """FFmpeg's tmedian over five frames, at rest in the film's place."""
    graph = av.filter.Graph()
    height, width = frames[0].shape[:2]
    source = graph.add_buffer(width=width, height=height, format="gbrp", time_base=Fraction(1, 25))
    median, sink = graph.add("tmedian", "radius=2"), graph.add("buffersink")
    source.link_to(median)
    median.link_to(sink)
    graph.configure()
    result: Pictures = []

    def pull() -> None:
        while True:
            try:
                result.append(graph.pull().to_ndarray(format="rgb24").astype(np.float32) / 255)
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    for number, frame in enumerate(frames):
        array = np.uint8(np.clip(frame, 0, 1) * 255 + 0.5)
        one = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="gbrp")
        one.pts, one.time_base = number, Fraction(1, 25)
        graph.push(one)
        pull()
    graph.push(None)
    pull()
    # It begins and ends where its window is full.
    missing = len(frames) - len(result)
    return [*frames[: missing // 2], *result, *frames[len(frames) - (missing - missing // 2) :]]


# --- the tables ---


def read(path: Path, first: int, last: int, longest: int | None) -> Pictures:
    frames = Film(path, longest).frames()
    return [
        _unit(frame.pixels()[..., :3])
        for number, (_, frame) in zip(range(last), frames, strict=False)
        if number >= first
    ]


def table_steadiness(args: argparse.Namespace) -> None:
    """Each part by itself and all together, on real frames."""
    painter = Painter(_common.load_network(args).generator)
    photos = read(args.clips[0], *args.frames, args.longest)
    flows = Flows(photos)
    one, both = alone(painter, photos), shared(painter, photos)
    films = {"frame by frame": one, "the shot's statistics": both}
    for steadiness in args.steadiness:
        films[f"window, steadiness {steadiness:g}"] = windowed(photos, one, steadiness)
        films[f"both, steadiness {steadiness:g}"] = windowed(photos, both, steadiness)
    films["temporal median of frame by frame"] = temporal_median(one)
    base, own = flows.error(photos), flows.error(one)
    rows: list[Sequence[object]] = [
        ("the photo frames", f"{base[0]:.3f}", f"{base[1]:.2f}", "", "", "")
    ]
    for name, film in films.items():
        error = flows.error(film)
        excess = (error[0] - base[0]) / (own[0] - base[0])
        sharp = sharpness(film) / sharpness(one)
        near = decibels(film, one)
        fidelity = "" if np.isinf(near) else f"{near:.1f}"
        row = (name, f"{error[0]:.3f}", f"{error[1]:.2f}", f"{excess:.2f}", fidelity)
        rows.append((*row, f"{sharp:.2f}"))
    header = ("film", "warping error", "mean of 255", "excess", "dB to frame by frame", "sharpness")
    _common.print_table(header, rows)


def table_pans(args: argparse.Namespace) -> None:
    """Clean pans of a photo: the mean difference of 255 of two frames, the pan undone."""
    painter = Painter(_common.load_network(args).generator)
    height, width, count = 240, 320, 8
    photo = _common.load_photo(_common.DEMO_PHOTO, 320, 480)[0].numpy()
    rows = []
    for step in (1.0, 2.0, 3.0, 0.5, 1.5):
        photos = [_view(photo, step * k, height, width) for k in range(count)]
        one = alone(painter, photos)
        both = windowed(photos, shared(painter, photos), 1.0)
        cells = [_panned(film, step) for film in (photos, one, both)]
        share = (cells[2] - cells[0]) / max(cells[1] - cells[0], 1e-9)
        rows.append((f"{step:g}", *(f"{cell:.2f}" for cell in cells), f"{share:.2f}"))
    header = (
        "pixels a frame",
        "photo",
        "frame by frame",
        "as films are painted",
        "share of excess",
    )
    _common.print_table(header, rows)


def _view(photo: NDArray[np.float32], right: float, height: int, width: int) -> NDArray:
    matrix = np.float32([[1, 0, -right - 8], [0, 1, -8]])
    return cv2.warpAffine(photo, matrix, (width, height), flags=cv2.INTER_CUBIC)


def _panned(frames: Pictures, step: float) -> float:
    means = []
    for before, now in zip(frames[2:-3], frames[3:-2], strict=False):
        moved = _view(np.pad(before, ((8, 0), (8, 0), (0, 0))), step, *before.shape[:2])
        inside = (slice(16, -16), slice(16, -16))
        means.append(255 * float(np.abs(now - moved)[inside].mean()))
    return float(np.mean(means))


def table_scenes(args: argparse.Namespace) -> None:
    """Clips made of a photo: how much successive frames differ, and how far the mean colour goes.

    The first along the photo's motion; the second from the film's first frame, at most, so that a
    film whose colours drift shows it.
    """
    painter = Painter(_common.load_network(args).generator)
    rows: list[Sequence[object]] = []
    for name, photos in _scenes().items():
        films = [photos, alone(painter, photos), filmed(painter, photos)]
        flows = Flows(photos)
        cells = [f"{flows.error(film)[1]:.2f}" for film in films]
        rows.append((name, *cells, *(f"{drift(film):.2f}" for film in films)))
    three = ("photo", "frame by frame", "film")
    _common.print_table(("clip", *three, *(f"drift, {one}" for one in three)), rows)


def filmed(painter: Painter, photos: Pictures) -> Pictures:
    """Painted as films are, steadiness 1."""
    images = torch.from_numpy(np.stack(photos))
    return list(paint_batch(images, painter).numpy())


def drift(frames: Pictures) -> float:
    """How far the mean colour goes from that of the first frame, of 255."""
    means = np.stack([frame.mean((0, 1), dtype=np.float64) for frame in frames])
    return 255 * float(np.abs(means - means[0]).max())


def _scenes() -> dict[str, Pictures]:
    height, width, count = 240, 320, 16
    photo = _common.load_photo(_common.DEMO_PHOTO, 320, 480)[0].numpy()
    still = np.ascontiguousarray(photo[8 : 8 + height, 8 : 8 + width])
    other = photo[::-1, ::-1][8 : 8 + height, 8 : 8 + width]
    draw = np.random.default_rng(0)

    def zoomed(k: int) -> NDArray:
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0, 1 + 0.01 * k)
        return cv2.warpAffine(photo, matrix, (width, height), flags=cv2.INTER_CUBIC)

    ramp = np.clip(1 - np.arange(count) / (count - 4), 0, 1)
    clips = {
        "still": [still] * count,
        "still, noise of 4 of 255": [
            still + draw.normal(0, 4 / 255, still.shape) for _ in range(count)
        ],
        "still, light that wavers by 2%": [
            still * (1 + 0.02 * np.sin(1.7 * k)) for k in range(count)
        ],
        "pan of 2 pixels": [_view(photo, 2 * k, height, width) for k in range(count)],
        "zoom of 1% a frame": [zoomed(k) for k in range(count)],
        "fade to black": [still * r for r in ramp],
        "fade to white": [still * r + 1 - r for r in ramp],
        "white flash": [np.ones_like(still) if k == 8 else still for k in range(count)],
        "cut": [still if k < 8 else other for k in range(count)],
    }
    return {
        name: [np.clip(frame, 0, 1).astype(np.float32) for frame in frames]
        for name, frames in clips.items()
    }


def strip(args: argparse.Namespace) -> None:
    """A picture of successive frames of a pan: the photo, frame by frame, as films are painted, and
    what changes from frame to frame, the pan undone, eightfold."""
    painter = Painter(_common.load_network(args).generator)
    height, width, count, step, side = 240, 320, 8, 3, 150
    photo = _common.load_photo(_common.DEMO_PHOTO, 320, 480)[0].numpy()
    photos = [_view(photo, step * k, height, width) for k in range(count)]
    films = [photos, alone(painter, photos), filmed(painter, photos)]
    rows = [film[2:7] for film in films]
    for film in films[1:]:
        moved = [_view(np.pad(f, ((8, 0), (8, 0), (0, 0))), step, height, width) for f in film]
        rows.append([8 * np.abs(film[k] - moved[k - 1]) for k in range(2, 7)])
    parts = [
        np.concatenate([frame[60 : 60 + side, 100 : 100 + side] for frame in row], 1)
        for row in rows
    ]
    picture = np.uint8(np.clip(np.concatenate(parts), 0, 1) * 255 + 0.5)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(args.picture, quality=85)
    print(f"{args.picture}: {args.picture.stat().st_size >> 10} KB")


def table_cuts(args: argparse.Namespace) -> None:
    """The cuts of clips."""
    rows = []
    for path in args.clips:
        small = np.stack([frame.glance() for _, frame in Film(path).frames()])
        rows.append((path.name, len(small), ", ".join(map(str, find_cuts(small))) or "none"))
    _common.print_table(("clip", "frames", "a shot begins at"), rows)


def table_speed(args: argparse.Namespace) -> None:
    """Frames a second: in memory, one by one, and as films with their files; of a clip, or of a
    pan of 640x360 that is made for it."""
    if not args.clips:
        with tempfile.TemporaryDirectory() as made:
            args.clips = [Path(made, "pan.mp4")]
            _made(args.clips[0], args.frames[1])
            table_speed(args)
        return
    from animebg_core.files.video.output import film_output
    from animebg_core.files.video.writing import Trim
    from animebg_core.film.film import FilmRun

    painter = Painter(_common.load_network(args).generator)
    first, last = args.frames
    photos = read(args.clips[0], first, last, args.longest)
    images = [torch.from_numpy(photo)[None] for photo in photos]
    clip = Film(args.clips[0], args.longest)
    vectors = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    trim = Trim(first / clip.shape.rate, last / clip.shape.rate)

    def film(steadiness: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            output = film_output(Path(folder, "out.mp4"), clip.shape, vectors=vectors)
            FilmRun(
                clip, output, painter, source=args.clips[0], steadiness=steadiness, trim=trim
            ).whole()

    from animebg_core import stylize

    variants = {
        "stylize of frames in memory": lambda: [stylize(i, painter.generator) for i in images],
        "film, steadiness 0, with its files": lambda: film(0.0),
        "film, steadiness 1, with its files": lambda: film(1.0),
    }
    worked: dict[str, float] = {}

    def timed(name: str, run: Callable[[], object]) -> None:
        begin = time.process_time()
        run()
        worked[name] = min(worked.get(name, math.inf), time.process_time() - begin)

    best = _common.best_times(
        {name: partial(timed, name, run) for name, run in variants.items()}, args.rounds
    )
    height, width = photos[0].shape[:2]
    rows = [
        (name, f"{len(photos) / seconds:.2f}", f"{worked[name] / len(photos):.3f}")
        for name, seconds in best.items()
    ]
    _common.print_table(
        (f"{len(photos)} frames of {width}x{height}", "frames a second", "CPU seconds a frame"),
        rows,
    )


def table_memory(args: argparse.Namespace) -> None:
    """Peak memory against the length of a film: of the command, or of a host that runs the node."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length in args.lengths:
            source = Path(folder, f"{length}.mp4")
            _made(source, length)
            measure = _by_node if args.comfyui else _by_command
            begin = time.perf_counter()
            peak = measure(args, source, Path(folder, str(length)))
            took = time.perf_counter() - begin
            rows.append((length, _common.mebibytes(peak), f"{length / took:.2f}"))
    _common.print_table(("frames of 640x360", "peak MiB", "frames a second, with the start"), rows)


def _by_command(args: argparse.Namespace, source: Path, room: Path) -> int:
    """Bytes at the most, resident, in a process of its own."""
    # Not of getrusage: its peak is passed on by the process that started this one.
    code = (
        "import sys; from animebg_core.cli import main; assert main(sys.argv[1:]) == 0;"
        "from benchmarks._measure import status; print(status('VmHWM'))"
    )
    line = ["stylize", str(source), "-o", f"{room}-out.mp4", "--style", args.style]
    line += ["--steadiness", str(args.steadiness[0])]
    line += ["--painting-size", str(args.painting_size)] if args.painting_size else []
    line += ["--weights-dir", args.weights_dir] if args.weights_dir else []
    command = [sys.executable, "-c", code, *line]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])


def _by_node(args: argparse.Namespace, source: Path, room: Path) -> int:
    """As `_by_command`, of the server that runs the workflow, a fresh one for each film."""
    import comfy_host  # `tests` is on the path since `_common`

    os.environ["COMFYUI_PYTHON"] = args.python
    host = comfy_host.Host(args.comfyui, room, HF_HUB_OFFLINE="1")
    try:
        shutil.copy(source, host.base / "input")
        graph = comfy_host.Graph()
        look = {"strength": 1.0, "colour": 1.0, "painting_size": args.painting_size}
        film = graph(
            "AnimeBGApplyStyleToVideo",
            model=graph.load((STYLES | LITE_STYLES)[args.style].label),
            video=graph("LoadVideo", file=source.name),
            steadiness=args.steadiness[0],
            **look,
        )
        graph("SaveVideo", video=film, filename_prefix="film", format="auto", codec="auto")
        client = comfy_host.load_client().Client(host.server)
        try:
            client.run(graph.nodes)
        finally:
            client.close()
        return host.peak()
    finally:
        host.stop()


def _made(path: Path, length: int) -> None:
    """A pan to and fro over the demo photo."""
    photo = _common.load_photo(_common.DEMO_PHOTO, 400, 720)[0].numpy()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for array in _walk(photo, length):
            for packet in stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


def _walk(photo: NDArray[np.float32], length: int) -> Iterator[NDArray[np.uint8]]:
    for number in range(length):
        right = abs((number * 2) % 140 - 70)
        part = photo[20:380, right : right + 640]
        yield np.ascontiguousarray(np.uint8(part * 255 + 0.5))


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    return int(first or 0), int(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    tables = {
        "steadiness": table_steadiness,
        "pans": table_pans,
        "scenes": table_scenes,
        "strip": strip,
        "cuts": table_cuts,
        "speed": table_speed,
        "memory": table_memory,
    }
    parser.add_argument("table", choices=tables)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    parser.add_argument("--frames", type=_range, default=(0, 24), metavar="A:B")
    parser.add_argument("--longest", type=int, metavar="N")
    parser.add_argument("--steadiness", type=float, nargs="+", default=[1.0], metavar="F")
    parser.add_argument("--painting-size", type=int, default=0, metavar="N", help="of `memory`")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--picture", type=Path, default=Path("strip.jpg"), help="of `strip`")
    text = "of `memory`: through the node, in this folder of ComfyUI"
    parser.add_argument("--comfyui", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 3000], metavar="N")
    _common.add_network_arguments(parser)
    args = parser.parse_args()
    _common.print_header("av", "opencv-python-headless")
    print("$ python -m benchmarks.video " + " ".join(sys.argv[1:]) + "\n")
    tables[args.table](args)


if __name__ == "__main__":
    main()
