"""The generator with a backward pass: the core's table of stages, run on tensors in training.

`stream.paint` runs the same table strip by strip and keeps no graph. Here the whole picture is one
strip; the convolutions run in `dtype`, channels-last, and every statistic in float32.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network.design import NORM_EPS, Conv, Stage


def convolve(x: Tensor, conv: Conv, weight: Tensor, bias: Tensor) -> Tensor:
    """One convolution of the table on [N, C, H, W]; output size as `conv.output_size` says."""
    if conv.transposed:
        return F.conv_transpose2d(x, weight, bias, 2, 1, 1)
    padding = conv.kernel // 2
    if conv.padding == "reflect":
        x, padding = F.pad(x, (padding,) * 4, "reflect"), 0
    made = F.conv2d(x, weight, bias, conv.stride, padding)
    return F.pixel_shuffle(made, 2) if conv.shuffled else made


def run_maps(
    stages: tuple[Stage, ...],
    tensors: Mapping[str, Tensor],
    image: Tensor,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Tensor]:
    """The final map of every stage, by stage name; `output` is the picture, float32, in [-1, 1].

    What each convolution made, before any norm, is there too, as `<stage>.<index>`.

    Args:
        stages: the table, or its beginning.
        tensors: canonical names to float32 tensors; gradients flow to them.
        image: [1, 3, H, W] BGR in [-1, 1]. One picture: its batch norm is the instance norm.
        dtype: of convolutions and maps.
    """
    x = image.to(dtype).contiguous(memory_format=torch.channels_last)
    maps: dict[str, Tensor] = {}
    for stage in stages:
        for index, conv in enumerate(stage.convs):
            weight = tensors[f"{stage.name}.{index}.weight"].to(dtype)
            weight = weight.contiguous(memory_format=torch.channels_last)
            x = convolve(x, conv, weight, tensors[f"{stage.name}.{index}.bias"].to(dtype))
            maps[f"{stage.name}.{index}"] = x
        if stage.adds:
            x = x[:, :, : maps[stage.adds].shape[2], : maps[stage.adds].shape[3]]
        if stage.norm:
            scale, shift = tensors[f"{stage.name}.scale"], tensors[f"{stage.name}.shift"]
            x = F.batch_norm(x, None, None, scale, shift, True, 0.0, NORM_EPS)
        if stage.adds:
            x = x + maps[stage.adds]
        if stage.relu:
            x = F.relu(x)
        maps[stage.name] = x
    if "output" in maps:  # `stages` may be the table's beginning only
        maps["output"] = torch.tanh(maps["output"].float())
    return maps


def exported(
    stages: tuple[Stage, ...], tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> dict[str, Tensor]:
    """A network as files hold it: levelled, float16 on the CPU, `names` for those it has others."""
    return {
        names.get(name, name): tensor.half().contiguous().cpu()
        for name, tensor in levelled(stages, tensors).items()
    }


def levelled(stages: tuple[Stage, ...], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network, with weights whose sums float16 can hold.

    The norm of a stage undoes any scale of its convolutions, and steps in proportion to a weight's
    size let it grow a thousandfold. Here each weight is given the size it would begin with.
    """
    found = dict(tensors)
    for stage in stages:
        scale = 1.0
        for index, conv in enumerate(stage.convs if stage.norm else ()):
            name = f"{stage.name}.{index}"
            weight = tensors[f"{name}.weight"]
            terms = weight.shape[0 if conv.transposed else 1] * conv.kernel**2
            factor = float((weight.square().mean() * terms).rsqrt())
            scale *= factor
            found[f"{name}.weight"] = weight * factor
            found[f"{name}.bias"] = tensors[f"{name}.bias"] * scale
    return found
