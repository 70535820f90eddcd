"""The module that holds a network's weights, checked against its table of stages."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .design import Stage, design_of, expected_names

_BLOCK = re.compile(r"block(\d+)[ab]\.")


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
        design: which of the tables it is of, and what sizes it takes.
        stages: the table that `engine.stream` runs.
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
        self.design = design_of(tensors)
        self.stages = self.design.table(blocks)
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
