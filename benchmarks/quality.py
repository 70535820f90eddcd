"""What streaming, thumbnail statistics and tiles give, in dB against the whole image.

`python -m benchmarks.quality --photos A.jpg B.jpg --pictures FOLDER` scales photos to one size,
paints each in every way, and draws the ways side by side.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from animebg_core import Generator, gather_statistics, stylize

from . import _baselines, _common

TILE, OVERLAP = 512, 32  # of the host's own tiled upscaling
THUMBNAILS = (512, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    _common.add_network_arguments(parser)
    parser.add_argument("--photos", nargs="+", type=Path, default=[_common.DEMO_PHOTO])
    parser.add_argument("--longest", type=int, default=1152, help="side to scale photos to")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write comparisons here")
    args = parser.parse_args()

    network = _common.load_network(args)
    generator = network.generator
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "exact, store": lambda image: stream(image, generator, "store"),
        "exact, recompute": lambda image: stream(image, generator, "recompute"),
        **{
            f"thumbnail statistics, {side}": lambda image, side=side: by_thumbnail(
                image, generator, side
            )
            for side in reversed(THUMBNAILS)
        },
        f"tiles, {TILE}/{OVERLAP}": lambda image: by_tiles(image, generator),
    }
    _common.print_header()
    print(f"photos scaled to {args.longest} pixels; dB against the whole image in one strip\n")
    rows = []
    for path in args.photos:
        image = load(path, args.longest)
        height, width = image.shape[1:3]
        whole = stylize(image, generator, plan=_common.one_strip(generator, height, width))
        painted = {name: way(image) for name, way in ways.items()}
        scores = {name: decibels(picture, whole) for name, picture in painted.items()}
        rows.append([path.stem, f"{height}x{width}", *(f"{s:.1f}" for s in scores.values())])
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
            shown = {"whole image": whole}
            for name in ("exact, store", f"thumbnail statistics, {THUMBNAILS[0]}", list(ways)[-1]):
                shown[f"{name}: {scores[name]:.1f} dB"] = painted[name]
            draw(shown, args.pictures / f"tiles-{path.stem}.jpg")
    _common.print_table(["photo", "size", *ways], rows)
    print_masks(generator, args.photos, min(640, args.longest))
    print_flat(network)


def print_masks(generator: Generator, photos: list[Path], longest: int) -> None:
    """How far what is not to be painted tints what is: with a mask and without."""
    run = _baselines.ours(generator)
    rows = []
    for path in photos:
        image = load(path, longest)
        height, width = image.shape[1:3]
        bar = height // 8
        other, left = image.clone(), torch.zeros(height, width)
        other[:, :, width // 2 :], left[:, : width // 2] = 1, 1
        barred, inner = image.clone(), torch.zeros(height, width)
        barred[:, :bar], barred[:, -bar:], inner[bar:-bar] = 0, 0, 1
        row = [path.stem]
        for changed, mask in ((other, left), (barred, inner)):
            seen = mask[None, :, :, None].expand_as(image) > 0
            plain = run(image)[seen]
            kept = stylize(image, generator, mask=mask)[seen]
            masked = stylize(changed, generator, mask=mask)[seen]
            scores = (
                decibels(run(changed)[seen], plain),
                decibels(masked, kept),
                decibels(masked, plain),
            )
            row += [f"{score:.1f}" for score in scores]
        rows.append(row)
    print(f"photos at {longest} pixels; half: the right half turned white; bars: black above and")
    print("below, an eighth each. dB over the rest, the changed photo against the unchanged one:")
    print("neither masked, both masked, and masked against the unchanged one without a mask\n")
    kinds = ("plain", "masked", "masked, plain")
    header = [f"{what}: {kind}" for what in ("half", "bars") for kind in kinds]
    _common.print_table(["photo", *header], rows)


def print_flat(network: _common.Network) -> None:
    """Pictures of one colour, where rounding errors grow: against float64."""
    rows = []
    for value in (0.0, 0.3, 0.5, 1.0):
        image = torch.full((1, 96, 128, 3), value)
        exact = _common.oracle.stylize(network.state, image)
        row = [f"{value}"]
        for run in (_baselines.published(network.state), _baselines.ours(network.generator)):
            row.append(f"{(run(image) - exact).abs().max().item():.0e}")
        rows.append(row)
    print("flat 96x128 pictures: largest difference to the published arithmetic in float64\n")
    _common.print_table(["value", "published, float32", "ours, float32"], rows)


def load(path: Path, longest: int) -> Tensor:
    """A photo scaled to that longest side."""
    with Image.open(path) as photo:
        scale = longest / max(photo.size)
        return _common.load_photo(path, round(photo.height * scale), round(photo.width * scale))


def decibels(picture: Tensor, reference: Tensor) -> float:
    """PSNR of pictures in [0, 1]."""
    error = (picture.double() - reference.double()).square().mean().item()
    return -10 * math.log10(error) if error else math.inf


def stream(image: Tensor, generator: Generator, level: _common.Level) -> Tensor:
    """By strips with exact statistics."""
    plan = _common.at_level(generator, level, *image.shape[1:3])
    return stylize(image, generator, plan=plan)


def by_thumbnail(image: Tensor, generator: Generator, longest: int) -> Tensor:
    """With the statistics of the picture's thumbnail: URST (AAAI 2022)."""
    height, width = image.shape[1:3]
    scale = longest / max(height, width)
    size = (round(height * scale), round(width * scale))
    small = F.interpolate(image.permute(0, 3, 1, 2), size, mode="bicubic", antialias=True)
    thumbnail = small.permute(0, 2, 3, 1).clamp(0, 1)
    return stylize(image, generator, statistics=gather_statistics([thumbnail], generator))


def by_tiles(image: Tensor, generator: Generator) -> Tensor:
    """Tiles on their own, blended linearly where they overlap: the host's own tiled upscaling."""
    run = _baselines.ours(generator)
    height, width = image.shape[1:3]
    total, weight = torch.zeros_like(image), torch.zeros(1, height, width, 1)
    for y in _starts(height):
        for x in _starts(width):
            tile = image[:, y : y + TILE, x : x + TILE]
            ramp = _ramp(y, tile.shape[1], height)[:, None] * _ramp(x, tile.shape[2], width)
            ramp = ramp[None, :, :, None]
            total[:, y : y + TILE, x : x + TILE] += run(tile) * ramp
            weight[:, y : y + TILE, x : x + TILE] += ramp
    return total / weight


def _starts(size: int) -> list[int]:
    """Where tiles begin; the last one ends with the picture."""
    last = max(0, size - TILE)
    return sorted({min(start, last) for start in range(0, max(1, size - OVERLAP), TILE - OVERLAP)})


def _ramp(start: int, length: int, size: int) -> Tensor:
    """Weights along one side of a tile: rising over the overlap, except at the picture's edge."""
    ramp = torch.ones(length)
    slope = (torch.arange(OVERLAP) + 1) / OVERLAP
    if start > 0:
        ramp[:OVERLAP] *= slope
    if start + length < size:
        ramp[-OVERLAP:] *= slope.flip(0)
    return ramp


def draw(pictures: dict[str, Tensor], target: Path, width: int = 480, crop: int = 240) -> None:
    """Pictures in two columns, each above what lies around its first seams, as a JPEG."""
    font = ImageFont.load_default(16)
    panels = []
    for name, picture in pictures.items():
        values = (picture[0].clamp(0, 1) * 255).round().byte().numpy()
        whole = Image.fromarray(np.ascontiguousarray(values))
        small = whole.resize(
            (width, round(whole.height * width / whole.width)), Image.Resampling.LANCZOS
        )
        # Two places where tiles meet, at their own size: left on an upright seam, right where
        # seams cross.
        seam = TILE - OVERLAP // 2
        middle = min(seam, whole.height - crop // 2)
        panel = Image.new("RGB", (width, small.height + crop + 26), "white")
        ImageDraw.Draw(panel).text((4, 3), name, "black", font)
        panel.paste(small, (0, 24))
        for place, y in enumerate((crop // 2, middle)):
            left, top = seam - crop // 2, y - crop // 2
            part = whole.crop((left, top, left + crop - 1, top + crop))
            panel.paste(part, (place * crop, small.height + 25))
        panels.append(panel)
    gap, columns = 8, 2
    step_x, step_y = width + gap, panels[0].height + gap
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * step_x - gap, rows * step_y - gap), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel, (index % columns * step_x, index // columns * step_y))
    sheet.save(target, quality=82, optimize=True)


if __name__ == "__main__":
    main()
