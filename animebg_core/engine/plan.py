"""How a run is cut: integers only. What is stored, what is recomputed, strip heights, bytes and
work.

The method is written up in the README under "How it stays exact"; `stream.paint` carries a plan
out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..errors import MemoryBudgetError
from ..network.design import MIN_SIDE, Conv, Stage, settled
from ..network.generator import Generator
from .convolution import compute_dtype, on_cpu

Level = Literal["whole", "store", "recompute"]

# The largest shrink below which a level keeps no map between passes but the settled ones.
_RECOMPUTED_BELOW: dict[Level, int] = {"whole": 1, "store": 2, "recompute": 4}


@dataclass(frozen=True, slots=True)
class Pass:
    """One sweep down the image: from a stored map (or the image) through some stages, strip by
    strip.

    Attributes:
        stages: chained; each feeds the next by rows. All but the last have known statistics, the
            last one's are collected, unless it is the output.
        store: the last stage's rows are kept as a map; otherwise only its statistics (or the
            picture) come out.
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
    settling = settled(stages)
    for stage in stages:
        pending = (*pending, stage)
        kept = stage.norm and stage.shrink >= _RECOMPUTED_BELOW[level]
        store = kept or stage.name in settling
        result.append(Pass(pending, store))
        if store:
            pending = ()
    return tuple(result)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One way to run an image.

    Attributes:
        level: "whole" keeps every map, "store" those of half and quarter size, "recompute" those of
            quarter size; each keeps those that are added or add as well. The small design has
            hardly any others, so that its levels are one.
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
        if run.last.in_block:
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
    weights: int  # numbers in its weight
    inputs: int  # channels
    outputs: int
    source: tuple[int, int]  # height, width of what it reads
    size: tuple[int, int]  # and of what it makes

    @property
    def work(self) -> int:
        """Multiply-accumulates for the whole map."""
        height, width = self.source if self.conv.doubles else self.size
        return height * width * self.weights


def _steps(generator: Generator, height: int, width: int) -> dict[str, list[_Step]]:
    """The convolutions of every stage, by stage name, for a picture of `height` x `width`."""
    table: dict[str, list[_Step]] = {}
    size, channels = (height, width), 3
    for stage in generator.stages:
        steps: list[_Step] = []
        for index, conv in enumerate(stage.convs):
            weights = generator.weights(stage).conv(index)
            outputs = weights.bias.numel() // (4 if conv.shuffled else 1)
            made = (conv.output_size(size[0]), conv.output_size(size[1]))
            steps.append(_Step(conv, weights.weight.numel(), channels, outputs, size, made))
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


# Above this many pixels the half-size maps alone are kept even where all would fit: the full-size
# ones save a tenth of the time at most, and the memory belongs to the user's other models.
_WHOLE_PIXELS = 1 << 20
_SMALLEST_ROWS = 4
# Pixels of a strip times channels of the first map: 24,000 pixels of the published networks, twice
# that of the small ones. At 768 x 1152 those take 8% less time than with 24,000, and 15% less than
# with 96,000, which the caches do not hold.
_CPU_STRIP = 24_000 * 64
# What the convolution library, its threads and the heap take beside the tensors, as measured.
_CPU_OVERHEAD = 44 << 20


def plan_run(
    generator: Generator,
    height: int,
    width: int,
    *,
    batch: int = 1,
    budget: int | None = None,
    masked: bool = False,
) -> RunPlan:
    """The fastest way to run pictures of `height` x `width` that fits the memory.

    Args:
        generator: gives the table, the channel counts, the device and the dtype of the maps.
        height, width: of the pictures, in pixels.
        batch: how many there are; as many as fit run together on a GPU, and one at a time on the
            CPU.
        budget: bytes that the run may take on the generator's device, the given image not counted;
            None takes what `free_memory` reports.
        masked: a mask is given, which takes memory too.

    Raises:
        MemoryBudgetError: not even the most frugal plan fits; carries the bytes needed and
            available.
    """
    if budget is None:
        budget = free_memory(generator.device)
    cpu = on_cpu(generator.device)
    least: RunPlan | None = None
    for level in _levels(height * width):
        for together in _halvings(1 if cpu else batch):
            for rows, block_rows in _strips(generator, width, together, cpu):
                plan = RunPlan(level, rows, block_rows, together, generator.dtype, 0)
                peak = _peak_bytes(generator, plan, height, width, masked)
                plan = replace(plan, peak_bytes=peak)
                if budget is None or peak <= budget:
                    return plan
                least = plan if least is None or peak < least.peak_bytes else least
    assert least is not None and budget is not None
    raise MemoryBudgetError(
        f"{width} x {height} pixels need at least {_mib(least.peak_bytes)} here and "
        f"{_mib(budget)} are available: free some memory, raise the memory limit, shrink the image"
        + (", or use fp16" if generator.dtype == torch.float32 else ""),
        needed=least.peak_bytes,
        available=budget,
    )


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def _levels(pixels: int) -> tuple[Level, ...]:
    """Levels to try, the preferred first."""
    return ("whole", "store", "recompute") if pixels <= _WHOLE_PIXELS else ("store", "recompute")


def _halvings(count: int) -> list[int]:
    """count, count / 2, ... 1, each rounded up."""
    result = [count]
    while result[-1] > 1:
        result.append((result[-1] + 1) // 2)
    return result


def _strips(generator: Generator, width: int, together: int, cpu: bool) -> list[tuple[int, int]]:
    """Heights of strips to try, for the image and for the quarter-size maps, the fastest first.

    On the CPU a strip's maps should stay in its caches; on a GPU a strip should fill the device.
    """
    pixels = _CPU_STRIP // max(32, generator.channels["input"]) if cpu else 1 << 20
    rows = max(16, min(pixels // (width * together) // 16 * 16, 64 if cpu else 1 << 14))
    sizes = [rows]
    while sizes[-1] > _SMALLEST_ROWS:
        sizes.append(max(_SMALLEST_ROWS, sizes[-1] // 8 * 4))
    return [(size, max(4, size // 2)) for size in sizes]


def _peak_bytes(generator: Generator, plan: RunPlan, height: int, width: int, masked: bool) -> int:
    """Bytes taken on the device at the worst moment, as `stream.paint` holds its maps."""
    table = _steps(generator, max(height, MIN_SIDE), max(width, MIN_SIDE))
    cpu = on_cpu(generator.device)
    added = {stage.adds for stage in generator.stages}
    settling = settled(generator.stages)
    sizes: dict[str, int] = {"": 0}  # bytes of each map, by the stage that it was made for
    held: dict[str, str] = {}  # as in `paint`: maps by the stage whose result they hold
    source = spare = ""
    peak = 0
    for run in passes(generator.stages, plan.level):
        last, size = run.last, table[run.last.name][-1].size
        spare = spare if last.in_block else ""
        made = plan.batch * size[0] * size[1] * generator.channels[last.name]
        made *= plan.map_dtype.itemsize if run.store else 0
        kept = spare if sizes[spare] == made else last.name
        sizes[kept] = made
        alive = sum(sizes[name] for name in {source, spare, kept, *held.values()})
        if cpu and not last.norm:
            alive += plan.batch * height * width * 4 * 4  # the result, with an alpha channel
        peak = max(peak, alive + _scratch_bytes(generator, run, table, plan))
        if not run.store:
            continue
        source = spare = kept
        if last.name in settling:
            if last.adds:
                source = held.pop(last.adds)
            else:
                spare = ""
            if last.name in added:
                held[last.name] = source
    if cpu:
        peak += _CPU_OVERHEAD
    # The mask, its weights at full, half and quarter size, and the picture filled outside it.
    return peak + (plan.batch * height * width * (4 + 6 + 12) if masked else 0)


def _scratch_bytes(
    generator: Generator, run: Pass, table: dict[str, list[_Step]], plan: RunPlan
) -> int:
    """Bytes of the windows of a pass, and of the largest thing that is made beside them."""
    size = compute_dtype(generator.device, generator.dtype).itemsize
    steps = [step for stage in run.stages for step in table[stage.name]]
    rows = min(plan.strip(run), steps[-1].size[0])
    # The statistics of the last rows: themselves in float32, and centred.
    pixels = plan.batch * rows * steps[-1].size[1]
    worst = pixels * steps[-1].outputs * (size + 8)
    windows = 0
    for step in reversed(steps):
        first, last = step.conv.source_rows(0, rows)
        window = plan.batch * (last - first) * (step.source[1] + 8) * step.inputs * size
        made = plan.batch * rows * step.size[1] * step.outputs * size
        # The Winograd form holds its 36 values for each 16 pixels twice; the others a copy.
        spread = 4.5 if step.conv.kernel == 3 and step.conv.stride == 1 else 1
        worst = max(worst, int(spread * max(made, window)) + made)
        windows += window
        rows = min(last - first, step.source[0])
    return windows + worst


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on `device`; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reserved
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            fields = dict(line.split(":", 1) for line in table)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
