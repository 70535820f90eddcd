"""How near a style of one's own comes to a truth that is known.

    python -m training.truth --teachers WEIGHTS --photos PHOTOS --published PUBLISHED --target kon

The frames are what a published network paints of some photographs; a network learns from them as
`animebg train` does, with other photographs, and is held against what the published one makes of a
third lot. Prints a table, the best that one colour matrix does of photo and start beside it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animebg_core import STYLES, Generator, load_generator
from animebg_core.training import drawing, own
from animebg_core.training.data import scaled
from animebg_core.training.loop import Progress
from animebg_core.training.palette import linear_map, moments
from animebg_core.training.pictures import LONGEST, Pictures

from .evaluate import Published, best_of_all, contact_sheet, encoder_maps, paint, psnr, spots
from .gather import photos

Picture = np.ndarray  # uint8 RGB [H, W, 3]


def sliced_distance(one: Tensor, other: Tensor, directions: int = 64) -> float:
    """Sliced Wasserstein distance (mean of absolute differences) of two sets [N, C], in deviations
    of the second (Bonneel et al., "Sliced and Radon Wasserstein barycenters of measures", 2015).
    """
    drawn = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(one.shape[1], directions, generator=drawn), dim=0)
    at = (torch.arange(1000) + 0.5) / 1000
    ends = []
    for side in (one, other):
        ordered = ((side - other.mean(0)) / other.std(0).clamp_min(1e-6) @ rows).sort(0).values
        ends.append(ordered[(at * len(side)).long()])
    return float((ends[0] - ends[1]).abs().mean())


def _sample(flat: Tensor, count: int = 4000) -> Tensor:
    return flat[torch.randint(len(flat), (count,), generator=torch.Generator().manual_seed(1))]


def colours(picture: Picture) -> Tensor:
    """Some of its colours, [N, 3]."""
    return _sample(torch.from_numpy(picture.copy()).reshape(-1, 3).float() / 255)


@dataclass(frozen=True)
class Figures:
    """Of a set of pictures against the truths: distances of colours and of maps, of the sets and
    means over the pictures; decibels; cells that are coloured spots, in all.
    """

    colours: float
    maps: float
    colours_each: float
    maps_each: float
    decibels: float
    spots: int


class Truth:
    """What is known: the photographs held out, and what the published network makes of them."""

    def __init__(self, published: Published, style: str, paths: list[Path], size: int) -> None:
        self.teacher: Generator = published.teacher(style)
        pairs = [published.pair(style, path, size) for path in paths]
        self.names = [path.stem for path in paths]
        self.photos = [photo for photo, _ in pairs]
        self.truths = [painted for _, painted in pairs]
        self._colours = [colours(truth) for truth in self.truths]
        self._maps = [self._seen(truth) for truth in self.truths]

    @torch.no_grad()
    def _seen(self, picture: Picture) -> list[Tensor]:
        maps = encoder_maps(self.teacher, picture)
        return [_sample(side[0].flatten(1).T, 2000) for side in maps]

    def distance_of_colours(self, pictures: list[Picture]) -> float:
        """Of a set of pictures, which need not be of the photographs."""
        found = torch.cat([colours(picture) for picture in pictures])
        return sliced_distance(found, torch.cat(self._colours))

    def figures(self, made: list[Picture]) -> Figures:
        """Of one picture for each photograph."""
        coloured = [colours(picture) for picture in made]
        seen = [self._seen(picture) for picture in made]
        depths = range(len(seen[0]))

        def of_maps(a: list[list[Tensor]], b: list[list[Tensor]]) -> float:
            pairs = [(torch.cat([x[k] for x in a]), torch.cat([y[k] for y in b])) for k in depths]
            return float(np.mean([sliced_distance(*pair) for pair in pairs]))

        each = [sliced_distance(a, b) for a, b in zip(coloured, self._colours, strict=True)]
        maps_each = [of_maps([a], [b]) for a, b in zip(seen, self._maps, strict=True)]
        return Figures(
            sliced_distance(torch.cat(coloured), torch.cat(self._colours)),
            of_maps(seen, self._maps),
            float(np.mean(each)),
            float(np.mean(maps_each)),
            float(np.mean([psnr(a, b) for a, b in zip(made, self.truths, strict=True)])),
            sum(spots(a, b) for a, b in zip(made, self.truths, strict=True)),
        )


def row(name: str, seconds: float | None, found: Figures, start: Figures) -> str:
    """A line of the table: how much of the way from the start to the truth is closed."""

    def closed(part: str) -> str:
        return f"{1 - getattr(found, part) / getattr(start, part):.0%}"

    parts = [closed(part) for part in ("colours", "maps", "colours_each", "maps_each")]
    spent = "" if seconds is None else f"{seconds:.0f}"
    return f"| {' | '.join([name, spent, *parts, f'{found.decibels:.1f}', str(found.spots)])} |"


HEAD = (
    "| | seconds | colours, set | maps, set | colours, each | maps, each | dB | spots |\n"
    "|---|---|---|---|---|---|---|---|"
)


def photos_of(
    folder: Path, frames: int, held_out: int
) -> tuple[list[Path], list[Path], list[Path]]:
    """Photographs for the frames, to train on, and held out: of what `gather` laid out, or of any
    folder, in an order of its own.
    """
    if (folder / "index.json").exists():
        rest, held = photos(folder, "train"), photos(folder, "holdout")[:held_out]
    else:
        rest = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
        random.Random(1).shuffle(rest)
        rest, held = rest[held_out:], rest[:held_out]
    random.Random(1).shuffle(rest)
    return rest[:frames], rest[frames:], held


def palette(order: own.Order, folder: Path, seconds: list[float]) -> own.Palette:
    """Trained as `animebg train` trains; the seconds that it took are added."""
    began = time.monotonic()
    training = own.begin(order, folder / "truth.safetensors")
    training.go(training.steps, look_every=1 << 30, save_seconds=1e9)
    seconds.append(time.monotonic() - began)
    return training


def curve(
    training: own.Palette,
    steps: int,
    given: list[Picture],
    show: Callable[[str, list[Picture], float | None], None],
) -> list[Picture]:
    """The curve, a row each time that the training looks; what is kept at the end, painted."""
    drawing.DRAWING_STEPS = steps
    drawn = own.drawing(training)

    def painted(values: Mapping[str, Tensor]) -> list[Picture]:
        network = Generator({name: value.clone() for name, value in values.items()})
        return [own.painted(network, photo) for photo in given]

    def tell(now: Progress) -> None:
        if now.looked:
            name = f"drawing, {now.step} steps ({now.looked['distance']:.3f})"
            show(name, painted(drawn.average), drawn.seconds)

    drawn.go(steps, look_every=drawing.LOOK_EVERY, save_seconds=1e9, tell=tell)
    made = painted(drawn.best)
    show(f"drawing, kept: {drawn.best_step} steps", made, drawn.seconds)
    return made


def main() -> None:
    """Train, measure, print; save a contact sheet if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teachers", required=True, type=Path, help="the published networks")
    parser.add_argument("--photos", required=True, type=Path, help="folder with index.json, or any")
    parser.add_argument("--published", required=True, type=Path, help="their paintings, kept")
    parser.add_argument("--target", default="kon", choices=list(STYLES))
    parser.add_argument("--start", default="shinkai-lite", help="a style, or a file")
    parser.add_argument("--frames", type=int, default=56, help="how many")
    parser.add_argument("--held-out", type=int, default=20, help="photographs to measure on")
    parser.add_argument("--size", type=int, default=384, help="longest side")
    parser.add_argument("--steps", type=int, default=own.PALETTE_STEPS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--drawing", type=int, default=0, metavar="STEPS", help="after the palette")
    parser.add_argument("--alone", action="store_true", help="also without any photographs")
    parser.add_argument("--ceiling", help="a network to compare with, such as kon-lite")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    own.PALETTE_STEPS = args.steps
    for_frames, for_training, held_out = photos_of(args.photos, args.frames, args.held_out)
    published = Published(args.teachers, args.published)
    truth = Truth(published, args.target, held_out, args.size)
    frames = [published.pair(args.target, path, args.size)[1] for path in for_frames]
    network = load_generator(args.start)
    started = [own.painted(network, photo) for photo in truth.photos]
    start = truth.figures(started)

    def show(name: str, made: list[Picture], seconds: float | None = None) -> None:
        print(row(name, seconds, truth.figures(made), start), flush=True)

    print(f"{args.target} from {args.start}: {len(frames)} frames, {len(for_training)} photographs")
    # What is drawn to the frames' colours cannot be expected nearer to the truths than they are.
    nearest = 1 - truth.distance_of_colours(frames) / start.colours
    print(f"the frames themselves, as a set of colours: {nearest:.0%}")
    print(HEAD, flush=True)
    show("the photo", truth.photos)
    show("start", started)
    known = [np.asarray(scaled(path, 320)) for path in for_training[:100]]
    wanted = moments(frames)
    to_frames = linear_map(moments(known), wanted)
    show("photo and one matrix", [to_frames(photo) for photo in truth.photos])
    to_frames = linear_map(moments([own.painted(network, photo) for photo in known]), wanted)
    show("start and one matrix", [to_frames(picture) for picture in started])
    best = best_of_all(started, truth.truths)
    show("start and the best matrix, by the truths", best)
    given = Pictures({Path(f"{n}"): frame for n, frame in enumerate(frames)})
    pictures = Pictures({path: np.asarray(scaled(path, LONGEST)) for path in for_training})
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        order = own.Order(network, args.start, given, pictures, seed=args.seed)
        training = palette(order, Path(scratch, "with"), seconds)
        show("start and the map", [training.towards(picture) for picture in started])
        learned = [own.painted(training.network(), photo) for photo in truth.photos]
        show("palette", learned, seconds[-1])
        if args.drawing:
            learned = curve(training, args.drawing, truth.photos, show)
        if args.alone:
            order = own.Order(network, args.start, given, None, seed=args.seed)
            training = palette(order, Path(scratch, "without"), seconds)
            made = [own.painted(training.network(), photo) for photo in truth.photos]
            show("palette, without photos", made, seconds[-1])
    if args.ceiling:
        ceiling = load_generator(args.ceiling)
        show(args.ceiling, [paint(ceiling, photo) for photo in truth.photos])
    if args.sheet:
        rows = list(zip(truth.photos, truth.truths, learned, strict=True))
        contact_sheet(rows, truth.names).save(args.sheet, quality=88)


if __name__ == "__main__":
    main()
