"""A style between styles: the mean of networks' weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CheckpointError, OptionError
from .generator import Generator


def blend_generators(parts: Sequence[tuple[Generator, float]]) -> Generator:
    """One network whose weights are the mean of others', and which paints between their styles.

    It holds between networks that were trained from one start, as the four published ones were and
    the four of AnimeBG Lite; any others of one shape are taken, but what they paint is noise.

    Args:
        parts: networks of one shape, and how much of each: 0 or more, divided by their sum. Parts
            of 0 count for nothing.

    Returns:
        A new network on the first one's device, in its dtype; the very weights of a part that is
        alone.

    Raises:
        OptionError: no parts, or parts that are negative, not finite, or all 0.
        CheckpointError: networks of two designs, or of two shapes, with the name of what differs.
    """
    if not parts:
        raise OptionError("a blend is of one network or more, and none was given")
    amounts = [amount for _, amount in parts]
    together = sum(amounts)  # infinite where one is, or where they are too large for a sum
    if not math.isfinite(together) or min(amounts) < 0 or not any(amounts):
        raise OptionError(
            f"the parts of a blend are 0 or more, and not all 0, not {', '.join(map(str, amounts))}"
        )
    first = parts[0][0]
    for generator, _ in parts[1:]:
        _check_alike(first, generator)
    total = math.fsum(amounts)
    used = [(_tensors(g), amount / total) for g, amount in parts if amount]
    if len(used) == 1:
        mixed = {name: tensor.clone() for name, tensor in used[0][0].items()}
    else:
        mixed = {name: _mean([(t[name], share) for t, share in used]) for name in used[0][0]}
    return Generator(mixed).to(device=first.device, dtype=first.dtype).eval()


def _tensors(generator: Generator) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in generator.named_parameters()}


def _mean(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    device = parts[0][0].device
    return torch.stack([part.to(device, torch.float64) * share for part, share in parts]).sum(0)


def _check_alike(one: Generator, other: Generator) -> None:
    """Refuse two networks of different designs, or of different sizes."""
    if one.design != other.design:
        raise CheckpointError(
            "a blend is of networks of one design: published with published, Lite with Lite"
        )
    mine, its = _tensors(one), _tensors(other)
    if missing := sorted(set(mine) ^ set(its)):
        raise CheckpointError(
            "a blend is of networks of one shape, and one of these has no " + ", ".join(missing[:6])
        )
    for name, tensor in mine.items():
        if tensor.shape != its[name].shape:
            raise CheckpointError(
                f"a blend is of networks of one shape: {name} is {list(tensor.shape)} in one "
                f"and {list(its[name].shape)} in another"
            )
