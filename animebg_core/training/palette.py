"""A film's palette: the colour map that takes a network's paintings to its frames, and the network
that has learned it.

Source of the map: Pitié and Kokaram, "The linear Monge-Kantorovitch linear colour mapping for
example-based colour transfer" (CVMP 2007): of all maps that give one set of colours the mean and
the covariance of another, the one that moves them least.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colours = NDArray[np.float64]

# What the map may do, whatever the frames are. See `docs/own-style.md`, under "Bounds".
WIDEST, NARROWEST = 2.5, 0.4  # how much wider or narrower a direction of colour may become
FARTHEST = 0.25  # how far the mean may move, of the way from black to white in each channel
_GRAIN = (2 / 255) ** 2  # variance below which a direction of colour is noise


@dataclass(frozen=True, slots=True)
class Moments:
    """Of a set of colours, RGB in [0, 1]: mean [3] and covariance [3, 3]."""

    mean: Colours
    covariance: Colours


@dataclass(frozen=True, slots=True)
class ColourMap:
    """`matrix` [3, 3] @ rgb + `shift` [3], of RGB in [0, 1]."""

    matrix: Colours
    shift: Colours

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 RGB [H, W, 3] through the map, cut to what there is."""
        made = rgb / 255 @ self.matrix.T + self.shift
        return np.rint(made.clip(0, 1) * 255).astype(np.uint8)


# Of 254 photographs of landscapes, towns and people, with leave to use them (training/SOURCES.md).
PHOTOGRAPHS = Moments(
    np.array([0.4317, 0.4259, 0.3950]),
    np.array([[0.0723, 0.0626, 0.0601], [0.0626, 0.0702, 0.0690], [0.0601, 0.0690, 0.0830]]),
)


def moments(pictures: Iterable[NDArray[np.uint8]]) -> Moments:
    """Of uint8 RGB [H, W, 3] pictures together; each counts alike, whatever its size."""
    means: list[Colours] = []
    squares: list[Colours] = []
    for picture in pictures:
        flat = picture.reshape(-1, 3) / 255
        means.append(flat.mean(axis=0))
        squares.append(flat.T @ flat / len(flat))
    mean = np.mean(means, axis=0)
    return Moments(mean, np.mean(squares, axis=0) - np.outer(mean, mean))


def colour_map(source: Moments, target: Moments, match: float = 1.0) -> ColourMap:
    """The bounded map from `source` towards `target`.

    Args:
        match: 1 is the whole way, 0 none.
    """
    grain = _GRAIN * np.eye(3)
    root = _power(source.covariance + grain, 0.5)
    inverse = _power(source.covariance + grain, -0.5)
    matrix = inverse @ _power(root @ (target.covariance + grain) @ root, 0.5) @ inverse
    values, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    matrix = axes * values.clip(NARROWEST, WIDEST) @ axes.T
    mean = source.mean + (target.mean - source.mean).clip(-FARTHEST, FARTHEST)
    matrix = (1 - match) * np.eye(3) + match * matrix
    mean = (1 - match) * source.mean + match * mean
    return ColourMap(matrix, mean - matrix @ source.mean)


def _power(matrix: Colours, power: float) -> Colours:
    """Of a symmetric matrix without negative eigenvalues."""
    values, axes = np.linalg.eigh(matrix)
    return axes * values.clip(1e-12) ** power @ axes.T
