"""Before any gradient: every convolution of the small network fitted to the teacher's maps.

One after the other, each is the least-squares answer, over two dozen pictures, to "which weights
bring the small network's own maps closest to what the teacher has here?", so that every layer makes
good what those before it lost. A residual block aims at the teacher's map after it, less what the
small network carries already.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from animebg_core.generator import NORM_EPS, Conv, Stage, stage_table

from .network import convolve, run_maps
from .start import Reduced

RIDGE = 1e-3  # of the mean diagonal of the normal equations
DAMPING = 1e-2  # of the mean variance, so that directions hardly ever seen are not blown up


def patches(x: Tensor, conv: Conv) -> Tensor:
    """What each output pixel of a convolution reads of [1, C, H, W]: [C * k * k, pixels]."""
    if conv.transposed:  # an ordinary convolution of the map with zeros between its pixels
        wide = x.new_zeros(x.shape[0], x.shape[1], x.shape[2] * 2, x.shape[3] * 2)
        wide[:, :, ::2, ::2] = x
        return F.unfold(wide, conv.kernel, padding=conv.kernel // 2)[0]
    mode = "reflect" if conv.padding == "reflect" else "constant"
    padded = F.pad(x, (conv.kernel // 2,) * 4, mode)
    return F.unfold(padded, conv.kernel, stride=conv.stride)[0]


def as_rows(weight: Tensor, conv: Conv) -> Tensor:
    """A convolution's weight as [out, C * k * k], to be multiplied with `patches`."""
    return (weight.transpose(0, 1).flip(2, 3) if conv.transposed else weight).flatten(1)


def from_rows(rows: Tensor, conv: Conv, channels: int) -> Tensor:
    """The inverse of `as_rows`, for a convolution that reads `channels` channels."""
    weight = rows.reshape(-1, channels, conv.kernel, conv.kernel)
    return (weight.flip(2, 3).transpose(0, 1) if conv.transposed else weight).contiguous()


def normed(x: Tensor) -> Tensor:
    """The instance norm without scale and shift."""
    centred = x - x.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True) + NORM_EPS).sqrt()


def per_channel(values: Tensor) -> Tensor:
    """[C] as [1, C, 1, 1]."""
    return values[None, :, None, None]


def targets(
    teacher_stages: tuple[Stage, ...],
    teacher: Mapping[str, Tensor],
    stages: tuple[Stage, ...],
    start: Reduced,
    image: Tensor,
) -> dict[str, Tensor]:
    """What each convolution aims at in a picture, by `<stage>.<index>`; where normed, after it."""
    maps = run_maps(teacher_stages, teacher, image)
    found: dict[str, Tensor] = {}
    for stage in stages:
        source, channels = start.meaning.get(stage.name, (stage.name, []))
        last = len(stage.convs) - 1
        for index in range(last):
            code = start.between[f"{stage.name}.{index}"]
            seen = maps[f"{source}.{index}"].float()
            coded = torch.einsum("kc,nchw->nkhw", code.encode.float(), seen)
            coded = coded + per_channel(code.encode_shift.float())
            found[f"{stage.name}.{index}"] = coded.to(torch.bfloat16)  # half the memory
        goal = f"{stage.name}.{last}"
        if not stage.norm:
            found[goal] = maps[stage.name]
        elif stage.adds:
            found[goal] = maps[source][:, channels]
        else:
            scale, shift = (teacher[f"{source}.{part}"][channels] for part in ("scale", "shift"))
            raw = normed(maps[f"{source}.{last}"][:, channels].float())
            found[goal] = (raw * per_channel(scale) + per_channel(shift)).to(torch.bfloat16)
    return found


class Equations:
    """Normal equations of one convolution, gathered picture by picture, each with equal weight."""

    def __init__(self) -> None:
        self.left: Tensor | None = None
        self.right: Tensor | None = None

    def add(self, rows: Tensor, wanted: Tensor) -> None:
        """`rows` [n, pixels] should make `wanted` [out, pixels]."""
        left, right = ((rows @ other.T).double() / rows.shape[1] for other in (rows, wanted))
        self.left = left if self.left is None else self.left + left
        self.right = right if self.right is None else self.right + right

    def solve(self, towards: Tensor) -> Tensor:
        """The weights [out, n] (the last column is the bias), drawn a little towards `towards`."""
        assert self.left is not None and self.right is not None
        draw = RIDGE * self.left.diagonal()[:-1].mean()
        ridge = torch.full_like(self.left.diagonal(), float(draw))
        ridge[-1] = 1e-9
        both = self.right + ridge[:, None] * towards.double().T
        return torch.linalg.solve(self.left + torch.diag(ridge), both).T


@torch.no_grad()
def fitted(
    teacher_stages: tuple[Stage, ...],
    teacher: Mapping[str, Tensor],
    start: Reduced,
    images: list[Tensor],
) -> dict[str, Tensor]:
    """The small network's tensors, fitted on pictures [1, 3, H, W]; canonical names, float32."""
    blocks = sum(name.endswith("b.scale") for name in start.tensors)
    stages = stage_table(blocks)
    wanted = [targets(teacher_stages, teacher, stages, start, image) for image in images]
    tensors = dict(start.tensors)
    maps = carried = [image.float() for image in images]
    for stage in stages:
        for index, conv in enumerate(stage.convs):
            name = f"{stage.name}.{index}"
            normed_after = stage.norm and index + 1 == len(stage.convs)
            equations = Equations()
            for x, goals, held in zip(maps, wanted, carried, strict=True):
                rows = patches(x, conv)
                rows = torch.cat((rows, torch.ones_like(rows[:1])))
                goal = goals[name].float()
                goal = (goal - held if stage.adds else goal)[0].flatten(1)
                if normed_after:  # the norm forgets each picture's means
                    rows, goal = (side - side.mean(1, keepdim=True) for side in (rows, goal))
                elif not stage.norm:  # through tanh an error counts by its slope
                    slope = (1 - goal.square()).clamp_min(0.03).mean(0)
                    rows, goal = rows * slope, torch.atanh(goal.clamp(-0.98, 0.98)) * slope
                equations.add(rows, goal)
            before = as_rows(start.tensors[f"{name}.weight"], conv)
            towards = torch.zeros_like(before) if normed_after else before
            solution = equations.solve(torch.cat((towards, towards.new_zeros(len(towards), 1)), 1))
            weight = from_rows(solution[:, :-1], conv, maps[0].shape[1]).float()
            bias = torch.zeros_like(solution[:, -1]) if normed_after else solution[:, -1]
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, bias.float()
            weight = weight.contiguous(memory_format=torch.channels_last)
            maps = [convolve(x, conv, weight, bias.float()) for x in maps]
        if stage.norm:
            goals = [every[f"{stage.name}.{len(stage.convs) - 1}"].float() for every in wanted]
            if stage.adds:
                goals = [goal - held for goal, held in zip(goals, carried, strict=True)]
            maps = [normed(x) for x in maps]
            pairs = list(zip(maps, goals, strict=True))
            scale = torch.stack([(x * goal).mean((0, 2, 3)) for x, goal in pairs]).mean(0)
            shift = torch.stack([goal.mean((0, 2, 3)) for goal in goals]).mean(0)
            tensors[f"{stage.name}.scale"], tensors[f"{stage.name}.shift"] = scale, shift
            maps = [x * per_channel(scale) + per_channel(shift) for x in maps]
        if stage.relu:
            maps = [F.relu(x) for x in maps]
        if stage.adds:
            maps = [x + held for x, held in zip(maps, carried, strict=True)]
        if stage.settles:
            carried = maps
    return tensors


@torch.no_grad()
def whiteners(
    stages: tuple[Stage, ...], tensors: Mapping[str, Tensor], images: list[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """By convolution, the matrices [n, n] that take its weights to white coordinates and back.

    What one output pixel reads are hundreds of numbers that mostly say the same, so that steps of
    equal size in all weights go far too far in a few directions and nowhere in most. In coordinates
    in which they are uncorrelated and of unit variance, Adam needs a fraction of the steps.
    """
    moments: dict[str, Tensor] = {}
    for image in images:
        maps = run_maps(stages, tensors, image)
        x = image
        for stage in stages:
            for index, conv in enumerate(stage.convs):
                name = f"{stage.name}.{index}"
                rows = patches(x.float(), conv)
                if stage.norm and index + 1 == len(stage.convs):
                    rows = rows - rows.mean(1, keepdim=True)
                moment = rows @ rows.T / (rows.shape[1] * len(images))
                moments[name] = moments[name] + moment if name in moments else moment
                x = maps[name]
            x = maps[stage.name]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, moment in moments.items():
        values, vectors = torch.linalg.eigh(moment.double())
        values = values.clamp_min(0) + DAMPING * values.mean()
        found[name] = (
            ((vectors * values.sqrt()) @ vectors.T).float(),
            ((vectors * values.rsqrt()) @ vectors.T).float(),
        )
    return found
