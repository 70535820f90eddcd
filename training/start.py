"""Where training begins: the teacher's own layers, reduced.

Every map of the teacher is described by fewer numbers, `z = encode @ map + encode_shift`, from
which the map is restored as well as a linear rule can, `map ~ decode @ z + decode_shift`. A
convolution of the small network is then the teacher's one between two such descriptions. A map
that a ReLU made, or that residual blocks carry, is described by some of its own channels, since
sums and ReLUs go through a choice of channels unharmed; a map between two convolutions by its
leading directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from animebg_core.generator import Conv, Stage, stage_table

from .network import run_maps


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels by size of the map and in residual blocks; which teacher blocks are kept."""

    full: int = 8
    half: int = 32
    quarter: int = 64
    inner: int = 48
    blocks: tuple[int, ...] = (0, 1, 3, 4, 6, 7)


@dataclass(frozen=True, slots=True)
class Code:
    """How a map of C channels is described by k numbers."""

    encode: Tensor  # [k, C]
    encode_shift: Tensor  # [k]
    decode: Tensor  # [C, k]
    decode_shift: Tensor  # [C]


@dataclass(frozen=True, slots=True)
class Reduced:
    """A small network made of the teacher's layers.

    Attributes:
        tensors: canonical names, float32.
        meaning: for each of its normed stages the teacher's stage and the channels there.
        between: how it describes the teacher's map after a convolution that another one follows.
    """

    tensors: dict[str, Tensor]
    meaning: dict[str, tuple[str, list[int]]]
    between: dict[str, Code]


Moments = dict[str, tuple[Tensor, Tensor]]  # by map: mean [C] and covariance [C, C], float64


@torch.no_grad()
def moments(
    stages: tuple[Stage, ...], teacher: Mapping[str, Tensor], inputs: Iterable[Tensor]
) -> Moments:
    """Mean and covariance of every map of the teacher over some pictures, each [1, 3, H, W]."""
    sums: dict[str, tuple[float, Tensor, Tensor]] = {}
    for image in inputs:
        for name, data in run_maps(stages, teacher, image).items():
            flat = data.float().permute(0, 2, 3, 1).reshape(-1, data.shape[1])
            count, first, second = sums.get(name, (0.0, torch.zeros(()), torch.zeros(())))
            # float32 sums over one picture are accurate enough; over all of them float64 is.
            sums[name] = (
                count + flat.shape[0],
                first + flat.sum(0).double(),
                second + (flat.T @ flat).double(),
            )
    return {
        name: (first / count, second / count - torch.outer(first, first) / count**2)
        for name, (count, first, second) in sums.items()
    }


def choose(covariance: Tensor, importance: Tensor, count: int) -> list[int]:
    """The channels from which the others follow best, greedily, weighted by importance; sorted."""
    rest = covariance * torch.outer(importance, importance)
    chosen: list[int] = []
    for _ in range(count):
        own = rest.diagonal().clamp_min(1e-12)
        gain = rest.square().sum(0) / own
        gain[own < 1e-9 * own.max()] = 0
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        rest = rest - torch.outer(rest[:, best], rest[best]) / own[best]
    return sorted(chosen)


def by_channels(mean: Tensor, covariance: Tensor, chosen: list[int]) -> Code:
    """A map described by some of its channels, the others restored from them by least squares."""
    count = len(mean)
    encode = torch.eye(count, dtype=torch.float64, device=mean.device)[chosen]
    own = covariance[chosen][:, chosen]
    ridge = 1e-4 * own.diagonal().mean() * torch.eye(len(chosen), device=mean.device)
    decode = torch.linalg.solve(own + ridge, covariance[chosen]).T
    decode[chosen] = torch.eye(len(chosen), dtype=torch.float64, device=mean.device)
    return Code(encode, torch.zeros_like(mean[chosen]), decode, mean - decode @ mean[chosen])


def by_directions(mean: Tensor, covariance: Tensor, count: int) -> Code:
    """A map described by its leading principal directions."""
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -count:]
    return Code(directions.T, -directions.T @ mean, directions, mean)


def kept(mean: Tensor, chosen: list[int]) -> Code:
    """Some channels of a map, the others forgotten."""
    encode = torch.eye(len(mean), dtype=torch.float64, device=mean.device)[chosen]
    return Code(encode, torch.zeros_like(mean[chosen]), encode.T, torch.zeros_like(mean))


def recoded(
    before: Code, after: Code, conv: Conv, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that reads one description and writes another."""
    if conv.transposed:
        made = torch.einsum("ik,ioyx,jo->kjyx", before.decode, weight, after.encode)
        # One output of a transposed convolution meets a quarter of the taps on average.
        passed = torch.einsum("ioyx,i->o", weight, before.decode_shift) / 4
    else:
        made = torch.einsum("jo,oiyx,ik->jkyx", after.encode, weight, before.decode)
        passed = torch.einsum("oiyx,i->o", weight, before.decode_shift)
    # What the forgotten channels are on average went into the bias: exact away from zero padding.
    return made, after.encode @ (bias + passed) + after.encode_shift


def reduced(
    teacher: Mapping[str, Tensor],
    found: Moments,
    widths: Widths,
) -> Reduced:
    """The teacher brought to the small widths."""
    stages = stage_table(len(widths.blocks))
    twin = {stage.name: _twin(stage.name, widths.blocks) for stage in stages}
    counts = {"input": widths.full, "down1": widths.half, "up1": widths.half, "up2": widths.full}
    tensors: dict[str, Tensor] = {}
    means: dict[str, tuple[str, list[int]]] = {}
    between: dict[str, Code] = {}
    carried: list[int] = []  # channels of the maps that residual blocks carry
    colours = torch.eye(3, dtype=torch.float64, device=teacher["input.0.weight"].device)
    code = Code(colours, torch.zeros_like(colours[0]), colours, torch.zeros_like(colours[0]))
    for place, stage in enumerate(stages):
        source = twin[stage.name]
        chosen: list[int] = list(range(3))
        if stage.norm:
            mean, covariance = found[source]
            if stage.settles and carried:
                chosen = carried
            else:
                count = counts.get(stage.name, widths.inner)
                count = widths.quarter if stage.settles else count
                reader = teacher[f"{twin[stages[place + 1].name]}.0.weight"].double()
                axes = (1, 2, 3) if stages[place + 1].convs[0].transposed else (0, 2, 3)
                chosen = choose(covariance, reader.square().sum(axes).sqrt(), count)
                carried = chosen if stage.settles else carried
            means[stage.name] = (source, chosen)
            tensors[f"{stage.name}.scale"] = teacher[f"{source}.scale"][chosen]
            tensors[f"{stage.name}.shift"] = teacher[f"{source}.shift"][chosen]
        for index, conv in enumerate(stage.convs):
            name = f"{source}.{index}"
            count = counts.get(stage.name, widths.quarter)
            last = index + 1 == len(stage.convs)
            after = kept(found[name][0], chosen) if last else by_directions(*found[name], count)
            if not last:
                between[f"{stage.name}.{index}"] = after
            weight, bias = (teacher[f"{name}.{part}"].double() for part in ("weight", "bias"))
            weight, bias = recoded(code, after, conv, weight, bias)
            tensors[f"{stage.name}.{index}.weight"] = weight
            tensors[f"{stage.name}.{index}.bias"] = bias
            code = after
        if stage.norm:
            code = by_channels(*found[source], chosen)
    tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    return Reduced(tensors, means, between)


def _twin(name: str, blocks: tuple[int, ...]) -> str:
    """The teacher's stage that the small network's stage of this name begins as."""
    if not name.startswith("block"):
        return name
    return f"block{blocks[int(name[5:-1])]}{name[-1]}"
