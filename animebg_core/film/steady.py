"""Steadiness: each painted frame as the mean of its neighbours, moved along the photo's motion.

A window instead of a filter that goes on and on: a frame depends on two before and two behind it,
and so is the same wherever a run begins.
"""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .motion import Flow, Motion

_LIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32) / 65535  # of red, green, blue
REACH = 2  # frames on each side
# A neighbour counts by how well the photo agrees there: exp(-(difference / _AGREES)^2).
_AGREES = 0.08
# And by how near it is. What flickers on a pan is where the picture lies on the network's grid of 4
# pixels: with halves at the ends, a pan of 1, 2 or 3 pixels a frame sees all its places alike.
_SHARES = {1: 1.0, 2: 0.5}
# Moving a picture by half a pixel softens it: so much of its finest detail is added again.
_CRISPER = 0.14
_WHOLE = 0.12  # pixels
_APART = 1.0  # pixels by which the ways there and back may miss each other


def check_steadiness(steadiness: float) -> None:
    """Refuse what is not within 0..1.

    Raises:
        OptionError: it is not.
    """
    if not 0 <= steadiness <= 1:
        raise OptionError(f"steadiness goes from 0 to 1, got {steadiness}")


@dataclass(frozen=True, slots=True)
class Painted:
    """A frame and its painting, both as the scene is, its exposure taken out.

    Attributes:
        index: of the frame in the film.
        shot: a number that frames of one shot share.
        photo, painting: [H, W, 3] uint16.
        alone: it is not to be mixed with others: a flat frame, or one that is not painted.
    """

    index: int
    shot: int
    photo: NDArray[np.uint16]
    painting: NDArray[np.uint16]
    alone: bool = False


def steadied(
    frames: Iterable[Painted], motion: Motion, steadiness: float
) -> Iterator[tuple[Painted, NDArray[np.float32]]]:
    """Each frame, and its painting [H, W, 3], 0..1, made steady with its neighbours'.

    Args:
        frames: in order, without a gap.
        steadiness: 0 leaves each as it is; 1 lets a neighbour that agrees count like the frame.
    """
    if steadiness == 0:
        for frame in frames:
            yield frame, np.multiply(frame.painting, np.float32(1 / 65535), dtype=np.float32)
        return
    window: list[_Held] = []
    waiting = 0  # of the window, the first that has not been given
    for frame in frames:
        window.append(_Held(frame))
        # A frame is complete when all behind it that it needs have come.
        while window[-1].frame.index - window[waiting].frame.index >= REACH:
            yield window[waiting].frame, _mean(window, waiting, motion, steadiness)
            waiting += 1
            if waiting > REACH:
                window.pop(0)
                waiting -= 1
    while waiting < len(window):
        yield window[waiting].frame, _mean(window, waiting, motion, steadiness)
        waiting += 1


class _Held:
    """A frame of the window, with what has been found out about it."""

    def __init__(self, frame: Painted) -> None:
        self.frame = frame
        height, width = frame.photo.shape[:2]
        # Lightness of the photo, and the painting: what is moved together.
        self.maps = np.empty((height, width, 4), np.float32)
        np.matmul(frame.photo, _LIGHTNESS, out=self.maps[..., 0])
        np.multiply(frame.painting, np.float32(1 / 65535), out=self.maps[..., 1:])
        self.grey = np.rint(self.maps[..., 0] * 255).astype(np.uint8)
        self.flows: dict[int, Flow] = {}

    def flow(self, other: _Held, motion: Motion) -> Flow:
        """Where this frame's pixels lie in the other."""
        found = self.flows.get(other.frame.index)
        if found is None:
            found = motion.flow(self.grey, other.grey)
            # To whole pixels where it is nearly so: those need no interpolation, which softens.
            whole = np.rint(found)
            found = np.where(np.abs(found - whole) < _WHOLE, whole, found)
            self.flows[other.frame.index] = found
        return found


def _mean(window: list[_Held], at: int, motion: Motion, steadiness: float) -> NDArray[np.float32]:
    centre = window[at]
    total = centre.maps[..., 1:].copy()
    if centre.frame.alone:
        return total
    weights = np.ones(total.shape[:2], np.float32)
    softened = np.zeros_like(weights)
    for held in window[max(0, at - REACH) : at + REACH + 1]:
        if held is centre or held.frame.alone or held.frame.shot != centre.frame.shot:
            continue
        there, back = centre.flow(held, motion), held.flow(centre, motion)
        maps = motion.moved(held.maps, there)
        missed = motion.moved(back, there)
        missed += there
        weight = _agreement(centre.maps[..., 0] - maps[..., 0], missed)
        weight *= np.float32(steadiness * _SHARES[abs(held.frame.index - centre.frame.index)])
        weights += weight
        off = np.abs(there - np.rint(there))
        softened += weight * 2 * np.maximum(off[..., 0], off[..., 1])
        maps[..., 1:] *= weight[..., None]
        total += maps[..., 1:]
    total /= weights[..., None]
    fine = total - _blurred(total)
    fine *= (_CRISPER * softened / weights)[..., None]
    total += fine
    return np.clip(total, 0, 1, out=total)


def _agreement(difference: NDArray[np.float32], missed: Flow) -> NDArray[np.float32]:
    """How far a neighbour may speak for each pixel, 0..1, [H, W].

    Args:
        difference: of the photo's lightness and the neighbour's, moved here.
        missed: how far from its start a pixel comes back that goes there and back.
    """
    difference = _blurred(difference)  # noise is no disagreement
    difference *= np.float32(1 / _AGREES)
    np.square(difference, out=difference)
    weight = np.exp(np.negative(difference, out=difference), out=difference)
    weight *= np.square(missed[..., 0]) + np.square(missed[..., 1]) <= _APART**2
    return weight


def _blurred(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of 3 x 3 pixels of [H, W] or [H, W, C], the edge repeated."""
    for axis in (0, 1):
        sums = planes.copy()
        rows, moved = np.moveaxis(sums, axis, 0), np.moveaxis(planes, axis, 0)
        rows[1:] += moved[:-1]
        rows[0] += moved[0]
        rows[:-1] += moved[1:]
        rows[-1] += moved[-1]
        sums *= np.float32(1 / 3)
        planes = sums
    return planes
