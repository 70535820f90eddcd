"""Photographs for training: the list, their variants, and the teacher's cached pictures."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tone:
    """Another exposure, light and saturation of a photograph."""

    gamma: float
    gains: tuple[float, float, float]  # of R, G, B
    saturation: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One training picture: a photograph scaled, cut, perhaps mirrored and given another tone."""

    photo: Path
    longest: int  # side of the whole photograph after scaling
    pixels: int  # at most; a larger photograph is cut to a window of the same shape
    place: tuple[float, float]  # of the window, 0 to 1 in x and y
    mirrored: bool
    tone: Tone | None


def photos(folder: Path, split: str) -> list[Path]:
    """The photographs of a split ("train" or "holdout") that `index.json` names, in its order."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return [folder / row["file"] for row in index["photos"] if row["split"] == split]


def drawn_tone(draw: random.Random) -> Tone:
    """A tone that a camera or a time of day might have given."""
    return Tone(
        gamma=math.exp(draw.uniform(-0.35, 0.35)),
        gains=tuple(math.exp(draw.uniform(-0.12, 0.12)) for _ in range(3)),
        saturation=draw.uniform(0.6, 1.4),
    )


def variants(
    paths: list[Path],
    count: int,
    sizes: tuple[int, int],
    pixels: int,
    seed: int,
    *,
    toned: float = 0.0,
) -> list[Variant]:
    """`count` variants, every photograph equally often, in an order that the seed decides.

    A share `toned` of them, 0 to 1, is given another tone.
    """
    draw = random.Random(seed)
    chosen: list[Path] = []
    while len(chosen) < count:
        chosen += draw.sample(paths, len(paths))
    return [
        Variant(
            path,
            longest=draw.randint(*sizes),
            pixels=pixels,
            place=(draw.random(), draw.random()),
            mirrored=draw.random() < 0.5,
            tone=drawn_tone(draw) if draw.random() < toned else None,
        )
        for path in chosen[:count]
    ]


def scaled(path: Path, longest: int) -> Image.Image:
    """A photograph upright, in RGB, its longest side brought to `longest` if it is longer."""
    with Image.open(path) as opened:
        opened.draft("RGB", (longest, longest))
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    factor = longest / max(picture.size)
    if factor < 1:
        size = (round(picture.width * factor), round(picture.height * factor))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture


def with_tone(rgb: np.ndarray, tone: Tone) -> np.ndarray:
    """uint8 RGB [H, W, 3] in another tone, the same shape and type."""
    light = (rgb / 255) ** tone.gamma * tone.gains
    grey = light.mean(axis=2, keepdims=True)
    light = grey + tone.saturation * (light - grey)
    return np.rint(light.clip(0, 1) * 255).astype(np.uint8)


def cut(variant: Variant) -> np.ndarray:
    """The variant as uint8 RGB [H, W, 3], sides multiples of 4."""
    picture = scaled(variant.photo, variant.longest)
    shrink = min(1.0, (variant.pixels / (picture.width * picture.height)) ** 0.5)
    width, height = (int(side * shrink) // 4 * 4 for side in picture.size)
    left = round(variant.place[0] * (picture.width - width))
    top = round(variant.place[1] * (picture.height - height))
    pixels = np.asarray(picture.crop((left, top, left + width, top + height)))
    if variant.tone:
        pixels = with_tone(pixels, variant.tone)
    return np.ascontiguousarray(pixels[:, ::-1] if variant.mirrored else pixels)


def to_input(rgb: np.ndarray, device: torch.device) -> Tensor:
    """uint8 RGB [H, W, 3] as the network's input: [1, 3, H, W] BGR in [-1, 1]."""
    bgr = torch.from_numpy(np.ascontiguousarray(rgb[:, :, ::-1])).to(device)
    return bgr.permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pixels(picture: Tensor) -> np.ndarray:
    """A network's output [1, 3, H, W], BGR in [-1, 1], as uint8 RGB [H, W, 3]."""
    rgb = picture.detach()[0].flip(0).permute(1, 2, 0)
    return ((rgb.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()


class Cache:
    """Photo and teacher's picture of each variant: files `<number>.npy` of uint8 [2, H, W, 3]."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(photo, picture), or None if the teacher has not painted it yet."""
        path = self.folder / f"{number:05}.npy"
        if not path.exists():
            return None
        photo, picture = np.load(path)
        return photo, picture

    def put(self, number: int, photo: np.ndarray, picture: np.ndarray) -> None:
        """Keep a pair; a half-written file is never seen under its name."""
        temporary = self.folder / f"{number:05}.tmp.npy"
        np.save(temporary, np.stack((photo, picture)))
        temporary.replace(self.folder / f"{number:05}.npy")
