"""`animebg stylize`: photos and clips, and folders of them, painted one after the other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from ..cluster.fleet import check_installed
from ..errors import AnimeBGError, ImageError, MaskError
from ..files.addresses import Location, location
from ..files.photos import read_mask
from ..files.whole import whole_file
from .background import begin, finish
from .clips import add_clip_options, is_clip, is_finished, paint_clips
from .jobs import (
    Job,
    Passed,
    blocked,
    check_list,
    chosen,
    listed,
    make_folder,
    passed_over,
    plan_jobs,
)
from .many import add_ray_option, limit_pictures, paint_with_ray
from .options import (
    add_look_options,
    add_network_options,
    add_strength_option,
    load_network,
    make_painter,
    pixels,
    quality,
)
from .photos import paint_photos
from .terminal import Bar, clear_line, result, say

HELP = "Paint photos and clips, or folders of them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Photos, where to, and how."""
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="a photo, a clip, or a folder to walk")
    add(
        "-o",
        "--output",
        required=True,
        metavar="FILE_OR_FOLDER",
        help="for one photo a file named .jpg, .png, .webp, .tif or .bmp, for one clip .mp4, .mov,"
        " .mkv, .webm, .gif, .webp or .apng; else a folder",
    )
    add_network_options(parser)
    add_strength_option(parser)
    add_look_options(parser)
    add("--mask", type=Path, metavar="FILE", help="paint only where this picture is white")
    add("--longest", type=pixels, metavar="N", help="first shrink the longer side to N pixels")
    add("--quality", type=quality, default=95, metavar="N", help="of JPEG and WebP (default: 95)")
    add_clip_options(parser)
    add("--failures", type=Path, metavar="FILE", help="list what failed there, a path a line")
    add("--retry", type=Path, metavar="FILE", help="only what such a list names")
    add("--overwrite", action="store_true", help="paint again what is finished")
    add_ray_option(parser)
    add("--dry-run", action="store_true", help="only say what would be painted, and where to")
    add("--verbose", action="store_true", help="say what is chosen")


def run(args: argparse.Namespace) -> int:
    """Paint what is not painted yet; returns the exit status."""
    limit_pictures()
    if args.ray:
        check_installed()
    report = Report()
    passed: Passed = {}
    jobs, todo = finish(begin(lambda: _plan(args, report, passed)))
    report.total = len(todo)
    if args.dry_run:
        for job in todo:
            result(f"{job.source} -> {job.target}")
        where = f" by Ray at {args.ray}" if args.ray else ""
        say(f"{len(todo)} would be painted{where}; nothing is (--dry-run)")
    elif todo and args.ray:
        paint_with_ray(todo, args, finish(begin(lambda: _mask(args.mask))), report, report.bar)
    elif todo:
        _paint_here(todo, args, report)
    if passed:
        say(passed_over(passed))
    if args.failures:
        _write_list(args.failures, report.failed)
    if report.failed and len(jobs) > 1:
        where = f", listed in {args.failures}" if args.failures else ""
        say(f"{report.finished} painted, {len(report.failed)} failed{where}")
    return 1 if report.failed else 0


def _paint_here(todo: Sequence[Job], args: argparse.Namespace, report: Report) -> None:
    """Photos and then clips, one after the other."""
    network, mask = finish(begin(lambda: (load_network(args), _mask(args.mask))))
    painter = make_painter(network, mask, args)
    clips = [job for job in todo if is_clip(job)]
    others = set(clips)
    photos = [job for job in todo if job not in others]
    if photos:
        paint_photos(photos, painter, report, longest=args.longest, quality=args.quality)
    paint_clips(clips, painter, args, report)


def _plan(args: argparse.Namespace, report: Report, passed: Passed) -> tuple[list[Job], list[Job]]:
    """All jobs, and those that are to be done now."""
    jobs = plan_jobs(args.photos, args.output, args.mask, report.failure, passed)
    if args.failures:
        check_list(args.failures)
    if args.retry:
        jobs = chosen(jobs, args.retry)
    todo = [job for job in jobs if args.overwrite or not is_finished(job)]
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} finished before, left as they are (see --overwrite)")
    if todo and not args.dry_run:
        # A folder for several, or the folder of one.
        root = location(args.output)
        make_folder(root.parent if todo[0].target == root else root)
    free: list[Job] = []
    for job in todo:
        reason = blocked(job.target)
        if reason:
            report.failure(job.source, reason)
        else:
            free.append(job)
    return jobs, free


def _write_list(path: Path, failed: Sequence[str]) -> None:
    try:
        with whole_file(path) as file:
            file.write(listed(failed))
    except OSError as error:
        raise AnimeBGError(f"--failures {path} cannot be written: {error.strerror}") from error


class Report:
    """Counts what became of the photos, and says so: a line for each, and a bar in between."""

    def __init__(self) -> None:
        self.total = 0
        self.finished = 0
        self.failed: list[str] = []
        self.bar = Bar()

    def success(self, job: Job) -> None:
        """`job.target` is complete."""
        self.finished += 1
        if self.bar.visible:
            clear_line()
        else:
            say(f"{self.finished} of {self.total}: {job.source}")
        result(str(job.target))

    def failure(self, source: str | Location, reason: object) -> None:
        """`source` came to nothing; the others go on."""
        self.failed.append(str(source))
        say(f"{source}: {reason}")

    def job_failed(self, job: Job, reason: object) -> None:
        """`failure` of a photo or a clip."""
        self.failure(job.source, reason)

    def note(self, job: Job, text: str) -> None:
        """What is to be known of one."""
        say(f"{job.source}: {text}")

    def progress(self, index: int, job: Job, done: int, total: int) -> None:
        """Of the photo `job`, number `index` from 0, `done` of `total` is painted."""
        share = done / total
        text = f"{index}/{self.total} photos, {share:.0%} of {job.source.name}"
        self.bar.show((index + share) / self.total, text)


def _mask(path: Path | None) -> torch.Tensor | None:
    if path is None:
        return None
    try:
        mask = torch.as_tensor(read_mask(path))[None]
    except ImageError as error:
        raise MaskError(f"--mask {path}: {error}") from error
    if not bool(mask.any()):
        say(f"--mask {path} is black everywhere: nothing is painted")
    return mask
