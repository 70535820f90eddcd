"""A painting brought back to its photo's size: how faithful, crisp and clean, beside other ways.

- faithful: the result shrunk by box to the small painting's size, against it, in dB;
- crisp: the mean gradient (forward differences of the mean of R, G and B) over the strongest
  hundredth of the photo's, as a share of the full-size painting's. Grain and sharpening raise it:
  more than 1.35 is as wrong as less than 0.8;
- flat: the deviation within 5 x 5 small pixels, over the flattest fifth of the photo, as a share of
  the small painting's own there;
- overshoot: beside a step of a made-up photo, what lies beyond the range of the small painting
  within 5 x 5 pixels, as a share of the step.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from animebg_core import stylize
from animebg_core.painting import shrunk
from animebg_core.upsampling import fit, painted_size, shrink, upsample

from . import _common

_CROP = 200  # height and width of a crop


def box(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, C, H, W] shrunk to that size: each pixel the mean of the area that it covers."""

    def shares(old: int, new: int) -> Tensor:
        ends = torch.linspace(0, old, new + 1, dtype=torch.float64)[:, None]
        places = torch.arange(old, dtype=torch.float64)
        shared = torch.minimum(ends[1:], places + 1) - torch.maximum(ends[:-1], places)
        return (shared.clamp_min(0) * new / old).to(image)

    return shares(image.shape[2], size[0]) @ image @ shares(image.shape[3], size[1]).T


def plain(photo: Tensor, painting: Tensor) -> Tensor:
    """Plain enlargement, bicubic."""
    size = (photo.shape[2], photo.shape[3])
    return F.interpolate(painting, size, mode="bicubic").clamp(0, 1)


def grey(photo: Tensor, painting: Tensor) -> Tensor:
    """The fast guided filter with a grey guide, the mean of the photo's channels."""
    return simple(photo.mean(1, keepdim=True), painting)


def simple(photo: Tensor, painting: Tensor) -> Tensor:
    """The fast guided filter as published (He, Sun 2015): each channel of the painting by the same
    one of the guide, 5 x 5, epsilon 1e-4.
    """

    def mean(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, 5, 1, 2, count_include_pad=False)

    size = (photo.shape[2], photo.shape[3])
    small = F.interpolate(
        photo, (painting.shape[2], painting.shape[3]), mode="bilinear", antialias=True
    )
    covariance = mean(small * painting) - mean(small) * mean(painting)
    factor = covariance / (mean(small.square()) - mean(small).square() + 1e-4)
    offset = mean(painting) - factor * mean(small)
    factor, offset = (F.interpolate(mean(maps), size, mode="bilinear") for maps in (factor, offset))
    return (factor * photo + offset).clamp(0, 1)


def ours(guide: Tensor, painting: Tensor) -> Tensor:
    """As `stylize` brings it back."""
    height, size = guide.shape[2], (painting.shape[2], painting.shape[3])
    parts = torch.cat([guide, guide.square().mean(1, keepdim=True)], 1)
    made = shrink(lambda a, b: parts[:, :, a:b], height, guide.shape[3], size)
    small = made[:, :3]
    spread = (made[:, 3:] - small.square().mean(1, keepdim=True)).clamp_min(0)
    return upsample(fit(small, painting, spread), guide, 0, height)


def faithful(result: Tensor, painting: Tensor) -> float:
    """In dB."""
    size = (painting.shape[2], painting.shape[3])
    return float(-10 * (box(result, size) - painting).square().mean().log10())


def gradient(image: Tensor) -> Tensor:
    """[N, H, W] of [N, 3, H, W]: forward differences of the mean of the channels."""
    mean = image.mean(1)
    across, down = mean.diff(dim=2), mean.diff(dim=1)
    return torch.hypot(F.pad(across, (0, 1)), F.pad(down, (0, 0, 0, 1)))


def crispness(result: Tensor, full: Tensor, photo: Tensor) -> float:
    """`full`: the full-size painting."""
    edges = gradient(photo).flatten()
    strongest = edges.topk(max(1, edges.numel() // 100)).indices
    mine, its = (gradient(image).flatten()[strongest].mean() for image in (result, full))
    return float(mine / its)


def flat_deviation(result: Tensor, painting: Tensor, photo: Tensor) -> float:
    """The result's over the painting's."""
    size = (painting.shape[2], painting.shape[3])

    def variance(image: Tensor) -> Tensor:
        mean = image.mean(1, keepdim=True)
        first, second = (
            F.avg_pool2d(box(part, size), 5, 1, 2, count_include_pad=False)
            for part in (mean, mean.square())
        )
        return (second - first.square()).clamp_min(0).flatten()

    quiet = variance(box(photo, size))
    flattest = quiet.topk(max(1, quiet.numel() // 5), largest=False).indices
    mine, its = (variance(image)[flattest].mean() for image in (result, painting))
    return float((mine / its).sqrt())


def steps() -> Iterator[tuple[Tensor, Tensor]]:
    """Photos with a step of 0.4, off the grid of the small pixels, and a thin bright line beside
    it; paintings of them with a step of 0.2 the other way round, at a half to a seventh.
    """
    torch.manual_seed(0)
    for scale in (2, 3, 5, 7):
        for noise in (0.0, 0.02):
            width = 44 * scale
            photo = torch.full((1, 3, 40 * scale, width), 0.3)
            photo[..., width // 2 + scale // 2 :] = 0.7
            photo[..., width // 4] = 1.0
            photo = (photo + torch.randn_like(photo) * noise).clamp(0, 1)
            yield photo, 0.8 - F.avg_pool2d(photo, scale) * 0.5


def overshoot(method: str) -> float:
    """Of the step, the worst of `steps`."""
    worst = 0.0
    for photo, painting in steps():
        result, scale = METHODS[method](photo, painting), photo.shape[2] // painting.shape[2]
        most, least = (
            F.interpolate(F.max_pool2d(part, 5, 1, 2), scale_factor=scale, mode="nearest")
            for part in (painting, -painting)
        )
        worst = max(worst, float((result - most).max()), float((-result - least).max()))
    return worst / 0.2


METHODS = {
    "plain enlargement": plain,
    "simplest form, grey": grey,
    "simplest form": simple,
    "ours": ours,
}


def busiest(photo: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the crop with the most edges."""
    sums = F.avg_pool2d(gradient(photo)[:, None], _CROP, 50)
    at = int(sums.argmax())
    top, left = at // sums.shape[3] * 50, at % sums.shape[3] * 50
    return slice(top, top + _CROP), slice(left, left + _CROP)


def save_crops(path: Path, images: list[Tensor], crop: tuple[slice, slice]) -> None:
    """The same place of [1, 3, H, W] side by side, twice as large."""
    row = torch.cat([image[0, :, crop[0], crop[1]] for image in images], 2)
    row = row.mul(255).round().byte().movedim(0, -1)
    picture = Image.fromarray(row.numpy())
    size = (picture.width * 2, picture.height * 2)
    picture.resize(size, Image.Resampling.NEAREST).save(path)


@torch.no_grad()
def main() -> None:
    """Print the tables; draw the crops."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "photos",
        nargs="*",
        default=[f"{_common.DEMO_PHOTO}@640:320"],
        metavar="PHOTO@LONGEST:PAINTING_SIZE",
        help="photos, each scaled to so many pixels on the longer side (0: its own)",
    )
    parser.add_argument("--styles", nargs="+", default=["shinkai-lite", "kon-lite"])
    parser.add_argument("--weights-dir", metavar="DIR", help="look for networks only here")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="crops: photo, full-size painting, and every row of the table",
    )
    args = parser.parse_args()
    _common.print_header()
    rows: list[tuple[object, ...]] = []
    for text in args.photos:
        match = re.fullmatch(r"(.+)@(\d+):(\d+)", text)
        if not match:
            parser.error(f"wanted PHOTO@LONGEST:PAINTING_SIZE, got {text!r}")
        path, longest, size = Path(match[1]), int(match[2]), int(match[3])
        with Image.open(path) as picture:
            width, height = picture.size
        scale = longest / max(width, height) if longest else 1
        image = _common.load_photo(path, round(height * scale), round(width * scale))
        for style in args.styles:
            rows += _rows(image, path, size, style, args)
    header = ("photo", "by way of", "style", "method", "faithful, dB", "crisp", "flat")
    _common.print_table(header, rows)
    print("The mean of all:\n")
    _common.print_table(header[3:], _means(rows))
    print("Beside a step:\n")
    _common.print_table(
        ("method", "overshoot"), [(name, f"{overshoot(name):.1%}") for name in METHODS]
    )


def _means(rows: list[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """A row a method: the mean of each figure over all photos and styles."""
    for method in dict.fromkeys(row[3] for row in rows):
        figures = [[float(str(value)) for value in row[4:]] for row in rows if row[3] == method]
        faith, crisp, flat = (sum(column) / len(figures) for column in zip(*figures, strict=True))
        yield method, f"{faith:.1f}", f"{crisp:.2f}", f"{flat:.2f}"


def _rows(
    image: Tensor, path: Path, size: int, style: str, args: argparse.Namespace
) -> Iterator[tuple[object, ...]]:
    args.style = style
    generator = _common.load_network(args).generator
    height, width = image.shape[1:3]
    seen: list[Tensor] = []
    result = stylize(image, generator, painting_size=size, preview=seen.append)
    if not seen:  # no larger than that
        seen.append(stylize(shrunk(image, size), generator))
    photo, full, painting, result = (
        part.movedim(-1, 1).contiguous()
        for part in (image, stylize(image, generator), seen[0], result)
    )
    results = {name: method(photo, painting) for name, method in METHODS.items()}
    results["ours"] = result
    results["ours, along the painting"] = ours(full, painting)
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
        name = f"{path.stem}-{Path(style).stem}.png"
        save_crops(args.pictures / name, [photo, full, *results.values()], busiest(photo))
    small = painted_size(height, width, size)
    for name, made in results.items():
        yield (
            f"{path.name}, {width}x{height}",
            f"{small[1]}x{small[0]}",
            style,
            name,
            f"{faithful(made, painting):.1f}",
            f"{crispness(made, full, photo):.2f}",
            f"{flat_deviation(made, painting, photo):.2f}",
        )


if __name__ == "__main__":
    main()
