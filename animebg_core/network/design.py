"""The CartoonGAN generator, and a small design of our own, each described once: a table of stages.

Source: Chen, Lai, Liu, "CartoonGAN: Generative Adversarial Networks for Photo Cartoonization" (CVPR
2018), in the form of the PyTorch conversion that the AnimeBackgroundGAN model repositories publish.

`engine.stream.paint` is the one loop that runs a table, for a whole image as for strips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

NORM_EPS = 1e-9  # inside the root of the published instance norm


@dataclass(frozen=True, slots=True)
class Conv:
    """The geometry of one convolution; channel counts come with its weights.

    Padding is `(kernel - 1) / 2` on every side. A transposed one has stride 2 and output padding 1,
    so that it doubles the size exactly. One that is shuffled doubles it too: each four of its
    channels become the 2 x 2 pixels of one (Shi et al., "Real-Time Single Image and Video
    Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016).
    """

    kernel: int
    stride: int = 1
    padding: Literal["zeros", "reflect"] = "zeros"
    transposed: bool = False
    shuffled: bool = False

    @property
    def padding_before(self) -> int:
        """Rows above and columns to the left that are read beyond the source."""
        return 0 if self.transposed else (self.kernel - 1) // 2

    @property
    def doubles(self) -> bool:
        """Whether it makes twice as many rows and columns as it reads."""
        return self.transposed or self.shuffled

    @property
    def padding_after(self) -> int:
        """Rows below and columns to the right that are read beyond the source."""
        return 1 if self.transposed else (self.kernel - 1) // 2

    def output_size(self, size: int) -> int:
        """Rows (or columns) made from `size` rows (or columns)."""
        return size * 2 if self.doubles else -(-size // self.stride)

    def source_rows(self, start: int, stop: int) -> tuple[int, int]:
        """The source rows `[first, last)` that output rows `[start, stop)` are made of.

        Rows below 0 and from the source's height on are padding.
        """
        if self.transposed:
            # Row y takes from source row y // 2, and an odd one from the next as well.
            return start // 2, (stop - 1) // 2 + 2
        if self.shuffled:
            start, stop = start // 2, (stop + 1) // 2
        first = start * self.stride - self.padding_before
        return first, (stop - 1 - start) * self.stride + first + self.kernel


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table: convolutions, then perhaps a norm and a ReLU.

    Attributes:
        name: canonical name, the prefix of its weights.
        convs: what runs, in order; nothing stands between two of them.
        shrink: the map's size against the image's: 1, 2 (half) or 4 (quarter), rounded up.
        norm: an instance norm follows.
        relu: a ReLU follows the norm.
        adds: the earlier stage whose map is added after the norm, before the ReLU; this map is cut
            to the size of that one. "" for none.
    """

    name: str
    convs: tuple[Conv, ...]
    shrink: int
    norm: bool = True
    relu: bool = True
    adds: str = ""

    @property
    def in_block(self) -> bool:
        """Whether this is a part of a residual block."""
        return self.name.startswith("block")


def _blocks(count: int, entry: str) -> tuple[Stage, ...]:
    """Residual blocks at quarter size, the first of which reads and adds the stage `entry`."""
    conv = Conv(3, padding="reflect")
    stages: list[Stage] = []
    for block in range(count):
        name = f"block{block}"
        stages += [
            Stage(f"{name}a", (conv,), shrink=4),
            Stage(f"{name}b", (conv,), shrink=4, relu=False, adds=entry),
        ]
        entry = f"{name}b"
    return tuple(stages)


def stage_table(blocks: int) -> tuple[Stage, ...]:
    """The generator with `blocks` residual blocks (the published ones have 8), in order of
    computation.

    The last stage ends in tanh, not in a norm.
    """
    down = (Conv(3, stride=2), Conv(3))
    up = (Conv(3, stride=2, transposed=True), Conv(3))
    return (
        Stage("input", (Conv(7, padding="reflect"),), shrink=1),
        Stage("down1", down, shrink=2),
        Stage("down2", down, shrink=4),
        *_blocks(blocks, "down2"),
        Stage("up1", up, shrink=2),
        Stage("up2", up, shrink=1),
        Stage("output", (Conv(7, padding="reflect"),), shrink=1, norm=False, relu=False),
    )


def lite_table(blocks: int) -> tuple[Stage, ...]:
    """The small generator: the published design with no map at full size, and a way around.

    Maps at full size cost more memory and time than their few multiplications say. Here the first
    convolution makes the half-size map at once, the last one makes four pixels at once, and what
    the first one saw is added before the last, so that the residual blocks need not carry every
    detail. `docs/lite.md` compares the two.
    """
    return (
        Stage("input", (Conv(7, stride=2, padding="reflect"),), shrink=2),
        Stage("down", (Conv(3, stride=2),), shrink=4),
        *_blocks(blocks, "down"),
        Stage("up", (Conv(3, stride=2, transposed=True), Conv(3)), shrink=2, adds="input"),
        Stage("output", (Conv(3, shuffled=True),), shrink=1, norm=False, relu=False),
    )


def settled(stages: tuple[Stage, ...]) -> frozenset[str]:
    """The stages whose maps are brought to their final values in memory, at every level: those that
    add one, and those that are added, which are read twice.
    """
    adding = [stage for stage in stages if stage.adds]
    return frozenset(name for stage in adding for name in (stage.name, stage.adds))


@dataclass(frozen=True, slots=True)
class Design:
    """One way to build a generator, of any channel widths and any number of residual blocks.

    Attributes:
        table: its stages, for a number of residual blocks.
        min_side: the fewest pixels a side that it can be run on.
        multiple: its output's height and width are its input's, rounded up to this.
        marks: how tensor names begin that only this design has.
    """

    table: Callable[[int], tuple[Stage, ...]]
    min_side: int
    multiple: int
    marks: tuple[str, ...] = ()


# Both reflect 3 pixels at full size and 1 at quarter size, where that needs more than 1: 5 at full
# size.
PUBLISHED = Design(stage_table, min_side=5, multiple=4)
LITE = Design(lite_table, min_side=5, multiple=2, marks=("down.", "up."))


def design_of(names: Iterable[str]) -> Design:
    """The design whose tensor names these are, some of them perhaps missing."""
    return LITE if any(name.startswith(LITE.marks) for name in names) else PUBLISHED


def expected_names(stages: tuple[Stage, ...]) -> list[str]:
    """Canonical tensor names of a table, in its order."""
    names: list[str] = []
    for stage in stages:
        for index in range(len(stage.convs)):
            names += [f"{stage.name}.{index}.weight", f"{stage.name}.{index}.bias"]
        if stage.norm:
            names += [f"{stage.name}.scale", f"{stage.name}.shift"]
    return names
