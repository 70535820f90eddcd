"""A film painted: read, planned, painted in segments, joined; resumed after whatever ended it."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.plan import plan_run
from ..errors import OptionError, VideoError
from ..files.video.containers import FilmSource
from ..files.video.output import FilmOutput
from ..files.video.reading import Clip
from ..files.video.segments import SegmentFile
from ..files.video.writing import Trim
from ..files.whole import whole_file
from ..painter import Painter
from ..pipeline import plan_size
from .looks import Looks, film_frames, mask_at, with_exposure, without_exposure
from .motion import find_motion
from .shots import LEAST_GAIN
from .steady import REACH, Painted, steadied
from .work import FilmPlan, Work, film_identity, make_plan

DEFAULT_STEADINESS = 1.0
_KEYS = 6  # frames that stand for a shot, at most
_KEY_PIXELS = 8_000_000  # of all of them together: they go through the network side by side
_AHEAD = 3  # frames decoded before they are needed


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a film is.

    Attributes:
        stage: "reading" (looking for cuts), "painting" or "joining".
        done, total: frames; of a frame being painted a fraction. While it is read the total is 0.
        kept: of the frames done, those that a run before painted.
        bytes_needed: of disk for all that is to come, a generous guess; 0 when not known yet.
        picture: the frame that has just been painted, [H, W, 3] uint16, while painting; else None.
    """

    stage: str
    done: float
    total: int
    kept: int = 0
    bytes_needed: int = 0
    picture: NDArray[np.uint16] | None = None


Report = Callable[[Progress], None]


def _silent(progress: Progress) -> None:
    del progress


def paint_film(
    clip: Clip,
    output: FilmOutput,
    painter: Painter,
    *,
    source: FilmSource | None,
    steadiness: float = DEFAULT_STEADINESS,
    trim: Trim = Trim(),  # noqa: B008 - frozen
    folder: Path | None = None,
    report: Report | None = None,
) -> list[str]:
    """Paint a clip to a file that takes its name when it is complete.

    What has been painted lies in segments beside the output (see `work.Work`); the next run of the
    same goes on from there, and ends in the same film.

    Args:
        clip: what is painted.
        output: where to, and how it is encoded.
        painter: style, strength and mask.
        source: the file that sound, subtitles and metadata are taken from; None: nowhere.
        steadiness: 0 paints every frame for itself, under its shot's statistics; 1 mixes it with
            the painted frames around it wherever the photo's agree.
        trim: the part to paint.
        folder: where segments are to lie until it is complete; None: beside the output.
        report: called often; what it raises stops the run and comes out of this function, and
            what is finished is kept.

    Returns:
        What is not kept or not sound, a line each.

    Raises:
        OptionError: steadiness outside 0..1.
        VideoError: the clip cannot be read, or there is no room for the result.
        OSError: a file cannot be written: the disk is full, for one.
    """
    if not 0 <= steadiness <= 1:
        raise OptionError(f"steadiness goes from 0 to 1, got {steadiness}")
    tell = report or _silent
    return _Run(clip, output, painter, steadiness, trim, tell, source).go(folder)


class _Run:
    """One call of `paint_film`."""

    def __init__(
        self,
        clip: Clip,
        output: FilmOutput,
        painter: Painter,
        steadiness: float,
        trim: Trim,
        report: Report,
        source: FilmSource | None,
    ) -> None:
        self._clip, self._output, self._source = clip, output, source
        self._trim, self._report = trim, report
        # Mixed in at the end, so that a neighbour's photo never comes into a frame.
        self._strength = painter.strength
        self._painter = dataclasses.replace(painter, strength=1.0)
        self._steadiness = steadiness if painter.strength > 0 else 0.0
        self._motion = find_motion()
        self._identity = film_identity(
            clip,
            output.encoding,
            painter,
            steadiness,
            trim,
        )
        self._kept = 0
        self._done = 0
        self._total = 0

    def go(self, folder: Path | None) -> list[str]:
        """See `paint_film`."""
        notes: list[str] = []
        work = Work(self._output.target, self._identity, folder)
        if work.replaced:
            notes.append("what another run had begun with other options is begun anew")
        plan = work.load_plan()
        if plan is None:
            plan = self._make_plan(work)
        self._total = len(plan)
        painter = self._same_memory(work)
        missing = work.missing(len(plan.segments))
        self._kept = self._done = sum(
            len(frames) for k, frames in enumerate(plan.segments) if k not in missing
        )
        self._check_room(work, plan, missing)
        if self._steadiness and self._motion.note and missing:
            notes.append(self._motion.note)
        if missing:
            self._paint(work, plan, missing, painter)
        segments = [work.segment(number) for number in range(len(plan.segments))]
        notes += self._output.join(
            segments,
            self._source,
            # With the segments, unless those may be on another disk.
            folder=work.folder if folder is None else self._output.target.parent,
            times=plan.times.tolist(),
            last=self._clip.last_ticks,
            time_base=self._clip.shape.time_base,
            trim=self._trim.after(plan.first * self._clip.shape.time_base),
            progress=lambda done, total: self._report(Progress("joining", done, total)),
        )
        work.remove()
        return [*self._clip.notes, *notes]

    def _make_plan(self, work: Work) -> FilmPlan:
        seen = 0

        def step() -> None:
            nonlocal seen
            seen += 1
            self._report(Progress("reading", seen, 0))

        shape = self._clip.shape
        keys = max(1, min(_KEYS, _KEY_PIXELS // (shape.height * shape.width)))
        plan = make_plan(self._clip, self._trim, keys=keys, step=step)
        work.save_plan(plan)
        return plan

    def _same_memory(self, work: Work) -> Painter:
        """The painter, held to the memory that the first run chose its plan by.

        Another plan of strips may differ in the last bit.
        """
        shape = self._clip.shape
        path = work.folder / "memory.txt"
        if not path.is_file():
            free = self._painter.memory_limit or self._painter.memory.free()
            chosen = plan_run(
                self._painter.generator,
                *plan_size(
                    shape.height, shape.width, self._painter.painting_size, self._painter.detail
                ),
                budget=free if free is not None else 1 << 62,
                masked=self._painter.mask is not None,
            )
            with whole_file(path) as file:
                file.write(str(chosen.peak_bytes).encode())
        return dataclasses.replace(self._painter, memory_limit=int(path.read_text("ascii")))

    def _check_room(self, work: Work, plan: FilmPlan, missing: list[int]) -> None:
        """Refuse what would fill the disk: the missing segments, and all of them once more."""
        shape = self._clip.shape
        each = shape.height * shape.width * self._output.bytes_per_pixel
        frames = sum(len(plan.segments[number]) for number in missing) + len(plan)
        needed = int(frames * each)
        free = shutil.disk_usage(work.folder).free
        if needed > free:
            raise VideoError(
                f"it may need {needed / 1e9:.1f} GB beside {self._output.target.name}, and"
                f" {free / 1e9:.1f} GB are free: make room, or write to another disk"
            )
        self._report(Progress("painting", self._kept, len(plan), self._kept, needed))

    # --- painting ---

    def _paint(self, work: Work, plan: FilmPlan, missing: list[int], painter: Painter) -> None:
        """Paint the missing segments; meanwhile frames are decoded, and others encoded."""
        segment: SegmentFile | None = None
        pending: list[Future[None]] = []
        with (
            closing(Looks(self._clip, plan, work, painter, self._tell)) as looks,
            ThreadPoolExecutor(1) as writer,
        ):
            try:
                for numbers in _runs(missing):
                    frames = range(plan.segments[numbers[0]].start, plan.segments[numbers[-1]].stop)
                    for index, pixels in self._finished(plan, frames, looks):
                        number, own = plan.segment_of(index)
                        if segment is None:
                            segment = SegmentFile(work.segment(number), self._output.encoding)
                        pending.append(writer.submit(segment.add, pixels))
                        if index + 1 == own.stop:
                            pending.append(writer.submit(segment.finish))
                            segment = None
                        while len(pending) > _AHEAD:
                            pending.pop(0).result()
                        self._done += 1
                        self._report(
                            Progress("painting", self._done, len(plan), self._kept, 0, pixels)
                        )
                while pending:
                    pending.pop(0).result()
            except BaseException:
                for future in pending:
                    future.cancel()
                if segment is not None:
                    writer.submit(segment.abort)
                raise

    def _tell(self, share: float) -> None:
        """A part of a frame has been computed."""
        self._report(Progress("painting", self._done + min(share, 0.99), self._total, self._kept))

    def _finished(
        self, plan: FilmPlan, frames: range, looks: Looks
    ) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        """Frames `frames` as they are to be encoded, [H, W, 3 or 4]."""
        given: dict[int, NDArray[np.uint16]] = {}
        reach = REACH if self._steadiness else 0
        needed = range(max(0, frames.start - reach), min(len(plan), frames.stop + reach))

        def painted() -> Generator[Painted]:
            with closing(film_frames(self._clip, plan, needed)) as decoded:
                for index, pixels in decoded:
                    given[index] = pixels
                    yield self._painted(plan, index, pixels, looks)

        with closing(painted()) as source:
            for frame, mean in steadied(source, self._motion, self._steadiness):
                pixels = given.pop(frame.index)
                if frame.index in frames:
                    yield frame.index, self._composed(plan, frame, mean, pixels)

    def _painted(
        self, plan: FilmPlan, index: int, pixels: NDArray[np.uint16], looks: Looks
    ) -> Painted:
        number, shot = plan.shot_of(index)
        gain, offset = shot.exposure(index)
        photo = np.ascontiguousarray(pixels[..., :3])
        if self._strength == 0 or gain < LEAST_GAIN:
            return Painted(index, number, photo, photo, alone=True)
        scene = without_exposure(photo, gain, offset)
        return Painted(index, number, scene, looks.paint(number, scene))

    def _composed(
        self,
        plan: FilmPlan,
        frame: Painted,
        mean: NDArray[np.float32],
        pixels: NDArray[np.uint16],
    ) -> NDArray[np.uint16]:
        """The frame with its exposure again, mixed with the photo by strength and mask."""
        if frame.alone:
            return pixels
        _, shot = plan.shot_of(frame.index)
        mean = with_exposure(mean, *shot.exposure(frame.index))
        if self._strength < 1:
            photo = pixels[..., :3] * np.float32(1 / 65535)
            mean = photo + np.float32(self._strength) * (mean - photo)
        result = pixels.copy()
        result[..., :3] = np.rint(np.clip(mean * np.float32(65535), 0, 65535))
        if self._painter.mask is not None:
            # Kept exactly where the mask is black, whatever the neighbours say.
            kept = mask_at(self._painter.mask, *result.shape[:2]) == 0
            result[kept] = pixels[kept]
        return result


def _runs(numbers: list[int]) -> Iterator[list[int]]:
    """The numbers in runs without a gap."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run
