"""A film's shots from small pictures of its frames: cuts, fades, and the frames that stand for it.

Everything here is a function of the small pictures alone, so that it is the same in every run.
"""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A cut: the mean change of the picture, in percent, less the change before it (the score of
# FFmpeg's scdet), here of pictures of 9 x 16. On bikes.mp4 the lowest of a cut is 10.9 and the
# highest of none 1.9; a camera that is shaken by hand (tree.avi) comes to 3.7.
_CUT = 6.0
# Frames that agree so well but for light and contrast show one scene, however bright: a flash, or
# a fade to black and back.
_ALIKE = 0.85
_FLAT = 0.008  # two steps of 255: below this deviation a frame shows nothing
_FLASH = 6  # frames: a shot shorter than this between two that are alike is none
# A change counts as one of exposure where taking it out leaves less than this share of it.
_EXPLAINED = 0.35
_STILL = 0.002  # half a step of 255: less is no change
# A key frame goes through the network once more: one in so many frames costs little.
_FRAMES_A_KEY = 16
# Below this gain a frame holds nothing to paint: it is as good as flat.
LEAST_GAIN = 0.01


@dataclass(frozen=True, slots=True)
class Shot:
    """Frames [start, stop) that show one scene, and how each is exposed against its clearest.

    Attributes:
        keys: the frames whose statistics stand for it.
        gain: [stop - start] float32; frame = gain * scene + offset, values 0..1.
        offset: [stop - start, 3] float32.
    """

    start: int
    stop: int
    keys: tuple[int, ...]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]

    def exposure(self, index: int) -> tuple[float, NDArray[np.float32]]:
        """Gain and offset [3] of frame `index` of the film."""
        return float(self.gain[index - self.start]), self.offset[index - self.start]


def find_shots(glances: NDArray[np.float32], *, keys: int) -> list[Shot]:
    """The shots of a film.

    Args:
        glances: [frames, 9, 16, 3], the frames made small, 0..1.
        keys: the most frames that are to stand for a shot; a short one has fewer.
    """
    cuts = [0, *find_cuts(glances), len(glances)]
    return [_shot(glances, start, stop, keys) for start, stop in zip(cuts, cuts[1:], strict=False)]


def find_cuts(glances: NDArray[np.float32]) -> list[int]:
    """The first frame of every shot but the first."""
    change = 100 * np.abs(np.diff(glances.mean(-1), axis=0)).mean((1, 2))
    flat = _deviation(glances) < _FLAT
    cuts: list[int] = []
    last = -1  # the last frame that shows something
    before = 0.0  # the change before
    for frame in range(len(glances)):
        now = float(change[frame - 1]) if frame else 0.0
        if not flat[frame]:
            if last == frame - 1 >= 0:
                score = min(now, abs(now - before))
                if score > _CUT and _likeness(glances[last], glances[frame]) < _ALIKE:
                    cuts.append(frame)
            elif last >= 0 and _likeness(glances[last], glances[frame]) < _ALIKE:
                cuts.append(last + 1)
            last = frame
        before = now
    return _without_flashes(cuts, glances)


def _without_flashes(cuts: Sequence[int], glances: NDArray[np.float32]) -> list[int]:
    """The cuts without those around a few frames between two of the same scene."""
    kept: list[int] = []
    for cut in cuts:
        if kept and cut - kept[-1] < _FLASH:
            before, behind = glances[kept[-1] - 1], glances[cut]
            close = float(np.abs(before - behind).mean()) < _CUT / 100
            if close and _likeness(before, behind) > _ALIKE:
                kept.pop()
                continue
        kept.append(cut)
    return kept


def _deviation(glances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each picture [..., h, w, 3], its colours' own means taken out."""
    centred = glances - glances.mean((-3, -2), keepdims=True)
    return np.sqrt(np.square(centred).mean((-3, -2, -1)))


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The correlation of two small pictures: 1 where they differ in exposure alone."""
    one, other = one - one.mean((0, 1)), other - other.mean((0, 1))
    product = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    return float((one * other).sum()) / product if product > 0 else 0.0


def _shot(glances: NDArray[np.float32], start: int, stop: int, keys: int) -> Shot:
    own = glances[start:stop]
    gain, offset = _fades(glances, start, stop)
    _follow(own, gain, offset)
    if np.all(np.abs(gain - 1) < 0.03) and np.all(np.abs(offset) < 0.01):
        gain[:], offset[:] = 1, 0  # a camera's own unrest
    scene = (own - offset[:, None, None]) / np.maximum(gain, LEAST_GAIN)[:, None, None, None]
    # Where the scene would not fit into 0..1, the exposure was misjudged: leave the frame as it is.
    outside = (np.abs(scene - 0.5) > 0.52).mean((1, 2, 3)) > 0.02
    misjudged = outside & (gain > 0.2)
    gain[misjudged], offset[misjudged] = 1, 0
    scene[misjudged] = own[misjudged]
    clear = np.flatnonzero(gain >= 0.7 * gain.max())
    keys = min(keys, -(-len(own) // _FRAMES_A_KEY))
    chosen = _spread(scene[clear].astype(np.float32), keys)
    return Shot(start, stop, tuple(sorted(start + int(clear[k]) for k in chosen)), gain, offset)


def _fades(
    glances: NDArray[np.float32], start: int, stop: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gain and offset of frames [start, stop): below 1 and above 0 where they fade to one colour.

    A fade is known by its end, which is flat: going back from there the distance from the end's
    colour grows, and with it, in about the same measure, the deviation. So the camera may move
    meanwhile.
    """
    gain = np.ones(stop - start, np.float32)
    offset = np.zeros((stop - start, 3), np.float32)
    # A shot may be cut where it is flat: what it fades to lies beyond, within a second or so.
    first, last = max(0, start - 24), min(len(glances), stop + 24)
    deviation = _deviation(glances[first:last])
    means = glances[first:last].mean((1, 2))
    flat = deviation < _FLAT
    for at in np.flatnonzero(flat):
        if not (start - 1 <= first + at <= stop):
            continue
        low, high = at, at  # its run of flat frames, the flattest of which is the end
        while low > 0 and flat[low - 1]:
            low -= 1
        while high + 1 < len(flat) and flat[high + 1]:
            high += 1
        end = means[low + int(deviation[low : high + 1].argmin())]
        if start <= first + at < stop:
            gain[first + at - start], offset[first + at - start] = 0, means[at]
        for step in (-1, 1):
            inside = range(at + step, -1 if step < 0 else len(deviation), step)
            frames = [k for k in inside if start <= first + k < stop]
            if not frames or deviation[frames[0]] < _FLAT:
                continue
            apart = np.square(glances[[first + k for k in frames]] - end).mean((1, 2, 3))
            distance = np.sqrt(apart)
            reached = _faded(deviation[frames], distance)
            for at_fade, k in enumerate(frames[:reached]):
                own = float(distance[at_fade] / distance[reached])
                index = first + k - start
                if own < gain[index]:
                    gain[index], offset[index] = own, (1 - own) * end
    return gain, offset


def _faded(deviation: NDArray[np.float32], distance: NDArray[np.float32]) -> int:
    """How many frames, the flattest first, belong to a fade; the next shows the scene as it is."""
    for k in range(len(deviation) - 1):
        ahead = min(k + 3, len(deviation) - 1)  # over three, since single frames waver
        growth = float(np.log(max(distance[ahead], 1e-6) / max(distance[k], 1e-6)))
        along = float(np.log(deviation[ahead] / deviation[k]))
        if growth < 0.01 or abs(along - growth) > 0.15 + 0.5 * growth:
            return k
    return len(deviation) - 1


def _follow(
    own: NDArray[np.float32], gain: NDArray[np.float32], offset: NDArray[np.float32]
) -> None:
    """Work changes of exposure into gain and offset, from the clearest frame to both ends.

    Each frame is held against the last clear one before: where gain and offset explain nearly all
    that has changed, the exposure has; else the scene has.
    """
    fading, faded = gain.copy(), offset.copy()
    deviation = np.where(fading < 1, 0, _deviation(own))
    best = int(deviation.argmax())
    if deviation[best] < _FLAT:
        return  # nothing but a fade
    for order in (range(best + 1, len(own)), range(best - 1, -1, -1)):
        anchor, known, level = best, 1.0, np.zeros(3, np.float32)
        for frame in order:
            if fading[frame] == 1:
                reference, now = own[anchor], own[frame]
                centred = reference - reference.mean((0, 1))
                slope = float((centred * now).sum() / np.square(centred).sum())
                rise = now.mean((0, 1)) - slope * reference.mean((0, 1))
                moved = float(np.sqrt(np.square(now - reference).mean()))
                left = float(np.sqrt(np.square(now - slope * reference - rise).mean()))
                gain[frame], offset[frame] = known, level
                if moved < _STILL:
                    continue
                if left < _EXPLAINED * moved and slope > 0:
                    gain[frame], offset[frame] = slope * known, slope * level + rise
                if deviation[frame] > 0.5 * deviation[best]:
                    anchor, known, level = frame, float(gain[frame]), offset[frame].copy()
            else:
                gain[frame] = fading[frame] * known
                offset[frame] = fading[frame] * level + faded[frame]


def _spread(pictures: NDArray[np.float32], most: int) -> list[int]:
    """Of the pictures, some that stand for all: the middle one, then always the farthest off.

    (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.)
    """
    flat = pictures.reshape(len(pictures), -1)
    chosen = [len(flat) // 2]
    distance = np.sqrt(np.square(flat - flat[chosen[0]]).mean(1))
    while len(chosen) < min(most, len(flat)):
        farthest = int(distance.argmax())
        if distance[farthest] < 0.03:  # 8 steps of 255: nothing new
            break
        chosen.append(farthest)
        fresh = np.sqrt(np.square(flat - flat[farthest]).mean(1))
        distance = np.minimum(distance, fresh)
    return chosen
