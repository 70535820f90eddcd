"""The photo's colours under the painting's lightness, in Oklab.

Björn Ottosson, "A perceptual color space for image processing" (2020),
https://bottosson.github.io/posts/oklab/. Pictures here are sRGB [N, 3, h, w] float32 in [0, 1], and
every pixel stands alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Linear sRGB to the responses of three cones, and their cube roots to lightness, a and b.
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_HALVINGS = 10  # of the chroma's share, to 0.1% of it: below one step of 8 bits
_SLACK = 1e-4  # of linear light: rounding does not take a colour out of the gamut


def mix_colours(painting: Tensor, photo: Tensor, colour: float) -> Tensor:
    """The painting with its colours moved towards the photo's.

    Lightness is the painting's; the two that carry hue and chroma are mixed. What sRGB cannot show
    loses chroma, at its lightness and hue, until it can.

    Args:
        painting: [N, 3, h, w] float32 in [0, 1].
        photo: of the same shape.
        colour: 1 gives the painting's hue and chroma, and the painting itself; 0 the photo's.

    Returns:
        A picture of that shape, in [0, 1].
    """
    if colour == 1:
        return painting
    lightness, *own = to_oklab(painting).unbind(1)
    _, *wanted = to_oklab(photo).unbind(1)
    a, b = (torch.lerp(theirs, mine, colour) for mine, theirs in zip(own, wanted, strict=True))
    return from_oklab(torch.stack([lightness, a, b], 1))


def to_oklab(picture: Tensor) -> Tensor:
    """sRGB [N, 3, h, w] to Oklab: lightness in [0, 1], a and b. The inverse of `from_oklab`."""
    linear = torch.where(
        picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055).clamp_min_(0).pow_(2.4)
    )
    return _times(_LAB, _times(_CONES, linear).clamp_min_(0).pow_(1 / 3))


def from_oklab(lab: Tensor) -> Tensor:
    """Oklab [N, 3, h, w] to sRGB in [0, 1], with as much of the chroma as sRGB can show."""
    linear = _linear(lab)
    outside = ((linear < -_SLACK) | (linear > 1 + _SLACK)).any(1)
    if bool(outside.any()):
        lost = lab.permute(0, 2, 3, 1)[outside].T[None, ..., None]
        linear.permute(0, 2, 3, 1)[outside] = _linear(_in_gamut(lost))[0, ..., 0].T
    linear = linear.clamp_(0, 1)
    return torch.where(
        linear <= 0.0031308, linear * 12.92, linear.clamp_min(1e-6).pow_(1 / 2.4) * 1.055 - 0.055
    )


def _in_gamut(lab: Tensor) -> Tensor:
    """Colours [1, 3, n, 1] that sRGB cannot show, with the most chroma that it can."""
    lightness = lab[:, :1].clamp(0, 1)
    least = torch.zeros_like(lightness)
    most = torch.ones_like(lightness)
    for _ in range(_HALVINGS):
        share = (least + most) / 2
        linear = _linear(torch.cat([lightness, lab[:, 1:] * share], 1))
        fits = ((linear >= -_SLACK) & (linear <= 1 + _SLACK)).all(1, keepdim=True)
        least, most = torch.where(fits, share, least), torch.where(fits, most, share)
    return torch.cat([lightness, lab[:, 1:] * least], 1)


def _linear(lab: Tensor) -> Tensor:
    return _times(_INVERSE_CONES, _times(_INVERSE_LAB, lab).pow_(3))


def _times(matrix: tuple[tuple[float, ...], ...], picture: Tensor) -> Tensor:
    channels = picture.unbind(1)
    return torch.stack(
        [
            (channels[0] * row[0]).add_(channels[1], alpha=row[1]).add_(channels[2], alpha=row[2])
            for row in matrix
        ],
        1,
    )


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    inverse = np.linalg.inv(np.array(matrix))
    return tuple(tuple(float(value) for value in row) for row in inverse)


# The inverses of the published matrices, not the published inverses, which are rounded.
_INVERSE_CONES, _INVERSE_LAB = _inverse(_CONES), _inverse(_LAB)
