"""What a network in training is held to: a wanted picture, and maps without spikes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network.design import NORM_EPS, Stage

FAR = 2.2  # before tanh: 3 levels of 255 from black or white
# Deviations of a normed map. The published networks reach 12 to 20 in their blocks on photographs;
# a small one does without.
SPIKE = 10.0


def felt_picture(maps: Mapping[str, Tensor]) -> Tensor:
    """The picture of `run_maps`, with a gradient where tanh is level.

    No error would be felt there, and dark areas would stay black holes: in the backward pass alone
    its slope is 0.1 at least.
    """
    raw = maps["output.0"].float()
    return maps["output"] + 0.1 * (raw - raw.detach())


def far_loss(maps: Mapping[str, Tensor]) -> Tensor:
    """Mean square of what is beyond black or white by more than `FAR`."""
    return (maps["output.0"].float().abs() - FAR).clamp_min(0).square().mean()


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Distance of two pictures: pixels at five sizes, each half the one before, gradients at two.

    The small sizes weigh the tone of whole regions, which is most of what a small network gets
    wrong; the root of the mean square, not a mean of absolutes, so that regions far off count most.
    """
    loss = made.new_zeros(())
    for level in range(5):
        if level:
            made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
        error = made - wanted
        loss = loss + (error.square().mean() + 1e-5).sqrt() * (2.0 if level == 0 else 0.5)
        for axis in (2, 3) if level < 2 else ():
            loss = loss + 0.5 * error.diff(dim=axis).abs().mean()
    return loss


def spike_loss(stages: tuple[Stage, ...], maps: Mapping[str, Tensor], photo: Tensor) -> Tensor:
    """Mean square of what the normed maps exceed `SPIKE` deviations by, summed over the stages.

    A spike in one small place steers the norm of the whole map, and a network that has learned to
    make one leaves it in the picture as a spot (Karras et al., "Analyzing and Improving the Image
    Quality of StyleGAN", CVPR 2020, on droplets). Below 1 for each stage, since a map of N pixels
    has none beyond the root of N. Where the photograph [1, 3, H, W] has its own, such as a small
    moon in a dark sky, maps may have as high ones.
    """
    limit = max(SPIKE, float(normed(photo).abs().max()))
    total = torch.zeros((), device=photo.device)
    for made in normed_maps(stages, maps):
        total = total + F.softshrink(made, limit).square().mean()
    return total


def normed_maps(stages: tuple[Stage, ...], maps: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """What each norm of the table makes, in float32, before its scale and shift."""
    for stage in stages:
        if stage.norm:
            yield normed(maps[f"{stage.name}.{len(stage.convs) - 1}"].float())


def normed(x: Tensor) -> Tensor:
    """[1, C, H, W] with mean 0 and deviation 1 in each channel."""
    return F.batch_norm(x, None, None, training=True, eps=NORM_EPS)
