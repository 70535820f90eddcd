"""A film's segments painted: frames in order, each steadied, exposed and mixed as it is to be."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..files.video.formats import Encoding
from ..files.video.reading import Clip
from ..files.video.segments import SegmentFile
from ..painter import Painter
from .looks import Looks, film_frames, mask_at, with_exposure, without_exposure
from .motion import Motion
from .shots import LEAST_GAIN
from .steady import REACH, Painted, steadied
from .work import FilmPlan, Work

_AHEAD = 3  # frames decoded before they are needed


@dataclass(frozen=True, slots=True)
class Frames:
    """Paints segments of a film.

    Attributes:
        clip, plan, work: the film.
        painter: at full strength; `strength` is mixed in at the end, so that a neighbour's photo
            never comes into a frame.
        steadiness: 0 leaves each frame for itself.
        tell: called with the share of a frame that has been computed.
        masks: of the frames' statistics; see `Looks`.
    """

    clip: Clip
    plan: FilmPlan
    work: Work
    painter: Painter
    strength: float
    steadiness: float
    motion: Motion
    tell: Callable[[float], None]
    masks: Tensor | None = None

    def paint(
        self,
        missing: Sequence[int],
        encoding: Encoding,
        finished: Callable[[NDArray[np.uint16]], None],
    ) -> None:
        """Paint segments, numbers in rising order; meanwhile others are decoded and encoded.

        Args:
            finished: called with each frame [H, W, 3 or 4] that has been handed on.
        """
        plan = self.plan
        segment: SegmentFile | None = None
        pending: list[Future[None]] = []
        with (
            ThreadPoolExecutor(1) as writer,
            closing(self.looks()) as looks,
        ):
            try:
                for numbers in _runs(missing):
                    frames = range(plan.segments[numbers[0]].start, plan.segments[numbers[-1]].stop)
                    for index, pixels in self.composed(frames, looks):
                        number, own = plan.segment_of(index)
                        if segment is None:
                            segment = SegmentFile(self.work.segment(number), encoding)
                        pending.append(writer.submit(segment.add, pixels))
                        if index + 1 == own.stop:
                            pending.append(writer.submit(segment.finish))
                            segment = None
                        while len(pending) > _AHEAD:
                            pending.pop(0).result()
                        finished(pixels)
                while pending:
                    pending.pop(0).result()
            except BaseException:
                for future in pending:
                    future.cancel()
                if segment is not None:
                    writer.submit(segment.abort)
                raise

    def looks(self) -> Looks:
        """The statistics of shots, as they come; to be closed."""
        return Looks(self.clip, self.plan, self.work, self.painter, self.tell, self.masks)

    def composed(self, frames: range, looks: Looks) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        """Frames `frames` as they are to be encoded: number, and [H, W, 3 or 4]."""
        given: dict[int, NDArray[np.uint16]] = {}
        reach = REACH if self.steadiness else 0
        needed = range(max(0, frames.start - reach), min(len(self.plan), frames.stop + reach))

        def painted() -> Generator[Painted]:
            with closing(film_frames(self.clip, self.plan, needed)) as decoded:
                for index, pixels in decoded:
                    given[index] = pixels
                    yield self._painted(index, pixels, looks)

        with closing(painted()) as source:
            for frame, mean in steadied(source, self.motion, self.steadiness):
                pixels = given.pop(frame.index)
                if frame.index in frames:
                    yield frame.index, self._mixed(frame, mean, pixels)

    def _painted(self, index: int, pixels: NDArray[np.uint16], looks: Looks) -> Painted:
        number, shot = self.plan.shot_of(index)
        gain, offset = shot.exposure(index)
        photo = np.ascontiguousarray(pixels[..., :3])
        if self.strength == 0 or gain < LEAST_GAIN:
            return Painted(index, number, photo, photo, alone=True)
        scene = without_exposure(photo, gain, offset)
        return Painted(index, number, scene, looks.paint(number, scene))

    def _mixed(
        self, frame: Painted, mean: NDArray[np.float32], pixels: NDArray[np.uint16]
    ) -> NDArray[np.uint16]:
        """The frame with its exposure again, mixed with the photo by strength and mask."""
        if frame.alone:
            return pixels
        _, shot = self.plan.shot_of(frame.index)
        mean = with_exposure(mean, *shot.exposure(frame.index))
        if self.strength < 1:
            photo = pixels[..., :3] * np.float32(1 / 65535)
            mean = photo + np.float32(self.strength) * (mean - photo)
        result = np.empty_like(pixels)
        mean = np.multiply(mean, np.float32(65535), out=mean)
        np.clip(np.rint(mean, out=mean), 0, 65535, out=mean)
        result[..., :3], result[..., 3:] = mean, pixels[..., 3:]
        if self.painter.mask is not None:
            # Kept exactly where the mask is black, whatever the neighbours say.
            kept = mask_at(self.painter.mask, *result.shape[:2]) == 0
            result[kept] = pixels[kept]
        return result


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """The numbers in runs without a gap."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run
