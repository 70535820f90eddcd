"""A film painted: read, planned, painted in segments, joined; resumed after whatever ended it."""

# numpy's stubs are for newer Pythons than the one checked for, where half its methods are unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.plan import plan_run
from ..errors import VideoError
from ..files.video.output import FilmOutput
from ..files.video.reading import Clip
from ..files.video.writing import Trim
from ..files.whole import whole_file
from ..masks import check_strength
from ..painter import Painter
from ..pipeline import plan_size
from .frames import Frames
from .looks import Looks
from .motion import find_motion
from .shots import LEAST_GAIN
from .steady import REACH, check_steadiness
from .work import FilmPlan, Work, film_identity, make_plan

DEFAULT_STEADINESS = 1.0


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


class FilmRun:
    """The painting of a clip to a file that takes its name when it is complete.

    What has been painted lies in segments beside the output (see `work.Work`); the next run of the
    same goes on from there, and ends in the same film.

    `whole` is all of it. Or it is done in steps, each of which another process may take: one
    begins. Then any, on this machine or on others that see the same files, resume it, and each
    gathers some shots and paints some segments. When none is missing, one joins them. What is
    made does not depend on who makes it: all go by the plan, the statistics and the memory that
    lie in the film's folder.
    """

    def __init__(
        self,
        clip: Clip,
        output: FilmOutput,
        painter: Painter,
        *,
        source: Path | None,
        steadiness: float = DEFAULT_STEADINESS,
        trim: Trim = Trim(),  # noqa: B008 - frozen
        folder: Path | None = None,
        report: Report | None = None,
    ) -> None:
        """Args:
            clip: what is painted.
            output: where to, and how it is encoded.
            painter: style, strength and mask.
            source: the file that sound, subtitles and metadata are taken from; None: nowhere.
            steadiness: 0 paints every frame for itself, under its shot's statistics; 1 mixes it
                with the painted frames around it wherever the photo's agree.
            trim: the part to paint.
            folder: where segments are to lie until it is complete; None: beside the output.
            report: called often; what it raises stops the run and comes out of the step, and what
                is finished is kept.

        Raises:
            OptionError: steadiness or strength outside 0..1.
        """
        check_steadiness(steadiness)
        self._clip, self._output, self._source = clip, output, source
        self._trim, self._report, self._folder = trim, report or _silent, folder
        self._strength = check_strength(painter.strength)
        self._painter = dataclasses.replace(painter, strength=1.0)
        self._steadiness = steadiness if self._strength > 0 else 0.0
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

    def whole(self) -> list[str]:
        """All steps.

        Returns:
            What is not kept or not sound, a line each.

        Raises:
            VideoError: the clip cannot be read, or there is no room for the result.
            MemoryBudgetError: a frame does not fit the memory.
            OSError: a file cannot be written: the disk is full, for one.
        """
        notes = self.begin()
        self.paint(self.missing())
        notes += self.join()
        return [*self.notes, *notes]

    def begin(self) -> list[str]:
        """Find again what a run before has left, or read the film and plan it.

        Returns:
            What is to be told, a line each.

        Raises:
            VideoError: the clip cannot be read, or there is no room for the result.
            OSError: a file cannot be written.
        """
        notes: list[str] = []
        self._work = work = Work(self._output.target, self._identity, self._folder)
        if work.replaced:
            notes.append("what another run had begun with other options is begun anew")
        plan = work.load_plan()
        if plan is None:
            plan = self._make_plan(work)
        self._plan = plan
        self._same_memory()
        missing = self.missing()
        self._kept = self._done = sum(
            len(frames) for k, frames in enumerate(plan.segments) if k not in missing
        )
        self._check_room(work, plan, missing)
        if self._steadiness and self._motion.note and missing:
            notes.append(self._motion.note)
        return notes

    def resume(self) -> None:
        """Take part in what another process has begun.

        Raises:
            VideoError: it would paint otherwise here, or is no longer there.
        """
        self._work = Work(self._output.target, self._identity, self._folder, alone=False)
        plan = self._work.load_plan()
        if plan is None:
            raise VideoError("it was begun, and is gone: does another run paint the same film?")
        self._plan = plan
        self._same_memory()

    @property
    def notes(self) -> list[str]:
        """What is not sound in the clip, a line each."""
        return list(self._plan.notes)

    @property
    def frames(self) -> int:
        """How many the film has."""
        return len(self._plan)

    def missing(self) -> list[int]:
        """The numbers of the segments that are still to be painted."""
        return self._work.missing(len(self._plan.segments))

    def shots(self) -> list[int]:
        """The numbers of the shots whose statistics the missing segments wait for."""
        if self._strength == 0:
            return []
        reach = REACH if self._steadiness else 0
        wanted: set[int] = set()
        for segment in self.missing():
            frames = self._plan.segments[segment]
            for index in range(max(0, frames.start - reach), min(self.frames, frames.stop + reach)):
                number, shot = self._plan.shot_of(index)
                if shot.exposure(index)[0] >= LEAST_GAIN:
                    wanted.add(number)
        return [number for number in sorted(wanted) if not self._work.has_statistics(number)]

    def gather(self, shots: Sequence[int]) -> None:
        """Gather the statistics of shots, numbers in rising order, and keep them.

        Raises:
            As `paint`.
        """
        with closing(Looks(self._clip, self._plan, self._work, self._painter, self._tell)) as looks:
            for number in shots:
                looks.statistics(number)

    def join(self) -> list[str]:
        """Make the film of its segments, none of which is missing.

        Returns:
            What is not kept, a line each.

        Raises:
            OSError: it cannot be written.
        """
        plan, work = self._plan, self._work
        notes = self._output.join(
            [work.segment(number) for number in range(len(plan.segments))],
            self._source,
            # With the segments, unless those may be on another disk.
            folder=work.folder if self._folder is None else self._output.target.parent,
            times=plan.times.tolist(),
            last=plan.last,
            time_base=self._clip.shape.time_base,
            trim=self._trim.after(plan.first * self._clip.shape.time_base),
            progress=lambda done, total: self._report(Progress("joining", done, total)),
        )
        work.remove()
        return notes

    def _make_plan(self, work: Work) -> FilmPlan:
        seen = 0

        def step() -> None:
            nonlocal seen
            seen += 1
            self._report(Progress("reading", seen, 0))

        try:
            plan = make_plan(self._clip, self._trim, step=step)
        except VideoError:
            work.remove()  # there is nothing in it
            raise
        work.save_plan(plan)
        return plan

    def _same_memory(self) -> None:
        """Hold the painter to the memory that the first run chose its plan by.

        Another plan of strips may differ in the last bit.
        """
        shape = self._clip.shape
        path = self._work.folder / "memory.txt"
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
        limit = int(path.read_text("ascii"))
        self._painter = dataclasses.replace(self._painter, memory_limit=limit)

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

    def paint(self, missing: Sequence[int]) -> None:
        """Paint segments, numbers in rising order; each is there as soon as it is whole.

        Raises:
            VideoError: the clip is no longer what it was.
            MemoryBudgetError: a frame does not fit the memory.
            OSError: a segment cannot be written.
        """
        Frames(
            self._clip,
            self._plan,
            self._work,
            self._painter,
            strength=self._strength,
            steadiness=self._steadiness,
            motion=self._motion,
            tell=self._tell,
        ).paint(missing, self._output.encoding, self._finished)

    def _tell(self, share: float) -> None:
        """A part of a frame has been computed."""
        self._report(Progress("painting", self._done + min(share, 0.99), self.frames, self._kept))

    def _finished(self, pixels: NDArray[np.uint16]) -> None:
        self._done += 1
        self._report(Progress("painting", self._done, self.frames, self._kept, 0, pixels))
