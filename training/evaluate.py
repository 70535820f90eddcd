"""Hold a small network against its teacher on photographs that it was not trained on.

    python -m training.evaluate --style shinkai --teachers FOLDER --photos FOLDER --published FOLDER

The small network runs in float32 through `animebg_core.stylize`, as users run it. The teacher's
pictures are made in float32 as well, and kept. Prints one JSON
object of means over the photographs; of spots, the mean number of cells a photograph. `--split
train` takes photographs that it was trained on instead.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from animebg_core import STYLES, Generator, load_generator, stylize
from animebg_core.files.whole import whole_file
from animebg_core.training.data import scaled, to_input, to_pixels
from animebg_core.training.network import run_maps

from .gather import photos


def psnr(made: np.ndarray, wanted: np.ndarray) -> float:
    """In dB, of uint8 pictures of one shape."""
    error = np.mean((made.astype(np.float64) - wanted) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-9)))


def ssim(made: np.ndarray, wanted: np.ndarray) -> float:
    """Structural similarity of luma (Wang et al. 2004): Gaussian window of 11, sigma 1.5."""
    offsets = torch.arange(11) - 5.0
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))

    luma = torch.tensor([0.299, 0.587, 0.114])
    a, b = (torch.from_numpy(side).float() @ luma for side in (made, wanted))
    a, b = a[None, None], b[None, None]
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def colour_contrast(rgb: np.ndarray) -> Tensor:
    """How far the colour of each cell of 4x4 pixels is from that of the 9x9 cells around it.

    Colour is R, G, B without their mean. From uint8 RGB [H, W, 3]; [1, 1, H // 4, W // 4], in
    levels of 255, of the channel that is farthest off.
    """
    cells = F.avg_pool2d(torch.from_numpy(rgb).permute(2, 0, 1)[None].float(), 4)
    off = cells - F.avg_pool2d(cells, 9, 1, 4, count_include_pad=False)
    return (off - off.mean(1, keepdim=True)).abs().amax(1, keepdim=True)


def spots(made: np.ndarray, wanted: np.ndarray) -> int:
    """Cells of 4x4 pixels whose colour stands out by 32 levels more than any near it in `wanted`.

    They are what an eye takes for coloured dots; black ones are not counted. Near is two cells to
    the side at most, so that an edge drawn elsewhere is none.
    """
    allowed = F.max_pool2d(colour_contrast(wanted), 5, 1, 2)
    return int((colour_contrast(made) - allowed > 32).sum())


def tone_share(made: np.ndarray, wanted: np.ndarray) -> float:
    """The part of the squared error, 0 to 1, that is in the means of areas of 32x32 pixels.

    What does not fill an area, on the right and below, is left out.
    """
    high, wide = (side // 32 * 32 for side in made.shape[:2])
    error = torch.from_numpy(made[:high, :wide].astype(np.float32) - wanted[:high, :wide])
    areas = F.avg_pool2d(error.permute(2, 0, 1)[None], 32)
    return float(areas.square().mean() / error.square().mean().clamp_min(1e-9))


class Published:
    """Photographs and what the published networks make of them, painted once and kept.

    Files `<style>-<longest side>-<photograph>.npy`, uint8 [2, H, W, 3].
    """

    def __init__(self, teachers: Path, folder: Path) -> None:
        self._teachers, self._folder = teachers, folder
        self._loaded: dict[str, Generator] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def teacher(self, style: str) -> Generator:
        """The published network of a style."""
        if style not in self._loaded:
            self._loaded[style] = load_generator(style, weights_dir=self._teachers)
        return self._loaded[style]

    @torch.no_grad()
    def pair(self, style: str, path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The photograph, its longest side brought to `size`, and its painting; uint8 RGB."""
        kept = self._folder / f"{style}-{size}-{path.stem}.npy"
        if not kept.exists():
            photo = np.asarray(scaled(path, size))
            tensors = dict(self.teacher(style).named_parameters())
            stages = self.teacher(style).stages
            # float32: without bfloat16 of its own a processor takes many times as long for it.
            picture = run_maps(stages, tensors, to_input(photo), torch.float32)["output"]
            painted = to_pixels(picture)[: photo.shape[0], : photo.shape[1]]
            with whole_file(kept) as file:
                np.save(file, np.stack((photo, painted)))
        photo, painted = np.load(kept)
        return photo, painted


def encoder_maps(teacher: Generator, picture: np.ndarray) -> list[Tensor]:
    """What the teacher's first three stages see in uint8 RGB [H, W, 3]."""
    tensors = dict(teacher.named_parameters())
    maps = run_maps(teacher.stages[:3], tensors, to_input(picture), torch.float32)
    return [maps[stage.name].float() for stage in teacher.stages[:3]]


def map_distance(made: list[Tensor], wanted: list[Tensor]) -> float:
    """Mean over the stages of |a - b|^2 / |b|^2: 0 is the same."""
    ratios = [(a - b).square().sum() / b.square().sum() for a, b in zip(made, wanted, strict=True)]
    return float(torch.stack(ratios).mean())


def same_statistics(photo: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The photo given the wanted picture's mean and deviation in each channel."""
    source, target = photo.reshape(-1, 3).astype(np.float64), wanted.reshape(-1, 3)
    moved = (source - source.mean(0)) / np.maximum(source.std(0), 1e-6)
    moved = moved * target.std(0) + target.mean(0)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8).reshape(photo.shape)


def best_matrix(photo: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The photo under the 3x4 colour matrix that comes closest to the wanted picture."""
    return best_of_all([photo], [wanted])[0]


def best_of_all(photos: list[np.ndarray], wanted: list[np.ndarray]) -> list[np.ndarray]:
    """The photos under the one 3x4 colour matrix that comes closest to the wanted pictures."""
    flat = [np.concatenate((p.reshape(-1, 3) / 255, np.ones((p.size // 3, 1))), 1) for p in photos]
    target = np.concatenate([picture.reshape(-1, 3) for picture in wanted]).astype(np.float64)
    matrix = np.linalg.lstsq(np.concatenate(flat), target, rcond=None)[0]
    return [
        np.clip(np.rint(source @ matrix), 0, 255).astype(np.uint8).reshape(photo.shape)
        for source, photo in zip(flat, photos, strict=True)
    ]


def paint(generator: Generator, photo: np.ndarray) -> np.ndarray:
    """uint8 RGB in and out, as the command line does it."""
    image = torch.from_numpy(photo.copy()).float()[None] / 255
    return (stylize(image, generator)[0] * 255).round().byte().numpy()


Triple = tuple[np.ndarray, np.ndarray, np.ndarray]  # photo, published picture, small network's


@torch.inference_mode()
def triples(
    published: Published, style: str, lite: Generator, paths: list[Path], size: int
) -> list[Triple]:
    """The three pictures of each photograph, longest side `size`."""
    pairs = (published.pair(style, path, size) for path in paths)
    return [(photo, wanted, paint(lite, photo)) for photo, wanted in pairs]


@torch.inference_mode()
def figures(teacher: Generator, rows: list[Triple]) -> dict[str, float]:
    """Means over the photographs, of the small network and of what it must beat."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for photo, wanted, made in rows:
        seen = encoder_maps(teacher, wanted)
        for name, picture in (("photo", photo), ("lite", made)):
            note(f"{name}_psnr", psnr(picture, wanted))
            note(f"{name}_ssim", ssim(picture, wanted))
            note(f"{name}_maps", map_distance(encoder_maps(teacher, picture), seen))
            note(f"{name}_spots", spots(picture, wanted))
        note("lite_tone_share", tone_share(made, wanted))
        note("statistics_psnr", psnr(same_statistics(photo, wanted), wanted))
        note("matrix_psnr", psnr(best_matrix(photo, wanted), wanted))
    means = {name: round(float(np.mean(values)), 4) for name, values in found.items()}
    worst = min(found["lite_psnr"])
    return {"photos": len(rows), **means, "lite_psnr_worst": round(worst, 4)}


def contact_sheet(rows: list[Triple], titles: list[str]) -> Image.Image:
    """Photo, teacher and small network side by side, one row a photograph."""
    widths = max(photo.shape[1] for photo, _, _ in rows)
    heights = [photo.shape[0] + 16 for photo, _, _ in rows]
    sheet = Image.new("RGB", (3 * widths + 8, sum(heights)), "white")
    top = 0
    for row, height, title in zip(rows, heights, titles, strict=True):
        made = psnr(row[2], row[1])
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (column * (widths + 4), top + 14))
        ImageDraw.Draw(sheet).text((2, top + 1), f"{title}: {made:.1f} dB", fill="black")
        top += height
    return sheet


def main() -> None:
    """Paint, measure, print; save a contact sheet if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--style", required=True, choices=list(STYLES))
    parser.add_argument("--teachers", required=True, type=Path, help="the published networks")
    parser.add_argument("--lite", help="the small network's file [the shipped one]")
    parser.add_argument("--photos", required=True, type=Path, help="folder with index.json")
    parser.add_argument("--published", required=True, type=Path, help="their paintings, kept")
    parser.add_argument("--size", type=int, default=640, help="longest side")
    parser.add_argument(
        "--split",
        choices=("holdout", "train"),
        default="holdout",
        help="held-out photographs, or those trained on",
    )
    parser.add_argument("--every", type=int, default=1, help="take every n-th photograph")
    parser.add_argument("--only", nargs="*", help="names of photographs, instead of all")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    args = parser.parse_args()
    paths = photos(args.photos, args.split)
    paths = [path for path in paths if not args.only or path.stem in args.only][:: args.every]
    if not paths:
        parser.error("no such photographs")
    published = Published(args.teachers, args.published)
    lite = load_generator(args.lite or f"{args.style}-lite")
    rows = triples(published, args.style, lite, paths, args.size)
    found = figures(published.teacher(args.style), rows)
    print(json.dumps({"style": args.style, "size": args.size, **found}))
    if args.sheet:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(rows, [path.stem for path in paths]).save(args.sheet, quality=88)


if __name__ == "__main__":
    main()
