"""`animebg stylize --ray`: what every worker is sent, and what comes back."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..cluster.fleet import fleet
from ..cluster.paint import paint_everywhere
from ..cluster.pieces import Item
from ..cluster.worker import Tell
from ..files.addresses import Address
from ..files.opening import MAX_PIXELS
from ..painter import Painter
from .background import begin, finish
from .clips import clip_failure, film_run, is_clip, paint_clips
from .jobs import Job
from .options import Parts, load_parts, make_painter, placed_network
from .photos import Told, paint_photos
from .terminal import Bar

if TYPE_CHECKING:
    from ..film.film import FilmRun


def add_ray_option(parser: argparse.ArgumentParser) -> None:
    """Where workers are."""
    parser.add_argument(
        "--ray",
        default=os.environ.get("ANIMEBG_RAY") or None,
        metavar="ADDRESS",
        help="paint by Ray's workers: local (this machine's cores or cards), local:N (N cores),"
        " or a cluster's HOST:PORT or auto (default: $ANIMEBG_RAY, or without Ray)",
    )


def paint_with_ray(
    jobs: Sequence[Job], args: argparse.Namespace, mask: Tensor | None, report: Told, bar: Bar
) -> None:
    """Paint photos and clips by a cluster's workers.

    Raises:
        ClusterError: there is no Ray, no cluster, or none of its workers starts.
        OptionError, StyleError, WeightsError: as `load_network`.
    """
    parts = finish(begin(lambda: load_parts(args)))
    kit = Kit(_without_paths(args), parts, mask, os.getcwd())
    items = [Item(job.source, job.target, is_clip(job) and not _at_address(job)) for job in jobs]
    size = sum(p.numel() * p.element_size() for network, _ in parts for p in network.parameters())

    def tell(at: int, what: str, text: str) -> None:
        if what == "done":
            report.success(jobs[at])
        elif what == "failed":
            report.job_failed(jobs[at], text)
        else:
            report.note(jobs[at], text)

    def progress(stage: str, done: int, total: int) -> None:
        bar.show(done / total, f"{stage}: {done} of {total} pieces")

    with fleet(args.ray, kit, device=args.device, kit_bytes=size) as workers:
        paint_everywhere(items, workers, tell=tell, progress=progress)


def _without_paths(args: argparse.Namespace) -> argparse.Namespace:
    """The options without the list of photos, which may be long, and without functions."""
    kept = {name: value for name, value in vars(args).items() if name not in ("photos", "run")}
    return argparse.Namespace(**kept)


@dataclass(frozen=True, slots=True)
class Kit:
    """See `cluster.worker.Kit`.

    Attributes:
        args: the options.
        parts: the style's networks, as `load_parts` gives them.
        mask: as `Painter` takes it.
    """

    args: argparse.Namespace
    parts: Parts
    mask: Tensor | None
    folder: str
    version: str = __version__

    def painter(self, device: str) -> Painter:
        """See `cluster.worker.Kit`."""
        limit_pictures()
        network = placed_network(self.parts, self.args, torch.device(device))
        return make_painter(network, self.mask, self.args)

    def photos(self, items: Sequence[tuple[int, Item]], painter: Painter, tell: Tell) -> None:
        """See `cluster.worker.Kit`."""
        numbers = {Job(item.source, item.target): at for at, item in items}
        told = _Telling({job.target: at for job, at in numbers.items()}, tell)
        photos = [job for job in numbers if not is_clip(job)]
        if photos:
            longest, quality = self.args.longest, self.args.quality
            paint_photos(photos, painter, told, longest=longest, quality=quality)
        # At an address: by one worker, in one go.
        paint_clips([job for job in numbers if is_clip(job)], painter, self.args, told)

    def clip(self, item: Item, painter: Painter) -> FilmRun:
        """See `cluster.worker.Kit`."""
        assert isinstance(item.source, Path) and isinstance(item.target, Path)
        return film_run(item.source, item.target, painter, self.args)

    def reason(self, item: Item, error: BaseException) -> str:
        """See `cluster.worker.Kit`."""
        return clip_failure(item.target, error)


def _at_address(job: Job) -> bool:
    return isinstance(job.source, Address) or isinstance(job.target, Address)


def limit_pictures() -> None:
    """Pillow refuses what is above `MAX_PIXELS`, and does not warn of less."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # it refuses twice that, and warns below
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class _Telling:
    """Told of jobs, tells of their numbers; no two jobs have one target."""

    numbers: dict[object, int]
    tell: Tell

    def success(self, job: Job) -> None:
        self.tell(self.numbers[job.target], "done", "")

    def job_failed(self, job: Job, reason: object) -> None:
        self.tell(self.numbers[job.target], "failed", str(reason))

    def note(self, job: Job, text: str) -> None:
        self.tell(self.numbers[job.target], "note", text)

    def progress(self, index: int, job: Job, done: int, total: int) -> None:
        """Not told."""
