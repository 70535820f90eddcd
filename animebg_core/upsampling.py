"""A small painting brought to the size of its photo, along the photo's edges.

At the small size each neighbourhood of the painting is fitted as a linear function of the colours
of a guide, which is the photo (He, Sun, Tang: "Guided Image Filtering", 2013; He, Sun: "Fast Guided
Filter", 2015). Its coefficients, enlarged, are applied to the guide at its full size. Three things
keep out what that form is known for:

- grain: what a guide shows within one pixel of the small size has no counterpart in the painting,
  and counts as noise in the guide (as in Wiener's filter), so that noise and fine texture do not
  come through, and edges do;
- false colours: what the fit leaves over is enlarged and added, along edges mostly smoothed, since
  it would show the small pixels there; so where the guide is flat, the painting is as painted;
- halos: no pixel leaves the range that the painting has around it.

Only the coefficients have neighbours. At the full size every pixel stands alone, so that strips of
any height give the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import OptionError

# The longer side at which command line and node paint what is larger.
DEFAULT_PAINTING_SIZE = 1280
_RADIUS = 2  # of the window of a fit, in small pixels
_SMOOTH = 1  # radius over which coefficients and leftovers are averaged
_EPSILON = 1e-4  # a variance below which a guide is flat: 1% of the range, squared
# How much of the variance within a small pixel counts as noise of the guide, in the quietest one of
# the window: so that an edge is none.
_NOISE = 2.0
# What is lost of an edge's height where the painting's lies beside the guide's: 1 leaves edges
# softer than a painting's own. What it adds too much, the range takes away.
_GAIN = 2.25
_EDGE = 4e-4  # the variance of the guide within 3 x 3 pixels at which a place is half an edge
_SMOOTHED = 0.3  # how much of what is left over is smoothed at an edge


def check_painting_size(size: int) -> None:
    """Refuse what is no number of pixels.

    Raises:
        OptionError: it is not a whole number of 0 or more.
    """
    number = isinstance(size, Integral) and not isinstance(size, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not number or size < 0:
        raise OptionError(
            f"painting_size is a whole number of pixels, or 0 for the picture's own, not {size}"
        )


def painted_size(height: int, width: int, painting_size: int) -> tuple[int, int]:
    """Height and width at which a picture is painted: its own, or with `painting_size` pixels on
    the longer side where that is less, and not 0.
    """
    longer = max(height, width)
    if not 0 < painting_size < longer:
        return height, width
    scale = painting_size / longer
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrink(
    read: Callable[[int, int], Tensor],
    height: int,
    width: int,
    size: tuple[int, int],
    *,
    rows: int = 64,
    step: Callable[[int], None] | None = None,
) -> Tensor:
    """Pictures made smaller, a few rows of them in memory at a time.

    Args:
        read: gives rows [start, stop) as float32 [N, C, stop - start, width].
        height, width: of the pictures.
        size: height and width wanted, no larger.
        rows: how many are read at a time; changes nothing in the result.
        step: called after every strip with the number of its rows; may raise to stop.

    Returns:
        [N, C, *size] float32: means under a triangle of two small pixels' width (antialiased
        bilinear), so that values stay within the range of those read.
    """
    narrow: list[Tensor] = []
    for start in range(0, height, rows):
        part = read(start, min(start + rows, height))
        narrow.append(_resized(part, (part.shape[2], size[1])))
        if step:
            step(part.shape[2])
    return _resized(torch.cat(narrow, 2), size)


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(picture, size, mode="bilinear", antialias=True)


def fit(guide: Tensor, painting: Tensor, spread: Tensor) -> Tensor:
    """How the painting follows from the guide around each pixel, both at the small size.

    Args:
        guide: [N, 3, h, w] float32.
        painting: [N, 3, h, w] float32 in [0, 1].
        spread: [N, 1, h, w]: the variance of the full-size guide within each pixel of the small
            one, the mean over its channels.

    Returns:
        [N, 18, h, w] for `upsample`: 3 x 3 factors, 3 offsets, 3 least and 3 largest values.
    """
    factors, mean = _regression(guide, painting, spread)
    variance = (_mean(guide.square(), 1) - _mean(guide, 1).square()).mean(1, keepdim=True)
    edge = variance.clamp_min_(0).div_(variance + _EDGE)
    factors = _mean(factors, _SMOOTH) * (_GAIN * edge)
    offsets = _mean(mean, _SMOOTH)
    leftover = painting - offsets - _product(factors, guide)
    offsets = offsets + leftover.lerp(_mean(leftover, _SMOOTH), _SMOOTHED * edge)
    return torch.cat([factors, offsets, -_largest(-painting), _largest(painting)], 1)


def _largest(painting: Tensor) -> Tensor:
    """The least, over 3 x 3 pixels, of the largest value within 5 x 5: whatever lies between four
    of these is no more than what the nearest pixel has within 5 x 5 of itself.
    """
    return _window(_window(painting, 2, torch.maximum), 1, torch.minimum)


def _regression(guide: Tensor, painting: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Factors [N, 9, h, w], those of the first output first, and offsets [N, 3, h, w], by least
    squares over each pixel's window.
    """
    guides, paintings = guide.unbind(1), painting.unbind(1)
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    products = [guides[i] * guides[j] for i, j in pairs]
    products += [mine * its for its in paintings for mine in guides]
    window = _mean(torch.stack([*guides, *paintings, *products], 1), _RADIUS)
    mean_guide, mean_painting, moments = window[:, :3], window[:, 3:6], window[:, 6:]
    quiet = _window(spread[:, 0], _RADIUS, torch.minimum)
    noise = _EPSILON + _NOISE * quiet
    own = {
        (i, j): moments[:, k] - mean_guide[:, i] * mean_guide[:, j]
        for k, (i, j) in enumerate(pairs)
    }
    # The symmetric system of three unknowns by elimination, which unlike its determinant is stable
    # in float32 where the three colours all but agree.
    first = own[0, 0] + noise
    along, across = own[0, 1] / first, own[0, 2] / first
    second = own[1, 1] + noise - along * own[0, 1]
    mixed = own[1, 2] - along * own[0, 2]
    beside = mixed / second
    third = own[2, 2] + noise - across * own[0, 2] - beside * mixed
    factors: list[Tensor] = []
    for output in range(3):
        a, b, c = (
            moments[:, 6 + 3 * output + i] - mean_guide[:, i] * mean_painting[:, output]
            for i in range(3)
        )
        b = b - along * a
        c = (c - across * a - beside * b) / third
        b = b / second - beside * c
        factors += [a / first - along * b - across * c, b, c]
    stacked = torch.stack(factors, 1)
    return stacked, mean_painting - _product(stacked, mean_guide)


def _product(factors: Tensor, guide: Tensor) -> Tensor:
    """[N, 9, h, w] times [N, 3, h, w], as 3 x 3 matrices times vectors: [N, 3, h, w]."""
    rows = factors.view(factors.shape[0], 3, 3, *factors.shape[2:])
    return (rows * guide[:, None]).sum(2)


def _mean(maps: Tensor, radius: int) -> Tensor:
    """The mean over the square of `radius` pixels around each, as far as there are pixels."""
    high, wide = maps.new_ones(maps.shape[2], 1), maps.new_ones(1, maps.shape[3])
    counts = _window(high, radius, torch.add) * _window(wide, radius, torch.add)
    return _window(maps, radius, torch.add).div_(counts)


def _window(maps: Tensor, radius: int, combine: Callable[..., Tensor]) -> Tensor:
    """Each pixel of [..., h, w] combined with all of the square of `radius` around it: a third of
    the time of torch's pooling.
    """
    for axis in (-2, -1):
        made, length = maps.clone(), maps.shape[axis]
        for step in range(1, min(radius, length - 1) + 1):
            for to, source in ((step, 0), (0, step)):
                part = made.narrow(axis, to, length - step)
                combine(part, maps.narrow(axis, source, length - step), out=part)
        maps = made
    return maps


def upsample(maps: Tensor, guide: Tensor, start: int, height: int) -> Tensor:
    """The painting at full size, some rows of it.

    Args:
        maps: of `fit` [N, 18, h, w].
        guide: rows from `start` on of the full-size guide, [N, 3, n, W] float32.
        start: the first of them.
        height: of the whole guide.

    Returns:
        [N, 3, n, W] float32 in [0, 1].
    """
    count, width = guide.shape[2:]
    # Where each row lies between the rows of the maps, pixels being squares around their centres.
    scale = maps.shape[2] / height
    places = torch.arange(start, start + count, dtype=torch.float64).add_(0.5).mul_(scale).sub_(0.5)
    places = places.clamp_(0, maps.shape[2] - 1)
    above = places.floor().long()
    below = (above + 1).clamp_max_(maps.shape[2] - 1)
    first, last = int(above[0]), int(below[-1])
    # Along the rows only: where torch "enlarges" to the same height, older versions round.
    rows = maps[:, :, first : last + 1]
    near = F.interpolate(rows.flatten(1, 2), width, mode="linear").view(*rows.shape[:3], width)
    device = maps.device
    share = (places - above).float().to(device)[:, None]
    above, below = (above - first).to(device), (below - first).to(device)
    near = torch.lerp(near.index_select(2, above), near.index_select(2, below), share)
    colours = guide.unbind(1)
    result = near[:, 9:12]
    for output in range(3):
        for channel in range(3):
            result[:, output].addcmul_(near[:, 3 * output + channel], colours[channel])
    return torch.minimum(torch.maximum(result, near[:, 12:15]), near[:, 15:18])
