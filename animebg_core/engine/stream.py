"""The one loop over sweeps and strips: exact inference in bounded memory.

Each convolution is a stream of rows that asks its source for those it needs. Nothing is computed
twice within a sweep, and the statistics of a norm are gathered over all strips, and over all
pictures that are to share them, before anything reads through it, so that the result is that of the
whole image. The whole image is the case of one strip.

Maps are [N, C, rows, W]; rows are counted from the top of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network.generator import Generator
from .device import Device, Scratch
from .kernels import Made, Rows, choose, settle
from .maps import DeviceMap, HostMap, Map
from .plan import RunPlan, headrooms
from .schedule import Slot, Step, Sweep, schedule
from .statistics import Gathering, Moments, Norm, Statistics, aggregate, aggregate_all, combine
from .transfers import Transfers


@dataclass(frozen=True, slots=True)
class Picture:
    """What is painted, or a picture that statistics are gathered from.

    Attributes:
        height, width: in pixels, at least the design's `min_side`.
        read: gives rows [start, stop), BGR [N, 3, rows, width] in [-1, 1], less the mean colour, in
            the device's dtype of arithmetic, on it. Called from top to bottom, in each sweep that
            begins with the picture.
        weight: [N, 1, height, width] float32 on the generator's device: what each pixel counts for
            in the statistics of the norms. None: each counts 1, as published.
        images: N, pictures of one size that are run together, each with statistics of its own.
    """

    height: int
    width: int
    read: Callable[[int, int], Tensor]
    weight: Tensor | None = None
    images: int = 1


def paint(
    generator: Generator,
    plan: RunPlan,
    picture: Picture,
    write: Callable[[int, Tensor], None],
    *,
    statistics: Statistics | None = None,
    step: Callable[[int], None] | None = None,
) -> None:
    """Run the generator over a picture, as `plan` says.

    Args:
        write: takes a first row and rows [N, 3, rows, W] in [-1, 1], from top to bottom. The
            output's size is the picture's rounded up to the design's `multiple`.
        statistics: of `gather`; None: the picture's own.
        step: called after every strip with the work done in it, which adds up to `total_work`; may
            raise to stop.
    """
    norms = None if statistics is None else norms_of(generator, statistics)
    run = _Run(generator, plan, picture, norms, write, step)
    for sweep in run.sweeps:
        moments = run.carry_out(sweep)
        if moments is not None:
            run.norms[sweep.stage.name] = aggregate(moments, *run.scale_and_shift(sweep))
        run.finish(sweep)


def gather(
    generator: Generator,
    plans: Sequence[RunPlan],
    pictures: Sequence[Picture],
    *,
    step: Callable[[int], None] | None = None,
) -> dict[str, Moments]:
    """The moments of every norm, of all pictures together, stage by stage, as if they were one.

    Args:
        plans: one for each picture, all of one level.
        pictures: of any sizes, one image each.
        step: as in `paint`.
    """
    runs = [
        _Run(generator, plan, picture, None, None, step)
        for plan, picture in zip(plans, pictures, strict=True)
    ]
    found: dict[str, Moments] = {}
    for sweeps in zip(*(run.sweeps for run in runs), strict=True):
        if not sweeps[0].gathers:
            break  # the output, which has no norm
        parts = [run.carry_out(sweep) for run, sweep in zip(runs, sweeps, strict=True)]
        name = sweeps[0].stage.name
        found[name] = combine([part for part in parts if part is not None])
        norm = aggregate(found[name], *runs[0].scale_and_shift(sweeps[0]))
        for run, sweep in zip(runs, sweeps, strict=True):
            run.norms[name] = norm
            run.finish(sweep)
    return found


def norms_of(generator: Generator, statistics: Statistics) -> dict[str, Norm]:
    """Every norm of a network under given statistics, on its device."""
    names = [stage.name for stage in generator.stages if stage.norm]
    own = [generator.weights(stage) for stage in generator.stages if stage.norm]
    moments = [statistics.moments[name] for name in names]
    norms = aggregate_all(moments, [part.scale for part in own], [part.shift for part in own])
    return dict(zip(names, norms, strict=True))


class _PictureRows:
    """The picture as a source of rows."""

    def __init__(self, picture: Picture) -> None:
        self.height, self.width = picture.height, picture.width
        self._read = picture.read

    def rows(self, start: int, stop: int) -> Tensor:
        return self._read(start, stop)


class _Run:
    """One picture, or pictures of one size, on their way through a schedule."""

    def __init__(
        self,
        generator: Generator,
        plan: RunPlan,
        picture: Picture,
        norms: Mapping[str, Norm] | None,
        write: Callable[[int, Tensor], None] | None,
        step: Callable[[int], None] | None,
    ) -> None:
        self._device = Device.of(generator)
        self._generator, self._plan, self._picture = generator, plan, picture
        self._kernels = choose(generator, self._device)
        self._write, self._step = write, step
        self._scratch = Scratch(generator.device)
        self._pyramid = None if picture.weight is None else _pyramid(picture.weight)
        # Memory for maps, with room above some of them, and the map that lies there now.
        self._memory: dict[Slot, Tensor] = {}
        self._maps: dict[Slot, Map] = {}
        self._transfers = Transfers(generator.device)
        self.norms: dict[str, Norm] = dict(norms or {})
        self.sweeps = schedule(
            generator, picture.height, picture.width, plan.level, gathers=norms is None
        )
        self._headrooms = headrooms(self._kernels, plan, self.sweeps)

    def scale_and_shift(self, sweep: Sweep) -> tuple[Tensor, Tensor]:
        """Of the norm behind what a sweep makes."""
        own = self._generator.weights(sweep.stage)
        return own.scale, own.shift

    def carry_out(self, sweep: Sweep) -> Moments | None:
        """Make what the sweep makes, and give its statistics if it gathers them."""
        self._device.trim()
        self._scratch.begin_sweep()
        self._transfers.flush()
        made = self._chain(sweep)
        # After that: where a map is written over, the old one is what the chain reads.
        out = self._place(sweep)
        strip = self._plan.strip(sweep)
        gathering = Gathering(-(-made.height // strip)) if sweep.gathers else None
        work = sweep.work
        for start in range(0, made.height, strip):
            stop = min(start + strip, made.height)
            if sweep.stage.norm:
                rows = None if out is None else out.room(start, stop)
                made.store(start, stop, rows, self._weight(sweep, start, stop), gathering)
                if out is not None and rows is not None:
                    out.keep(start, stop, rows)
            elif self._write:
                for first, rows in made.parts(start, stop):
                    self._write(first, rows)
            if self._step:
                self._step(work * stop // made.height - work * start // made.height)
        return None if gathering is None else gathering.parts()

    def finish(self, sweep: Sweep) -> None:
        """Bring maps to their final values, now that their norm is known, and free what is not
        read again.
        """
        if sweep.settles:
            assert sweep.writes is not None
            norm, relu = self.norms[sweep.stage.name], sweep.stage.relu
            data = self._maps[sweep.adds or sweep.writes]
            branch = self._maps[sweep.writes] if sweep.adds else None
            strip = self._plan.strip(sweep)
            self._transfers.flush()
            for start, stop in data.pieces(strip):
                rows = data.rows(start, stop)
                settle(rows, norm, relu, strip, branch.rows(start, stop) if branch else None)
                data.keep(start, stop, rows)
        for slot in sweep.frees:
            del self._maps[slot], self._memory[slot]

    def _chain(self, sweep: Sweep) -> Made:
        source: Rows = self._maps[sweep.reads] if sweep.reads else _PictureRows(self._picture)
        *before, last = sweep.steps
        for step in before:
            source = self._open(source, step)
        return self._open(source, last)

    def _open(self, source: Rows, step: Step) -> Made:
        kernel = self._kernels[step.stage.name, step.index]
        norm = self.norms[step.before.name] if step.before else None
        return kernel.open(source, step, norm, self._scratch)

    def _place(self, sweep: Sweep) -> Map | None:
        """Where what the sweep makes is kept."""
        slot = sweep.writes
        if slot is None:
            return None
        above = self._headrooms.get(slot, 0)
        if slot not in self._memory:
            shape = (self._picture.images, slot.channels, above + slot.height, slot.width)
            dtype = self._plan.map_dtype
            if self._plan.on_host:
                self._memory[slot] = torch.empty(shape, dtype=dtype, device="cpu")
            else:
                self._memory[slot] = self._device.take_map(*shape, dtype=dtype)
        begin = 0 if sweep.in_place else above
        data = self._memory[slot][:, :, begin : begin + slot.height]
        if self._plan.on_host:
            self._maps[slot] = HostMap(data, self._device, self._transfers)
        else:
            self._maps[slot] = DeviceMap(data)
        return self._maps[slot]

    def _weight(self, sweep: Sweep, start: int, stop: int) -> Tensor | None:
        if self._pyramid is None or not sweep.gathers:
            return None
        return self._pyramid[sweep.stage.shrink][:, :, start:stop, : sweep.size[1]]


def _pyramid(weight: Tensor) -> dict[int, Tensor]:
    """The weight [N, 1, H, W] area-averaged to each size a map can have, by its shrink.

    The edge is repeated up to multiples of 4, since the maps of the up stages reach that far.
    """
    height, width = weight.shape[2:]
    padded = F.pad(weight, (0, -width % 4, 0, -height % 4), mode="replicate")
    return {shrink: F.avg_pool2d(padded, shrink) if shrink > 1 else padded for shrink in (1, 2, 4)}
