"""The CartoonGAN generator, and a small design of our own, each described once: a table of stages,
and the module that holds their weights.

Source: Chen, Lai, Liu, "CartoonGAN: Generative Adversarial Networks for Photo Cartoonization" (CVPR
2018), in the form of the PyTorch conversion that the AnimeBackgroundGAN model repositories publish.

The module has no `forward`: `stream.paint` is the one loop that runs the table, for a whole image
as for strips.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import CheckpointError

NORM_EPS = 1e-9  # inside the root of the published instance norm
# It reflects 3 pixels at full size and 1 at quarter size, where it needs more than 1: 5 at full
# size.
MIN_SIDE = 5
_BLOCK = re.compile(r"block(\d+)[ab]\.")


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


class ConvWeights(nn.Module):
    """`weight` [out, in, k, k], transposed [in, out, k, k], and `bias` [out] of a convolution."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)


class StageWeights(nn.Module):
    """The convolutions of one stage, and `scale` and `shift` [C] of its norm where it has one."""

    def __init__(self, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for index in range(len(stage.convs)):
            prefix = f"{stage.name}.{index}"
            conv = ConvWeights(tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"])
            self.add_module(str(index), conv)
        if stage.norm:
            self.scale = nn.Parameter(tensors[f"{stage.name}.scale"], requires_grad=False)
            self.shift = nn.Parameter(tensors[f"{stage.name}.shift"], requires_grad=False)

    def conv(self, index: int) -> ConvWeights:
        """The weights of the stage's convolution number `index`."""
        module = self.get_submodule(str(index))
        assert isinstance(module, ConvWeights)
        return module


class Generator(nn.Module):
    """A generator of either table, of any channel widths and any number of residual blocks.

    Attributes:
        stages: the table that `stream.paint` runs.
        channels: of each stage's map, by stage name.

    Args:
        tensors: canonical names (`<stage>.<index>.weight|bias`, `<stage>.scale|shift`) to float
            tensors.

    Raises:
        CheckpointError: names missing or unexpected, or shapes that do not chain.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        blocks = len({match[1] for name in tensors if (match := _BLOCK.match(name))})
        self.stages = (lite_table if is_lite(tensors) else stage_table)(blocks)
        self.channels = _check(self.stages, tensors)
        for stage in self.stages:
            self.add_module(stage.name, StageWeights(stage, tensors))
        self.requires_grad_(False)

    def weights(self, stage: Stage) -> StageWeights:
        """The weights of one row of `stages`."""
        module = self.get_submodule(stage.name)
        assert isinstance(module, StageWeights)
        return module

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What weights and maps are stored in; on a GPU also what convolutions compute in."""
        return next(self.parameters()).dtype


def is_lite(names: Iterable[str]) -> bool:
    """Whether tensor names are those of `lite_table`, some of them perhaps missing."""
    return any(name.startswith(("down.", "up.")) for name in names)


def expected_names(stages: tuple[Stage, ...]) -> list[str]:
    """Canonical tensor names of a table, in its order."""
    names: list[str] = []
    for stage in stages:
        for index in range(len(stage.convs)):
            names += [f"{stage.name}.{index}.weight", f"{stage.name}.{index}.bias"]
        if stage.norm:
            names += [f"{stage.name}.scale", f"{stage.name}.shift"]
    return names


def _check(stages: tuple[Stage, ...], tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Channels of each stage's map, once every name and shape has been found to chain."""
    expected = expected_names(stages)
    problems = [f"missing {name}" for name in sorted(set(expected) - set(tensors))]
    problems += [f"unexpected {name}" for name in sorted(set(tensors) - set(expected))]
    if problems:
        raise CheckpointError(f"not this generator's tensors: {', '.join(problems)}")
    channels: dict[str, int] = {}
    width = 3
    for stage in stages:
        for index, conv in enumerate(stage.convs):
            weight = tensors[f"{stage.name}.{index}.weight"]
            shape = tuple(weight.shape)
            made = shape[1 if conv.transposed else 0] if len(shape) == 4 else 0
            pair = (width, made) if conv.transposed else (made, width)
            if not made or shape != (*pair, conv.kernel, conv.kernel):
                wanted = ("{0}, *" if conv.transposed else "*, {0}").format(width)
                problems.append(
                    f"{stage.name}.{index}.weight is {list(shape)}, "
                    f"expected [{wanted}, {conv.kernel}, {conv.kernel}]"
                )
                made = made or width
            _check_vector(problems, tensors, f"{stage.name}.{index}.bias", made)
            if conv.shuffled and made % 4:
                problems.append(f"{stage.name}.{index} makes {made} channels, expected fours")
            width = made // 4 if conv.shuffled else made
        if stage.norm:
            _check_vector(problems, tensors, f"{stage.name}.scale", width)
            _check_vector(problems, tensors, f"{stage.name}.shift", width)
        if stage.adds and width != channels[stage.adds]:
            problems.append(
                f"{stage.name} makes {width} channels, but adds {channels[stage.adds]} "
                f"of {stage.adds}"
            )
        channels[stage.name] = width
    if width != 3:
        problems.append(f"output makes {width} channels, expected 3")
    if problems:
        raise CheckpointError(f"shapes of another network: {', '.join(problems)}")
    return channels


def _check_vector(problems: list[str], tensors: Mapping[str, Tensor], name: str, size: int) -> None:
    shape = list(tensors[name].shape)
    if shape != [size]:
        problems.append(f"{name} is {shape}, expected [{size}]")
