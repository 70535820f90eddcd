"""Images to the network's format and back: RGB BHWC in [0, 1] and BGR BCHW in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import ImageError

_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def check_image(image: Tensor) -> None:
    """Refuse what is not a [B, H, W, 3 or 4] tensor of finite floats with at least one pixel.

    Raises:
        ImageError: says what was wanted and what came.
    """
    if not isinstance(image, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ImageError(f"expected an image tensor [B, H, W, C], got {type(image).__name__}")
    if image.is_nested or image.layout != torch.strided or image.is_meta:
        raise ImageError("expected a dense image tensor that holds its values: use .to_dense()")
    shape = list(image.shape)
    if image.ndim != 4:
        raise ImageError(f"expected an image [B, H, W, C], got {image.ndim} dimensions: {shape}")
    if shape[3] not in (3, 4):
        raise ImageError(
            f"expected 3 (RGB) or 4 (RGBA) channels last, got {shape[3]} in [B, H, W, C] = {shape}"
        )
    if image.numel() == 0:
        raise ImageError(f"the image has no pixels: shape {shape}")
    if image.dtype not in _FLOATS:
        what = "convert it to float32" if image.is_floating_point() else "divide by 255"
        raise ImageError(
            f"expected floating-point values in [0, 1], got {image.dtype}: {what} first"
        )
    # One pass without a temporary of the image's size: NaN goes through to both ends.
    low, high = torch.aminmax(image)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ImageError(
            "the image holds NaN or infinite values: look at the node or file that made it"
        )


def to_network(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """RGB [B, H, W, 3], any float dtype, values clamped to [0, 1], to BGR [B, 3, H, W] in [-1, 1]
    of `dtype`.

    The inverse of `to_image`. The result is channels-last in memory; the input is left as it is.
    """
    flipped = _flipped(image)  # a copy, so that the next lines may work in place
    return flipped.clamp_(0, 1).mul_(2).sub_(1).to(dtype).permute(0, 3, 1, 2)


def to_image(painted: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """BGR [B, 3, H, W] in [-1, 1] to RGB [B, H, W, 3] in [0, 1]; the inverse of `to_network`."""
    flipped = _flipped(painted.permute(0, 2, 3, 1))
    return flipped.add_(1).mul_(0.5).clamp_(0, 1).to(dtype)


def _flipped(image: Tensor) -> Tensor:
    """RGB [B, H, W, 3], any float dtype, as BGR in float32, and back: a copy."""
    plain = image.device.type == "cpu" and image.dtype == torch.float32
    if not plain or image.requires_grad or image.is_neg():  # which NumPy has no view of
        return image.flip(-1).to(torch.float32)
    # By NumPy, a channel at a time: a fifth of the time that torch's flip takes.
    made = torch.empty(image.shape, dtype=torch.float32, device=image.device)
    source, target = image.numpy(), made.numpy()
    for channel in range(image.shape[-1]):
        target[..., channel] = source[..., -1 - channel]
    return made


def to_unit(pixels: Tensor) -> Tensor:
    """Values of bytes, 0 to 255, as float32 from 0 to 1; values of floats as they are.

    The inverse of `to_pixels`.
    """
    return pixels.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else pixels


def to_pixels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values from 0 to 1 in a float dtype, or in torch.uint8 as 0 to 255, rounded."""
    return (values.float() * 255).round_().to(dtype) if dtype == torch.uint8 else values.to(dtype)


def extend(image: Tensor, least: int) -> Tensor:
    """The image [B, H, W, C], at least `least` pixels a side; crop the top left H x W to undo.

    Missing rows and columns are added below and to the right: by reflection, or where a side has
    too few pixels for that, by repeating its edge. An image that is large enough comes back itself.
    """
    for dim in (1, 2):
        size = image.shape[dim]
        missing = least - size
        if missing <= 0:
            continue
        # Reflection leaves out the edge itself: it has size - 1 pixels to give.
        index = [size - 2 - k if missing < size else size - 1 for k in range(missing)]
        image = torch.cat(
            [image, image.index_select(dim, torch.tensor(index, device=image.device))], dim
        )
    return image
