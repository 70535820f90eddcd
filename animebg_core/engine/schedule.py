"""What a run does, as values: its sweeps down the picture, in order, and the maps that each of them
reads, writes, adds and frees.

`stream` carries a schedule out and `plan` sums the maps that live in it: both read the same
lifetimes, which are worked out here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..network.design import Conv, Stage, settled
from ..network.generator import Generator

Level = Literal["whole", "store", "recompute"]

# The largest shrink below which a level keeps no map between sweeps but the settled ones.
_RECOMPUTED_BELOW: dict[Level, int] = {"whole": 1, "store": 2, "recompute": 4}


@dataclass(frozen=True, slots=True)
class Slot:
    """Memory for a map of one picture.

    Attributes:
        name: of the stage whose map lay there first.
        channels, height, width: of every map that lies there.
    """

    name: str
    channels: int
    height: int
    width: int

    @property
    def numel(self) -> int:
        """Numbers in it."""
        return self.channels * self.height * self.width

    def fits(self, other: Slot) -> bool:
        """Whether a map of the one may lie in the other."""
        return (self.channels, self.height, self.width) == (
            other.channels,
            other.height,
            other.width,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One convolution with the sizes it has in a run.

    Attributes:
        stage, index: the convolution number `index` of that stage.
        inputs, outputs: channels read and made.
        weights: numbers in its weight.
        source, size: height and width of what it reads and of what it makes.
        before: the stage whose norm, and ReLU, are applied to what is read; None: neither.
    """

    stage: Stage
    index: int
    inputs: int
    outputs: int
    weights: int
    source: tuple[int, int]
    size: tuple[int, int]
    before: Stage | None = None

    @property
    def conv(self) -> Conv:
        """Its geometry."""
        return self.stage.convs[self.index]

    @property
    def is_last(self) -> bool:
        """Whether its stage ends with it."""
        return self.index + 1 == len(self.stage.convs)

    @property
    def work(self) -> int:
        """Multiply-accumulates for the whole map."""
        height, width = self.source if self.conv.doubles else self.size
        return height * width * self.weights


@dataclass(frozen=True, slots=True)
class Sweep:
    """One way down the picture, from a stored map or from the picture itself through some stages,
    strip by strip.

    Attributes:
        steps: chained; each feeds the next by rows.
        gathers: the statistics of what is made are gathered.
        reads: the map it begins with; None for the picture.
        writes: where what is made is kept; None where only its statistics, or the painted picture,
            come out. It may be what is read: rows are overwritten once they have been read.
        adds: the map to which what was written, normed, is added when the sweep is through; the sum
            lies there.
        settles: when the sweep is through, what was made is brought to its final values, so that it
            is read without a norm from then on.
        frees: maps that nothing reads any more, and whose memory the next sweep cannot use.
    """

    steps: tuple[Step, ...]
    gathers: bool
    reads: Slot | None = None
    writes: Slot | None = None
    adds: Slot | None = None
    settles: bool = False
    frees: tuple[Slot, ...] = ()

    @property
    def stage(self) -> Stage:
        """The stage that this sweep is made for: its last one."""
        return self.steps[-1].stage

    @property
    def in_place(self) -> bool:
        """Whether what it makes is written over what it reads."""
        return self.writes is not None and self.writes == self.reads

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what it makes."""
        return self.steps[-1].size

    @property
    def work(self) -> int:
        """Multiply-accumulates."""
        return sum(step.work for step in self.steps)


@dataclass(slots=True)
class _Draft:
    """A sweep before its maps have places: they are named by the stages that make them."""

    steps: list[Step]
    reads: str
    writes: str


def schedule(
    generator: Generator, height: int, width: int, level: Level, *, gathers: bool = True
) -> tuple[Sweep, ...]:
    """The sweeps of a run over a picture of `height` x `width`, in order.

    Args:
        gathers: statistics have to be gathered, as for a picture of its own. Where they are given,
            no sweep is made for their sake and no map is kept that is not added to or added, at
            every level.
    """
    settling = settled(generator.stages)
    drafts = _drafts(generator, height, width, level, gathers)

    # A map that is added to another lies where that one lay from then on.
    home = {draft.writes: draft.writes for draft in drafts}
    last_use: dict[str, int] = {}
    for at, draft in enumerate(drafts):
        stage = draft.steps[-1].stage
        uses = [name for name in (draft.reads, stage.adds) if name]
        last_use |= dict.fromkeys([home[name] for name in uses], at)
        if draft.writes:
            last_use[draft.writes] = at
            if stage.adds:
                home[draft.writes] = home[stage.adds]

    sweeps: list[Sweep] = []
    places: dict[str, Slot] = {}  # of the maps that live, by name
    handed: Slot | None = None  # memory that the sweep before has no more use for
    for at, draft in enumerate(drafts):
        stage = draft.steps[-1].stage
        reads = places[home[draft.reads]] if draft.reads else None
        adds = places[home[stage.adds]] if stage.adds else None
        writes = None
        if draft.writes:
            writes = _slot(draft)
            in_place = reads and last_use[home[draft.reads]] == at and _same_rows(draft)
            if handed and handed.fits(writes):
                writes = handed
            elif reads and in_place and reads.fits(writes):
                writes = reads
            places[draft.writes] = writes
        ending = {name for name in places if last_use[name] <= at}
        living = {place for name, place in places.items() if name not in ending}
        dead = list(dict.fromkeys(p for n, p in places.items() if n in ending and p not in living))
        following = drafts[at + 1] if at + 1 < len(drafts) else None
        handed = None
        if following and following.writes:
            handed = next((place for place in dead if place.fits(_slot(following))), None)
        sweeps.append(
            Sweep(
                tuple(draft.steps),
                gathers and stage.norm,
                reads,
                writes,
                adds,
                stage.name in settling,
                tuple(place for place in dead if place is not handed),
            )
        )
        places = {name: place for name, place in places.items() if name not in ending}
    return tuple(sweeps)


def total_work(
    generator: Generator, height: int, width: int, level: Level, *, gathers: bool = True
) -> int:
    """Multiply-accumulates of a whole run; what the steps of `stream.paint` add up to."""
    return sum(s.work for s in schedule(generator, height, width, level, gathers=gathers))


def _drafts(
    generator: Generator, height: int, width: int, level: Level, gathers: bool
) -> list[_Draft]:
    settling = settled(generator.stages)
    drafts: list[_Draft] = []
    pending: list[Step] = []
    source, unread = "", None  # the stored map that is read, and the norm it still wants
    for steps in _steps(generator, height, width):
        stage = steps[0].stage
        before = pending[-1].stage if pending else unread
        pending += _reading(steps, before)
        kept = gathers and stage.norm and stage.shrink >= _RECOMPUTED_BELOW[level]
        stored = kept or stage.name in settling
        if stored or gathers or not stage.norm:
            drafts.append(_Draft(list(pending), source, stage.name if stored else ""))
        if stored:
            source, unread, pending = stage.name, stage, []
            if stage.name in settling:
                unread = None
    return drafts


def _reading(steps: list[Step], before: Stage | None) -> Iterator[Step]:
    for step in steps:
        yield Step(
            step.stage,
            step.index,
            step.inputs,
            step.outputs,
            step.weights,
            step.source,
            step.size,
            before if step.index == 0 else None,
        )


def _steps(generator: Generator, height: int, width: int) -> Iterator[list[Step]]:
    """The convolutions of every stage, for a picture of `height` x `width`."""
    size, channels = (height, width), 3
    sizes: dict[str, tuple[int, int]] = {}
    for stage in generator.stages:
        steps: list[Step] = []
        for index, conv in enumerate(stage.convs):
            weights = generator.weights(stage).conv(index)
            outputs = weights.bias.numel() // (4 if conv.shuffled else 1)
            made = (conv.output_size(size[0]), conv.output_size(size[1]))
            if stage.adds and index + 1 == len(stage.convs):
                # Cut to the size of the map that it is added to.
                made = (min(made[0], sizes[stage.adds][0]), min(made[1], sizes[stage.adds][1]))
            count = weights.weight.numel()
            steps.append(Step(stage, index, channels, outputs, count, size, made))
            size, channels = made, outputs
        sizes[stage.name] = size
        yield steps


def _slot(draft: _Draft) -> Slot:
    step = draft.steps[-1]
    return Slot(draft.writes, step.outputs, *step.size)


def _same_rows(draft: _Draft) -> bool:
    """Whether row k is made of no source row that is read after k was written."""
    return all(not step.conv.doubles and step.conv.stride == 1 for step in draft.steps)
