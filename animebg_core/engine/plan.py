"""How a run is cut: integers only. What is stored, what is recomputed, strip heights, bytes and
work.

The method is written up in the README under "How it stays exact"; `stream.paint` carries a plan
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import MemoryBudgetError
from ..network.generator import Generator
from .device import Device
from .kernels import Kernels, choose
from .memory import host_free_memory
from .schedule import Level, Slot, Step, Sweep, schedule
from .transfers import IN_FLIGHT, asked_for


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
        on_host: the maps lie in main memory, and their strips come to the device as they are read.
    """

    level: Level
    rows: int
    block_rows: int
    batch: int
    map_dtype: torch.dtype
    peak_bytes: int
    on_host: bool = False

    def strip(self, sweep: Sweep) -> int:
        """How many rows a sweep makes at a time."""
        if sweep.stage.in_block:
            return self.block_rows
        return max(1, self.rows // sweep.stage.shrink)

    def __str__(self) -> str:
        kind = str(self.map_dtype).removeprefix("torch.")
        where = " in main memory" if self.on_host else ""
        return (
            f"level {self.level}, strips of {self.rows} rows ({self.block_rows} in the blocks), "
            f"{self.batch} at once, {kind} maps{where}, {self.peak_bytes / 2**20:.0f} MiB"
        )


# Above this many pixels the half-size maps alone are kept even where all would fit: the full-size
# ones save a tenth of the time at most, and the memory belongs to the user's other models.
_WHOLE_PIXELS = 1 << 20


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
            None takes what is free.
        masked: a mask is given, which takes memory too.

    Raises:
        MemoryBudgetError: not even the most frugal plan fits; carries the bytes needed and
            available.
    """
    device = Device.of(generator)
    if budget is None:
        budget = device.free_memory()
    kernels = choose(generator, device)
    blocks = [stage for stage in generator.stages if stage.in_block]
    cut = all(kernels[s.name, i].cuts_strips for s in blocks for i in range(len(s.convs)))
    least: RunPlan | None = None
    levels: list[tuple[Level, bool]] = [(level, False) for level in _levels(height * width)]
    if not device.cpu and asked_for("host-maps") and _fits_main_memory(generator, height, width):
        levels.append(("recompute", True))
    for level, on_host in levels:
        for together in _halvings(batch if device.batches and not on_host else 1):
            for rows, block_rows in device.strips(
                width, together, generator.channels["input"], cut=cut
            ):
                plan = RunPlan(level, rows, block_rows, together, generator.dtype, 0, on_host)
                peak = peak_bytes(generator, plan, height, width, masked=masked)
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


def headrooms(kernels: Kernels, plan: RunPlan, sweeps: Sequence[Sweep]) -> dict[Slot, int]:
    """Rows above the maps that are written over while they are read; see `Footprint.headroom`."""
    found: dict[Slot, int] = {}
    for sweep in () if plan.on_host else sweeps:
        slot, (step, *others) = sweep.writes, sweep.steps
        if slot is None or not sweep.in_place or others:
            continue
        strip = min(plan.strip(sweep), sweep.size[0])
        need = kernels[step.stage.name, step.index].footprint(step, plan.batch, strip)
        if need.headroom:
            found[slot] = max(found.get(slot, 0), need.headroom)
    return found


def peak_bytes(
    generator: Generator, plan: RunPlan, height: int, width: int, *, masked: bool
) -> int:
    """Bytes taken on the device at the worst moment of a run."""
    return max(sweep_bytes(generator, plan, height, width, masked=masked))


def sweep_bytes(
    generator: Generator, plan: RunPlan, height: int, width: int, *, masked: bool
) -> list[int]:
    """Bytes taken on the device in each sweep: the maps that live then, what the kernels take
    beside them, and what there is all the time.
    """
    device = Device.of(generator)
    kernels = choose(generator, device)
    side = generator.design.min_side
    sweeps = schedule(generator, max(height, side), max(width, side), plan.level)
    headroom = headrooms(kernels, plan, sweeps)
    scratch: dict[str, int] = {}
    # The mask, its weights at full, half and quarter size, and the picture filled outside it.
    always = plan.batch * height * width * (4 + 6 + 12) if masked else 0
    taken_by: list[int] = []
    for sweep, living in zip(sweeps, _living(sweeps), strict=True):
        if plan.on_host:
            numbers = _numbers_on_their_way(sweep, plan)
        else:
            numbers = sum(s.numel + s.channels * headroom.get(s, 0) * s.width for s in living)
        taken = plan.batch * numbers * plan.map_dtype.itemsize
        if device.holds_result and not sweep.stage.norm:
            taken += plan.batch * height * width * 4 * 4  # in float32, with an alpha channel
        steps, rows = sweep.steps, min(plan.strip(sweep), sweep.size[0])
        made = library = 0
        weights: list[int] = []
        for step in reversed(steps):
            kernel = kernels[step.stage.name, step.index]
            need = kernel.footprint(step, plan.batch, rows)
            if not (sweep.in_place and sweep.writes in headroom):
                taken += need.window  # else it is read where it lies
            made, library = max(made, need.made), max(library, need.library)
            _enlarge(scratch, need.scratch)
            weights += [need.weights] if need.weights else []
            rows = min(step.source[0], _source_rows(step, rows))
        # The last step's came first here; they are taken in the order in which steps are opened.
        _enlarge(scratch, {f"weights {at}": count for at, count in enumerate(reversed(weights))})
        own, buffers = _statistics_bytes(sweep, plan, device, masked)
        _enlarge(scratch, buffers)
        taken_by.append(always + library + taken + max(made, own) + sum(scratch.values()))
    return taken_by


def _living(sweeps: Sequence[Sweep]) -> Iterator[frozenset[Slot]]:
    """The maps that are held in each sweep."""
    living: set[Slot] = set()
    for sweep in sweeps:
        living |= {slot for slot in (sweep.reads, sweep.writes, sweep.adds) if slot}
        yield frozenset(living)
        living -= set(sweep.frees)


def _fits_main_memory(generator: Generator, height: int, width: int) -> bool:
    """Whether the maps of the most frugal level do, and leave a quarter of what is free."""
    free = host_free_memory()
    return free is None or host_bytes(generator, height, width) <= free // 4 * 3


def host_bytes(generator: Generator, height: int, width: int) -> int:
    """Bytes that the maps of the most frugal level take in main memory."""
    side = generator.design.min_side
    sweeps = schedule(generator, max(height, side), max(width, side), "recompute")
    most = max(sum(slot.numel for slot in living) for living in _living(sweeps))
    return most * generator.dtype.itemsize


def _numbers_on_their_way(sweep: Sweep, plan: RunPlan) -> int:
    """Of the strips of maps in main memory that are on the device at once, for one picture."""
    rows = min(plan.strip(sweep), sweep.size[0])
    strips = 0
    if sweep.writes:
        strips += sweep.writes.channels * rows * sweep.writes.width
    if sweep.reads:
        for step in reversed(sweep.steps):
            rows = min(step.source[0], _source_rows(step, rows))
        strips += sweep.reads.channels * rows * sweep.reads.width
    return strips * (1 + IN_FLIGHT)


def _enlarge(scratch: dict[str, int], buffers: Mapping[str, int]) -> None:
    """Buffers are kept for the whole run, each as large as it was ever wanted."""
    for name, count in buffers.items():
        scratch[name] = max(scratch.get(name, 0), count)


def _source_rows(step: Step, rows: int) -> int:
    """Rows that a step reads for so many that it makes."""
    first, last = step.conv.source_rows(0, rows)
    return last - first


def _statistics_bytes(
    sweep: Sweep, plan: RunPlan, device: Device, masked: bool
) -> tuple[int, dict[str, int]]:
    """Bytes of one strip's statistics: what is made beside its rows, and in scratch memory."""
    rows = min(plan.strip(sweep), sweep.size[0])
    values = plan.batch * rows * sweep.size[1] * sweep.steps[-1].outputs
    itemsize = device.arithmetic.itemsize
    if not sweep.gathers:
        # The picture's rows: as they are made, as RGB, mixed.
        return values * (itemsize + 3 * 4), {}
    beside = itemsize * values  # the rows themselves
    if plan.map_dtype != torch.float32:
        beside += 4 * values
    if masked:
        beside += 4 * values
    return (beside, {"a": 4 * values}) if device.cpu else (beside + 4 * values, {})
