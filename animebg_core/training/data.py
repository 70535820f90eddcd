"""Pictures to train on: their variants, and their way into a network and out."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tone:
    """Another exposure, light and saturation of a photograph."""

    gamma: float
    gains: tuple[float, float, float]  # of R, G, B
    saturation: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One training picture: a window of a scaled photograph, perhaps in another tone."""

    photo: Path
    longest: int  # side of the whole photograph after scaling, but never smaller than the window
    window: tuple[int, int]  # longer and shorter side, laid as the photograph lies
    place: tuple[float, float]  # of the window, 0 to 1 in x and y
    mirrored: bool
    tone: Tone | None
    islands: int = 0  # seed of small shapes on a smooth ground, see `with_islands`; 0: none
    other: Path | None = None  # a photograph that shows through in places, see `with_other`
    places: int = 0  # seed of these

    def named(self) -> Variant:
        """The same wherever the photographs lie: their names without the folder."""
        other = self.other and Path(self.other.name)
        return replace(self, photo=Path(self.photo.name), other=other)


# Few shapes, since libraries prepare their convolutions anew for each. Three of four are windows;
# the last ones hold nearly the whole of a photograph, as it is painted later.
_WINDOWS = (((288, 192), (360, 1000)),) * 3 + (((480, 320), (480, 720)),)
_PLAIN = ((192, 128), (300, 600))  # smaller, since what they are for is local

Reader = Callable[[Path, int], Image.Image]  # a photograph, scaled as `scaled` does


def drawn_tone(draw: random.Random) -> Tone:
    """A tone that a camera or a time of day might have given."""
    return Tone(
        gamma=math.exp(draw.uniform(-0.35, 0.35)),
        gains=(
            math.exp(draw.uniform(-0.12, 0.12)),
            math.exp(draw.uniform(-0.12, 0.12)),
            math.exp(draw.uniform(-0.12, 0.12)),
        ),
        saturation=draw.uniform(0.6, 1.4),
    )


def variants(paths: list[Path], count: int, seed: int) -> list[Variant]:
    """`count` variants, every photograph equally often, in an order that the seed decides.

    Half of them are given another tone, a tenth are made islands, and into half of the rest a
    second photograph is mixed. More of them begin with the same ones.
    """
    found: list[Variant] = []
    chosen: list[Path] = []
    while len(chosen) < count:
        chosen += random.Random(f"{seed} order {len(chosen)}").sample(paths, len(paths))
    for number, path in enumerate(chosen[:count]):
        draw = random.Random(f"{seed} {number}")
        window, sizes = draw.choice(_WINDOWS)
        variant = Variant(
            path,
            longest=draw.randint(*sizes),
            window=window,
            place=(draw.random(), draw.random()),
            mirrored=draw.random() < 0.5,
            tone=drawn_tone(draw) if draw.random() < 0.5 else None,
            islands=draw.randrange(1, 1 << 31) if draw.random() < 0.1 else 0,
        )
        if not variant.islands and draw.random() < 0.5:
            variant = replace(variant, other=draw.choice(paths), places=draw.randrange(1 << 31))
        found.append(variant)
    return found


def plain_windows(paths: list[Path], count: int, seed: int) -> list[Variant]:
    """`count` windows of photographs as they are, perhaps mirrored; each equally often."""
    window, sizes = _PLAIN
    found: list[Variant] = []
    for number in range(count):
        draw = random.Random(f"plain {seed} {number}")
        found.append(
            Variant(
                paths[number % len(paths)],
                longest=draw.randint(*sizes),
                window=window,
                place=(draw.random(), draw.random()),
                mirrored=draw.random() < 0.5,
                tone=None,
            )
        )
    return found


def scaled(path: Path, longest: int) -> Image.Image:
    """A photograph upright, in RGB, its longest side brought to `longest` if it is longer."""
    with Image.open(path) as opened:
        opened.draft("RGB", (longest, longest))
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    return shrunk(picture, longest)


def shrunk(picture: Image.Image, longest: int) -> Image.Image:
    """A picture with its longest side brought to `longest` if it is longer."""
    factor = longest / max(picture.size)
    if factor >= 1:
        return picture
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def with_tone(rgb: NDArray[np.uint8], tone: Tone) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3] in another tone, the same shape and type."""
    light = (rgb / 255) ** tone.gamma * tone.gains
    grey = light.mean(axis=2, keepdims=True)
    light = grey + tone.saturation * (light - grey)
    return np.rint(light.clip(0, 1) * 255).astype(np.uint8)


def with_islands(rgb: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3] blurred, but for one to six small ellipses and masts.

    They are dark on a light ground, or one time in four light on a dark one. Trees under a wide
    sky, a mast, the moon: a few pixels far from all others, which the networks' norms answer in a
    way of their own. Photographs show too few of them to learn it from.
    """
    draw = random.Random(seed)
    high, wide = rgb.shape[:2]
    short = min(high, wide)
    mask = Image.new("L", (wide, high))
    pen = ImageDraw.Draw(mask)
    for _ in range(draw.randint(1, 6)):
        x, y = draw.random() * wide, draw.random() * high
        if draw.random() < 0.3:  # a mast
            half, length = draw.uniform(0.005, 0.015) * short, draw.uniform(0.1, 0.5) * short
            pen.rectangle((x - half, y - length, x + half, y), fill=255)
        else:
            half, tall = (draw.uniform(0.015, 0.07) * short for _ in range(2))
            pen.ellipse((x - half, y - tall, x + half, y + tall), fill=255)
    shape = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.7)))[:, :, None] / 255
    ground = Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(short / 8))
    of_ground, of_shapes = (0.6, 3.0) if draw.random() < 0.75 else (1.8, 0.3)
    smooth, sharp = np.asarray(ground) / 255, rgb / 255
    mixed = smooth**of_ground * (1 - shape) + sharp**of_shapes * shape
    return np.rint(mixed * 255).astype(np.uint8)


def with_other(rgb: NDArray[np.uint8], other: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3], with another of that shape in its place where a smooth noise is high.

    One of ten to nine of ten parts of it, in a few large places or many small ones. A norm sees a
    whole picture at once, so that a network needs many wholes to learn from, which a few hundred
    photographs are not; the published network paints any (as Beyer et al., "Knowledge
    distillation: A good teacher is patient and consistent", CVPR 2022, found for mixed pictures).
    """
    soft = _places(np.random.default_rng(seed), rgb, 8, (0.1, 0.9)).filter(
        ImageFilter.GaussianBlur(0.7)
    )
    return np.array(Image.composite(Image.fromarray(other), Image.fromarray(rgb), soft))


def with_shadow(rgb: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3], in a few large places with hardly any light, and perhaps smooth there.

    The darkest flat area of a picture is what a norm sends farthest; photographs show too few.
    """
    draw = np.random.default_rng(seed)
    places = _places(draw, rgb, 7, (0.6, 0.98))
    soft = places.filter(ImageFilter.GaussianBlur(float(draw.choice([0.7, 0.7, 3.0]))))
    share = np.asarray(soft, np.float32)[:, :, None] / 255
    inside = Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(float(draw.choice([0, 2, 8]))))
    dark = np.asarray(inside) * draw.uniform(0.0, 0.3)
    return np.rint(rgb * (1 - share) + dark * share).astype(np.uint8)


def _places(
    draw: np.random.Generator, rgb: NDArray[np.uint8], most: int, left_out: tuple[float, float]
) -> Image.Image:
    """A mask of the picture's size, 255 where a smooth noise is high.

    Args:
        most: cells that the noise has a side, at most; 2 at least.
        left_out: between which shares of the picture it leaves out.
    """
    high, wide = rgb.shape[:2]
    coarse = draw.random((draw.integers(2, most + 1), draw.integers(2, most + 1)), np.float32)
    noise = np.asarray(Image.fromarray(coarse).resize((wide, high), Image.Resampling.BICUBIC))
    shown = noise > np.quantile(noise, draw.uniform(*left_out))
    return Image.fromarray(shown.astype(np.uint8) * 255)


def cut(variant: Variant, read: Reader = scaled) -> NDArray[np.uint8]:
    """The variant as uint8 RGB [H, W, 3]."""
    picture = read(variant.photo, variant.longest)
    longer, shorter = variant.window
    window = (longer, shorter) if picture.width >= picture.height else (shorter, longer)
    short = max(side / has for side, has in zip(window, picture.size, strict=True))
    if short > 1:  # a panorama, or a small photograph
        size = (
            max(window[0], round(picture.width * short)),
            max(window[1], round(picture.height * short)),
        )
        picture = read(variant.photo, max(size)).resize(size, Image.Resampling.LANCZOS)
    left = round(variant.place[0] * (picture.width - window[0]))
    top = round(variant.place[1] * (picture.height - window[1]))
    pixels = np.array(picture.crop((left, top, left + window[0], top + window[1])))
    if variant.tone:
        pixels = with_tone(pixels, variant.tone)
    if variant.islands:
        pixels = with_islands(pixels, variant.islands)
    if variant.other:
        other = ImageOps.fit(read(variant.other, variant.longest), window)
        pixels = with_other(pixels, np.asarray(other), variant.places)
    return np.ascontiguousarray(pixels[:, ::-1] if variant.mirrored else pixels)


def to_input(rgb: NDArray[np.uint8]) -> Tensor:
    """uint8 RGB [H, W, 3] as the network's input: [1, 3, H, W] BGR in [-1, 1]."""
    bgr = torch.from_numpy(np.ascontiguousarray(rgb[:, :, ::-1]))
    return bgr.permute(2, 0, 1)[None].float() / 127.5 - 1


def to_pixels(picture: Tensor) -> NDArray[np.uint8]:
    """A network's output [1, 3, H, W], BGR in [-1, 1], as uint8 RGB [H, W, 3]."""
    rgb = picture.detach()[0].flip(0).permute(1, 2, 0)
    return ((rgb.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
