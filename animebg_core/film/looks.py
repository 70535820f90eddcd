"""What a shot looks like: its statistics, gathered from its key frames as soon as it begins."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.statistics import Statistics
from ..errors import MemoryBudgetError, VideoError
from ..files.video.reading import Clip
from ..masks import fit_mask
from ..painter import Painter, image_of, pixels_of
from ..painting import shrunk
from .work import FilmPlan, Work

_SUSPECT = 0.15  # of a painting's parts far from the photo's light: worth a second painting
_AHEAD = 3  # frames that are decoded before they are needed
_Item = TypeVar("_Item")
_Scene = tuple[NDArray[np.uint16], "torch.Tensor | None"]  # [H, W, 3], and [1, H, W] of its mask


class Looks:
    """Paints frames under the statistics of their shots.

    Key frames are read by an own run through the clip, as painting comes to their shot.
    """

    def __init__(
        self,
        clip: Clip,
        plan: FilmPlan,
        work: Work,
        painter: Painter,
        tell: Callable[[float], None],
        masks: torch.Tensor | None = None,
    ) -> None:
        """Args:
        masks: [1 or frames, H, W]: what of each frame is painted in the end, and alone counts;
            None: the painter's.
        """
        self._masks = painter.mask if masks is None else masks
        self._clip, self._plan, self._work = clip, plan, work
        self._painter, self._tell = painter, tell
        self._shot = -1
        self._statistics: Statistics | None = None
        self._keys: Generator[tuple[int, NDArray[np.uint16]]] | None = None

    def close(self) -> None:
        """Stop reading."""
        if self._keys is not None:
            self._keys.close()

    def paint(self, shot: int, scene: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """A frame of a shot, its exposure taken out, painted: [H, W, 3]."""
        if shot != self._shot:
            self._statistics, self._shot = self.statistics(shot), shot
        painting = self._painter.paint(
            scene,
            statistics=self._statistics,
            progress=lambda done, total: self._tell(done / total),
        )
        if far_from(scene, painting) > _SUSPECT:
            own = self._painter.paint(scene)
            if burst(scene, painting, own):
                return own  # no key frame shows what this one does
        return painting

    def statistics(self, number: int) -> Statistics:
        """Those of a shot, gathered if they have not been yet; shots come in rising order."""
        found = self._work.load_statistics(number)
        if found is None:
            found = self._gathered(
                [
                    _small(scene, self._mask(index), self._painter)
                    for index, scene in self._key_frames(number)
                ]
            )
            self._work.save_statistics(number, found)
        return found

    def _mask(self, index: int) -> torch.Tensor | None:
        """That of a frame, [1, H, W]."""
        if self._masks is None:
            return None
        at = index % len(self._masks)
        return self._masks[at : at + 1]

    def _gathered(self, scenes: list[_Scene]) -> Statistics:
        """Those of all scenes together, or of every other one where they do not fit the memory."""
        # With the memory that there is: a limit that fits one frame does not fit several.
        painter = dataclasses.replace(self._painter, memory_limit=None)
        try:
            masks = [mask for _, mask in scenes if mask is not None]
            return painter.gather(
                [pixels for pixels, _ in scenes],
                masks=masks or None,
                progress=lambda done, total: self._tell(0),
            )
        except MemoryBudgetError:
            if len(scenes) == 1:
                raise
        return self._gathered(scenes[::2])

    def _key_frames(self, number: int) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        """Those of a shot, and their numbers, their exposure taken out."""
        shots = self._plan.shots
        if self._keys is None:
            wanted = {key for shot in shots[number:] for key in shot.keys}
            self._keys = film_frames(
                self._clip, self._plan, range(shots[number].start, len(self._plan)), wanted
            )
        left = len(shots[number].keys)
        for index, pixels in self._keys:
            if index < shots[number].start:
                continue  # of a shot that had its statistics
            photo = np.ascontiguousarray(pixels[..., :3])
            yield index, without_exposure(photo, *shots[number].exposure(index))
            left -= 1
            if not left:
                return


def _small(scene: NDArray[np.uint16], mask: torch.Tensor | None, painter: Painter) -> _Scene:
    """A scene and its mask at the size at which the network paints it."""
    image = image_of(scene)
    fitted = None if mask is None else fit_mask(mask, image)
    small, seen = shrunk(image, painter.painting_size, fitted)
    return (scene if small is image else pixels_of(small, scene)), seen


def burst(scene: NDArray[np.uint16], painting: NDArray[np.uint16], own: NDArray[np.uint16]) -> bool:
    """Whether a painting under its shot's statistics came out far from the photo's light where the
    one under the frame's own does not: statistics that do not fit.

    Not by the first alone: under their own statistics, paintings of eight photos by five networks
    had up to a quarter of their parts so far off, by the style's own will.
    """
    return far_from(scene, own) < far_from(scene, painting) / 2


def far_from(scene: NDArray[np.uint16], painting: NDArray[np.uint16]) -> float:
    """The share of a painting's parts, an eighth of the picture high and wide, whose mean differs
    from the photo's by more than 0.4 of the range in a colour.
    """
    step = max(1, min(scene.shape[:2]) // 64)
    photo, painted = (
        image[::step, ::step].astype(np.float32) * np.float32(1 / 65535)
        for image in (scene, painting)
    )
    high, wide = max(1, photo.shape[0] // 8), max(1, photo.shape[1] // 8)
    parts = [
        np.stack(
            [
                np.add.reduceat(
                    np.add.reduceat(image[..., k], np.arange(0, image.shape[0], high), 0),
                    np.arange(0, image.shape[1], wide),
                    1,
                )
                for k in range(3)
            ]
        )
        / (high * wide)
        for image in (photo, painted)
    ]
    far = np.abs(parts[0] - parts[1]).max(0) > 0.4
    return float(far.mean())


def without_exposure(
    photo: NDArray[np.uint16], gain: float, offset: NDArray[np.float32]
) -> NDArray[np.uint16]:
    """The scene that was photographed with gain and offset; the inverse of `with_exposure`."""
    if gain == 1 and not np.any(offset):
        return photo
    scene = (photo * np.float32(1 / 65535) - offset) * np.float32(1 / gain)
    return np.rint(np.clip(scene, 0, 1) * np.float32(65535)).astype(np.uint16)


def with_exposure(
    scene: NDArray[np.float32], gain: float, offset: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A scene [H, W, 3], 0..1, as it is photographed with gain and offset [3]."""
    if gain == 1 and not np.any(offset):
        return scene
    return scene * np.float32(gain) + offset


def mask_at(mask: torch.Tensor, height: int, width: int) -> NDArray[np.float32]:
    """A mask of any size as it lies on frames of that size, [H, W]."""
    fitted = fit_mask(mask, torch.empty(1, height, width, 3))
    return fitted.reshape(height, width).numpy()


def film_frames(
    clip: Clip, plan: FilmPlan, frames: range, wanted: set[int] | None = None
) -> Generator[tuple[int, NDArray[np.uint16]]]:
    """The number and the pixels of each of `frames`, or of those that are `wanted` too.

    Decoded and converted by a thread, a few ahead.

    Raises:
        VideoError: the clip no longer has as many as the plan says.
    """

    def decoded() -> Iterator[tuple[int, NDArray[np.uint16]]]:
        for number, (_, frame) in enumerate(clip.frames()):
            index = number - plan.begin
            if index >= frames.stop:
                return
            if index in frames and (wanted is None or index in wanted):
                yield index, frame.pixels()

    last = frames.start - 1
    with closing(_ahead(decoded())) as items:
        for index, pixels in items:
            last = index
            yield index, pixels
    if wanted is None and last + 1 < frames.stop:
        raise VideoError("it has fewer frames than when it was first read: was it changed?")


def _ahead(items: Iterable[_Item]) -> Generator[_Item]:
    """The items, made by a thread; a few wait."""
    waiting: queue.Queue[Any] = queue.Queue(_AHEAD)
    ended = threading.Event()
    end = object()

    def put(item: object) -> bool:
        while not ended.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((end, None))
        except BaseException as error:  # noqa: BLE001 - raised again where the items are wanted
            put((end, error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        ended.set()
        thread.join()
