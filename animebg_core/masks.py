"""Mixing what was painted with what was there: strength, mask and alpha."""

from __future__ import annotations

from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import MaskError, OptionError

_LEAST_PIXELS = 1024
_TINY = torch.finfo(torch.float32).tiny
_ROUNDING = 1e-5  # of what is interpolated between numbers from 0 to 1


def check_strength(strength: float) -> float:
    """`strength` as a float in 0..1.

    Raises:
        OptionError: it is not.
    """
    return check_share(strength, "strength is a number from 0 (the photo) to 1 (painted)")


def check_share(value: float, wanted: str) -> float:
    """`value` as a float in 0..1.

    Raises:
        OptionError: it is not; the text begins with `wanted`.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not number or not 0 <= value <= 1:
        raise OptionError(f"{wanted}, not {value}")
    return float(value)


def fit_mask(mask: Tensor, image: Tensor) -> Tensor:
    """The mask as [B, H, W] float32 in [0, 1] beside its image [B, H, W, C], on the image's device.

    Args:
        mask: [H, W], [1, H, W] or [B, H, W] of any size and dtype; 1 paints, 0 keeps. It is resized
            bilinearly; a batch that is longer than its masks repeats them from the first. One of
            the image's height and width with a channel behind, [H, W, 1], is taken too, and
            [H, W, 3 or 4] where its colours are all grey.
        image: gives batch, size and device.

    Raises:
        MaskError: another rank, no pixels, values that are not finite, or what could as well be
            masks as channels.
    """
    if not isinstance(mask, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MaskError(f"expected a mask tensor [H, W] or [B, H, W], got {type(mask).__name__}")
    if mask.is_nested or mask.layout != torch.strided or mask.is_meta:
        raise MaskError("expected a dense mask tensor that holds its values: use .to_dense()")
    shape = list(mask.shape)
    if mask.ndim not in (2, 3):
        raise MaskError(f"expected a mask [H, W] or [B, H, W], got {mask.ndim} dimensions: {shape}")
    if mask.numel() == 0:
        raise MaskError(f"the mask has no pixels: shape {shape}")
    batch, height, width = image.shape[:3]
    mask = _without_channels(mask, batch, height, width)
    mask = mask.detach().to(image.device, torch.float32).reshape(-1, *mask.shape[-2:])[:batch]
    if not bool(torch.isfinite(mask).all()):
        raise MaskError("the mask holds NaN or infinite values")
    if mask.shape[1:] != (height, width):
        # Bilinear without antialiasing, as the host's own nodes resize masks.
        mask = F.interpolate(mask[:, None], (height, width), mode="bilinear")[:, 0]
        # By rounding errors, which differ by machine, a pixel between zeros would be painted.
        mask = mask.masked_fill(mask < _ROUNDING, 0)
    index = torch.arange(batch, device=mask.device) % mask.shape[0]
    return mask.clamp(0, 1)[index]


def _without_channels(mask: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Masks [B, H, W] as they are; the brightness [H, W] of what is a picture [H, W, C].

    Raises:
        MaskError: it may be either, is neither, or is coloured.
    """
    picture = mask.shape[:2] == (height, width)
    if mask.ndim == 2 or (mask.shape[2] not in (1, 3, 4) and not picture):
        return mask
    masks = mask.shape[0] in (1, batch) or mask.shape[1:] == (height, width)
    if masks and (not picture or mask.shape[1:] == (height, width)):
        return mask
    shape = list(mask.shape)
    if masks or not picture:
        raise MaskError(
            f"a mask of shape {shape} may be {shape[0]} masks, or one with {shape[2]} channels:"
            " give [H, W] or [B, H, W]"
        )
    grey = mask[..., 0]
    if mask.shape[2] > 1 and not bool((mask[..., :3] == grey[..., None]).all()):
        raise MaskError(f"a mask has one channel, this one of shape {shape} is coloured: take one")
    return grey


def statistics_weight(mask: Tensor) -> Tensor:
    """What each pixel counts for in the statistics of the norms: its mask value [B, H, W].

    A mask of fewer than `_LEAST_PIXELS` has no statistics of its own to speak of, so that every
    pixel of the image is given the small weight that makes up for what is missing.
    """
    missing = (_LEAST_PIXELS - mask.sum((1, 2), keepdim=True)).clamp_min(0)
    return mask + missing / (mask.shape[1] * mask.shape[2])


def fill_outside(image: Tensor, mask: Tensor) -> Tensor:
    """The image [B, H, W, 3] with smooth colours of the painted area wherever its mask is 0.

    So that what is painted depends on nothing else: neither a bright coat nor a black bar draws a
    halo around itself. The colours are averages over ever larger squares, the smallest that the
    mask [B, H, W] reaches into (the pull-push method of Gortler et al., "The Lumigraph", 1996).
    """
    outside = mask[..., None] <= 0
    if not bool(outside.any()):
        return image
    weight = mask[:, None]
    colour = image.float().permute(0, 3, 1, 2) * weight
    levels = [(colour, weight)]
    while max(levels[-1][1].shape[2:]) > 1:
        colour, weight = (F.avg_pool2d(part, 2, ceil_mode=True) for part in levels[-1])
        levels.append((colour, weight))
    filled = colour.new_zeros(())
    for colour, weight in reversed(levels):
        if filled.ndim:
            filled = F.interpolate(filled, colour.shape[2:], mode="bilinear")
        filled = torch.where(weight > 0, colour / weight.clamp_min(_TINY), filled)
    return torch.where(outside, filled.permute(0, 2, 3, 1).to(image.dtype), image)


def mix(original: Tensor, painted: Tensor, amount: float | Tensor) -> Tensor:
    """Original [B, H, W, C] with its first three channels moved towards `painted` [B, H, W, 3].

    Args:
        amount: 0 gives the original exactly, 1 the painted; a number or [B, H, W]. Channels from
            the fourth on (alpha) are the original's.

    Returns:
        A tensor that may be `painted` itself.
    """
    colour = original[..., :3]
    mixed = painted.to(colour.dtype)
    if isinstance(amount, Tensor):
        mixed = torch.lerp(colour, mixed, amount[..., None].to(colour.dtype))
    elif amount != 1:
        mixed = torch.lerp(colour, mixed, amount)
    return mixed if original.shape[-1] == 3 else torch.cat([mixed, original[..., 3:]], -1)
