"""Photos read, painted and written; meanwhile the next is read and the last one written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from ..errors import AnimeBGError, first_line
from ..files.addresses import fetched, sent
from ..files.photos import Photo, fitted, read_photo, write_photo
from ..painter import Painter
from .background import begin, finish
from .jobs import Job


class Told(Protocol):
    """Who is told what becomes of photos."""

    def success(self, job: Job) -> None:
        """`job.target` is complete."""
        ...

    def job_failed(self, job: Job, reason: object) -> None:
        """The photo came to nothing."""
        ...

    def note(self, job: Job, text: str) -> None:
        """Something of the photo is not kept."""
        ...

    def progress(self, index: int, job: Job, done: int, total: int) -> None:
        """Of the photo `job`, number `index` from 0, `done` of `total` is painted."""
        ...


def paint_photos(
    jobs: Sequence[Job], painter: Painter, report: Told, *, longest: int | None, quality: int
) -> None:
    """Read, paint and write every job; meanwhile the next is read and the last one written.

    At most three photos are in memory, one at each step.
    """

    def read(job: Job) -> Photo:
        with fetched(job.source) as path:
            return fitted(read_photo(path, longest=longest), job.target)

    def write(photo: Photo, job: Job) -> None:
        with sent(job.target) as path:
            write_photo(photo, path, quality=quality)

    ahead = begin(partial(read, jobs[0]))
    written: tuple[Job, Future[None]] | None = None
    try:
        for index, job in enumerate(jobs):
            try:
                photo = finish(ahead)
            except AnimeBGError as error:
                photo = None
                report.job_failed(job, error)
            if index + 1 < len(jobs):
                ahead = begin(partial(read, jobs[index + 1]))
            if photo is None:
                continue
            for note in photo.notes:
                report.note(job, note)
            try:
                painted = painter.paint(photo.pixels, progress=partial(report.progress, index, job))
            except (AnimeBGError, MemoryError, RuntimeError) as error:
                report.job_failed(job, first_line(error) or "out of memory")
                continue
            done, written = written, None
            _settle(done, report)
            photo = dataclasses.replace(photo, pixels=painted)
            written = job, begin(partial(write, photo, job))
    finally:
        # Interrupted or not, a photo that is being written is finished and counted.
        _settle(written, report)


def _settle(written: tuple[Job, Future[None]] | None, report: Told) -> None:
    """Wait until a photo is written, and report it."""
    if written is None:
        return
    job, future = written
    try:
        finish(future)
    except (AnimeBGError, OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error or "out of memory"
        report.job_failed(job, f"{job.target} cannot be written: {reason}")
    else:
        report.success(job)
