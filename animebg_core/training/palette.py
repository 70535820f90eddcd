"""A film's palette: the colour map that takes a network's paintings to its frames.

Two steps. The first is linear (Pitie and Kokaram, "The linear Monge-Kantorovitch linear colour
mapping for example-based colour transfer", CVMP 2007): of all maps that give one set of colours the
mean and the covariance of another, the one that moves them least. The second pairs areas of the
paintings with areas of the frames by optimal transport (Cuturi, "Sinkhorn distances", NIPS 2013)
and fits a quadratic map to the pairs, which closes 5 to 10% more of the distance. Both are bounded.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Colours = NDArray[np.float64]
Pixels = NDArray[np.uint8]

# What a map may do, whatever the frames are. See `docs/own-style.md`, under "Bounds".
WIDEST, NARROWEST = 1.3, 0.4  # how much wider or narrower a direction of colour may become
FARTHEST = 0.25  # how far the mean may move, of the way from black to white: in lightness
TINGED = 0.1  # and in each of R, G, B less lightness
_GRAIN = (2 / 255) ** 2  # variance below which a direction of colour is noise
_AREA = 24  # areas along the longer side of a picture: their means are paired, not pixels
_PAIRED = 4000  # areas of each side
_SOFTNESS = 0.004  # of the pairing: squared distance of colours that is next to none
_PULL = 1e-3  # back to the linear map: a share of the areas
_LIGHTEST = 0.02  # share of the frames' areas that tells what white becomes
_WHITE_FROM, _WHITE, _WHITE_CHROMA = 0.55, 0.8, 0.15  # lightness; the widest range of R, G and B
_TRIES = 8  # halvings of the way from the linear map to the fitted one


@dataclass(frozen=True, slots=True)
class Moments:
    """Of a set of colours, RGB in [0, 1]: mean [3] and covariance [3, 3]."""

    mean: Colours
    covariance: Colours


# Of 254 photographs of landscapes, towns and people, with leave to use them (training/SOURCES.md).
PHOTOGRAPHS = Moments(
    np.array([0.4317, 0.4259, 0.3950]),
    np.array([[0.0723, 0.0626, 0.0601], [0.0626, 0.0702, 0.0690], [0.0601, 0.0690, 0.0830]]),
)


@dataclass(frozen=True, slots=True)
class ColourMap:
    """RGB in [0, 1] to the same, not cut to [0, 1].

    Attributes:
        weights: [10, 3], of `terms`.
        whites: [10, 3], of `terms` times `whiteness`, which are added to these.
    """

    weights: Colours
    whites: Colours = field(default_factory=lambda: np.zeros((10, 3)))

    def __call__(self, rgb: Pixels) -> Pixels:
        """uint8 RGB [H, W, 3] through the map, cut to what there is."""
        flat = rgb.reshape(-1, 3) / 255
        known = terms(flat)
        made = known @ self.weights + whiteness(flat) * (known @ self.whites)
        return np.rint(made.clip(0, 1) * 255).astype(np.uint8).reshape(rgb.shape)

    def slopes(self, rgb: Colours) -> Colours:
        """Its Jacobian at colours [N, 3], but for whites: [N, 3 made, 3 of the source]."""
        r, g, b = rgb.T[:, :, None]
        _, wr, wg, wb, wrr, wgg, wbb, wrg, wgb, wrb = self.weights
        columns = (
            wr + 2 * wrr * r + wrg * g + wrb * b,
            wg + 2 * wgg * g + wrg * r + wgb * b,
            wb + 2 * wbb * b + wgb * g + wrb * r,
        )
        return np.stack(columns, -1)

    def towards(self, other: ColourMap, share: float) -> ColourMap:
        """The map between this one (0) and another (1)."""
        return ColourMap(
            (1 - share) * self.weights + share * other.weights,
            (1 - share) * self.whites + share * other.whites,
        )

    def with_whites(self, tinge: Colours) -> ColourMap:
        """The same, but white and light greys get this tinge [3], R, G and B less their mean."""
        to_grey = np.full((3, 3), 1 / 3) - np.eye(3)
        whites = self.weights @ to_grey
        whites[0] += tinge
        return ColourMap(self.weights, whites)


def terms(rgb: Colours) -> Colours:
    """1, r, g, b and their six products of two, of colours [N, 3]: [N, 10]."""
    r, g, b = rgb.T
    return np.stack([np.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, g * b, r * b], 1)


def whiteness(rgb: Colours) -> Colours:
    """How white colours [N, 3] are: [N, 1], 1 for white and light greys, 0 for all that is dark
    or of a colour.
    """
    light = (rgb.mean(1, keepdims=True) - _WHITE_FROM) / (_WHITE - _WHITE_FROM)
    chroma = np.ptp(rgb, axis=1)[:, None] / _WHITE_CHROMA
    return light.clip(0, 1) * (1 - chroma).clip(0, 1) ** 2


def _linear(matrix: Colours, shift: Colours) -> ColourMap:
    return ColourMap(np.concatenate([shift[None], matrix.T, np.zeros((6, 3))]))


SAME = _linear(np.eye(3), np.zeros(3))


def moments(pictures: Sequence[Pixels]) -> Moments:
    """Of uint8 RGB [H, W, 3] pictures together; each counts alike, whatever its size."""
    flat = [picture.reshape(-1, 3) / 255 for picture in pictures]
    mean = np.mean([side.mean(axis=0) for side in flat], axis=0)
    squares = np.mean([side.T @ side / len(side) for side in flat], axis=0)
    return Moments(mean, squares - np.outer(mean, mean))


def linear_map(source: Moments, target: Moments) -> ColourMap:
    """The bounded linear map that gives `source` the moments of `target`."""
    grain = _GRAIN * np.eye(3)
    root = _power(source.covariance + grain, 0.5)
    inverse = _power(source.covariance + grain, -0.5)
    matrix = inverse @ _power(root @ (target.covariance + grain) @ root, 0.5) @ inverse
    values, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    matrix = axes * values.clip(NARROWEST, WIDEST) @ axes.T
    mean = source.mean + bounded_move(target.mean - source.mean)
    return _linear(matrix, mean - matrix @ source.mean)


def bounded_move(move: Colours) -> Colours:
    """A move of a mean colour [3], its change of lightness and its tinge each made small enough."""
    light = move.mean()
    tinge = move - light
    tinge = tinge * min(1.0, TINGED / max(1e-9, float(np.abs(tinge).max())))
    return tinge + light.clip(-FARTHEST, FARTHEST)


def colour_map(source: Sequence[Pixels], target: Sequence[Pixels], match: float = 1.0) -> ColourMap:
    """The bounded map that gives the pictures `source` the colours of `target`.

    Args:
        match: 1 is the whole way, 0 none.
    """
    first = linear_map(moments(source), moments(target))
    areas, wanted = _areas(source), _areas(target)
    known = terms(areas)
    made = known @ first.weights
    # Drawn to the linear map where there are few areas, or all alike.
    pull = _PULL * len(areas) * np.eye(10)
    moved = np.linalg.solve(known.T @ known + pull, known.T @ (_paired(made, wanted) - made))
    fitted = ColourMap(first.weights + moved)
    share = 1.0
    for _ in range(_TRIES):
        if _is_bounded(first.towards(fitted, share), areas):
            break
        share /= 2
    else:
        share = 0.0
    lightest = wanted[np.argsort(wanted.mean(1))[-max(1, round(_LIGHTEST * len(wanted))) :]]
    tinge = bounded_move(lightest.mean(0) - lightest.mean())
    bounded = first.towards(fitted, share).with_whites(tinge)
    return SAME.towards(bounded, match)


def _is_bounded(colours: ColourMap, areas: Colours) -> bool:
    """Every direction of colour keeps its sense, and none gets too wide; nor goes all too far."""
    slopes = colours.slopes(areas)
    gains = np.linalg.eigvalsh((slopes + slopes.transpose(0, 2, 1)) / 2)
    # Locally a little more than on the whole.
    if gains.min() < 0.5 * NARROWEST or gains.max() > 1.3 * WIDEST:
        return False
    moved = (terms(areas) @ colours.weights).mean(axis=0) - areas.mean(axis=0)
    return bool(np.abs(moved - bounded_move(moved)).max() <= 0.02)


def _areas(pictures: Sequence[Pixels]) -> Colours:
    """Mean colours [N, 3] of square areas of the pictures, in [0, 1], at most `_PAIRED`."""
    found: list[Colours] = []
    for picture in pictures:
        side = max(1, max(picture.shape[:2]) // _AREA)
        high, wide = (max(1, size // side) for size in picture.shape[:2])
        cut = picture[: high * side, : wide * side]
        cells = cut.reshape(high, cut.shape[0] // high, wide, cut.shape[1] // wide, 3)
        found.append(cells.mean((1, 3)).reshape(-1, 3) / 255)
    areas = np.concatenate(found)
    return areas[np.random.default_rng(0).permutation(len(areas))[:_PAIRED]]


def _paired(made: Colours, wanted: Colours) -> Colours:
    """For each colour of `made` [N, 3] the mean of those of `wanted` [M, 3] that fall to it."""
    squares = np.square(made).sum(1)[:, None] - 2 * made @ wanted.T + np.square(wanted).sum(1)
    kernel = np.exp(-(squares - squares.min(1, keepdims=True)) / _SOFTNESS)
    columns = np.ones(len(wanted))
    least = 1e-200  # where nothing is near, nothing is divided by zero
    for _ in range(50):
        rows = 1 / np.maximum(kernel @ columns, least)
        columns = (len(made) / len(wanted)) / np.maximum(kernel.T @ rows, least)
    plan = kernel * columns
    return plan @ wanted / np.maximum(plan.sum(1, keepdims=True), least)


def _power(matrix: Colours, power: float) -> Colours:
    """Of a symmetric matrix without negative eigenvalues."""
    values, axes = np.linalg.eigh(matrix)
    return axes * values.clip(1e-12) ** power @ axes.T
