"""How near a style of one's own comes to a truth that is known.

    python -m training.truth --teachers WEIGHTS --photos PHOTOS --published PUBLISHED --target kon

The frames are what a published network paints of some photographs; a network learns from them as
`animebg train` does, with other photographs, and is held against what the published one makes of a
third lot. Prints a table, the best that one colour matrix does of photo and start beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animebg_core import Generator

from .evaluate import Published, encoder_maps, psnr, spots

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


def best_of_all(made: list[Picture], wanted: list[Picture]) -> list[Picture]:
    """Under the one 3x4 matrix that comes closest to the truths, which nobody could know."""
    a = np.concatenate([x.reshape(-1, 3) / 255 for x in made])
    a = np.concatenate((a, np.ones((len(a), 1))), 1)
    b = np.concatenate([y.reshape(-1, 3) for y in wanted]).astype(np.float64)
    matrix = np.linalg.solve(a.T @ a, a.T @ b)
    return [np.rint((x / 255 @ matrix[:3] + matrix[3]).clip(0, 255)).astype(np.uint8) for x in made]
