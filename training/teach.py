"""The lessons: what the published networks paint, and the maps they paint it from, on disk.

    python -m training.teach --teachers FOLDER --photos FOLDER --lessons FOLDER

Runs beside `training.distill`, which takes each lesson as soon as it is there, so that both cores
of a small machine are busy. Stopped and started again, it goes on where it was.

A lesson is one variant of one photograph, painted by one of the four networks, in turn. Beside the
picture it keeps what the residual blocks carry at four depths: their leading directions, which are
the same for all four networks, since these were trained from one beginning and name their channels
alike.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from animebg_core import STYLES, Generator, load_generator
from animebg_core.files.whole import part_file, whole_file
from animebg_core.training.data import Variant, cut, to_input, to_pixels, variants
from animebg_core.training.network import run_maps

from .gather import photos

# What residual blocks carry, from the first map at quarter size to the last.
DEPTHS = ("down2", "block2b", "block5b", "block7b")
DIRECTIONS = 96
STYLE_KEYS = tuple(STYLES)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One picture to learn from.

    Attributes:
        photo: uint8 RGB [H, W, 3].
        picture: the published network's, likewise.
        carried: float32 [depths, DIRECTIONS, H / 4, W / 4], see `Directions`.
    """

    photo: np.ndarray
    picture: np.ndarray
    carried: Tensor


@dataclass(frozen=True, slots=True)
class Directions:
    """How carried maps are brought to fewer numbers.

    Attributes:
        rows: [DIRECTIONS, C], orthonormal, the leading ones last.
        means: by style, [depths, C].
        deviations: [depths, DIRECTIONS], of what `rows` give.
    """

    rows: Tensor
    means: Mapping[str, Tensor]
    deviations: Tensor

    def describe(self, style: str, maps: Mapping[str, Tensor]) -> Tensor:
        """Carried maps [1, C, h, w] as [depths, DIRECTIONS, h, w], each of about unit deviation."""
        found = []
        for depth, name in enumerate(DEPTHS):
            centred = maps[name][0].float().cpu() - self.means[style][depth][:, None, None]
            found.append(torch.einsum("kc,chw->khw", self.rows, centred))
        return torch.stack(found) / self.deviations[:, :, None, None]


@torch.no_grad()
def find_directions(
    teachers: Mapping[str, Generator], inputs: Iterable[tuple[str, Tensor]]
) -> Directions:
    """The principal directions over pictures (style, [1, 3, H, W]); each depth counts alike."""
    first: dict[str, list[Tensor]] = {style: [] for style in teachers}
    second: list[Tensor] = []
    for style, image in inputs:
        tensors = dict(teachers[style].named_parameters())
        maps = run_maps(teachers[style].stages, tensors, image.to(teachers[style].device))
        flat = [maps[name][0].float().flatten(1).cpu() for name in DEPTHS]
        first[style].append(torch.stack([side.mean(1) for side in flat]))
        centred = [side - side.mean(1, keepdim=True) for side in flat]
        second.append(torch.stack([side @ side.T / side.shape[1] for side in centred]))
    moments = torch.stack(second).mean(0)
    shares = moments / moments.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    rows = torch.linalg.eigh(shares.sum(0).double()).eigenvectors[:, -DIRECTIONS:].T.float()
    deviations = torch.einsum("kc,dce,ke->dk", rows, moments, rows).clamp_min(1e-8).sqrt()
    means = {style: torch.stack(found).mean(0) for style, found in first.items()}
    return Directions(rows.contiguous(), means, deviations)


class Lessons:
    """The folder: `directions.safetensors`, and `<number>.safetensors` for each lesson."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, number: int) -> Path:
        """Where lesson `number` is, or will be."""
        return self.folder / f"{number:05}.safetensors"

    def count(self) -> int:
        """How many there are; they come in order."""
        return sum(1 for _ in self.folder.glob("[0-9]*.safetensors"))

    def load(self, number: int) -> Lesson:
        """Lesson `number`."""
        held = load_file(self.path(number))
        # One byte for a number: 127 stands for four deviations.
        carried = held["carried"].float() * (4 / 127)
        return Lesson(held["photo"].numpy(), held["picture"].numpy(), carried)

    def store(self, number: int, lesson: Lesson) -> None:
        """Keep a lesson; a half-written file is never seen under its name."""
        self._write(
            self.path(number),
            {
                "photo": torch.from_numpy(lesson.photo),
                "picture": torch.from_numpy(lesson.picture),
                "carried": (lesson.carried * (127 / 4)).round().clamp(-127, 127).to(torch.int8),
            },
        )

    def check_plan(self, plan: list[Variant]) -> None:
        """Note what is to be painted here, or refuse if it is not what was begun."""
        described = [repr(variant.named()) for variant in plan]
        path = self.folder / "plan.json"
        begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if any(old != new for old, new in zip(begun, described, strict=False)):
            raise SystemExit(f"{self.folder} holds other lessons: name another --lessons")
        if len(described) > len(begun):
            with whole_file(path) as file:
                file.write(json.dumps(described, indent=0).encode())

    def directions(self) -> Directions | None:
        """The directions, once they were found."""
        path = self.folder / "directions.safetensors"
        if not path.exists():
            return None
        with safe_open(path, "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rows, deviations = held.pop("rows"), held.pop("deviations")
        return Directions(rows, held, deviations)

    def store_directions(self, found: Directions) -> None:
        """Keep the directions."""
        held = {"rows": found.rows, "deviations": found.deviations, **found.means}
        self._write(self.folder / "directions.safetensors", held)

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        with part_file(path) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)


def style_of(number: int) -> str:
    """Whose lesson `number` is."""
    return STYLE_KEYS[number % len(STYLE_KEYS)]


def load_teachers(folder: Path, device: str = "cpu") -> dict[str, Generator]:
    """The four published networks, from their files in a folder."""
    return {style: load_generator(style, weights_dir=folder, device=device) for style in STYLES}


@torch.no_grad()
def teach(
    teachers: Mapping[str, Generator], plan: list[Variant], lessons: Lessons, *, show: bool = True
) -> None:
    """Paint every variant of `plan` that was not painted yet, in order.

    Raises:
        SystemExit: the folder holds lessons of another plan.
    """
    lessons.check_plan(plan)
    directions = lessons.directions()
    if directions is None:
        first_ones = enumerate(plan[:48])
        samples = ((style_of(n), to_input(cut(variant))) for n, variant in first_ones)
        directions = find_directions(teachers, samples)
        lessons.store_directions(directions)
    tensors = {style: dict(teacher.named_parameters()) for style, teacher in teachers.items()}
    device = next(iter(teachers.values())).device
    began, first = time.monotonic(), lessons.count()
    for number in range(first, len(plan)):
        style = style_of(number)
        photo = cut(plan[number])
        maps = run_maps(teachers[style].stages, tensors[style], to_input(photo).to(device))
        carried = directions.describe(style, maps)
        lessons.store(number, Lesson(photo, to_pixels(maps["output"]), carried))
        if show and number % 40 == 0:
            pace = (time.monotonic() - began) / (number + 1 - first)
            left = pace * (len(plan) - number) / 60
            print(f"{number}/{len(plan)} {pace:.2f} s a lesson, {left:.0f} min left", flush=True)


def plan_lessons(folder: Path, count: int, seed: int) -> list[Variant]:
    """The variants of `count` lessons, on photographs of the training split."""
    return variants(photos(folder, "train"), count, seed)


def main() -> None:
    """Paint all lessons."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teachers", required=True, type=Path, help="folder of the four networks")
    parser.add_argument("--photos", required=True, type=Path, help="folder with index.json")
    parser.add_argument("--lessons", required=True, type=Path, help="where they are kept")
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    plan = plan_lessons(args.photos, args.count, args.seed)
    print(
        f"{args.count} lessons, {len({variant.photo for variant in plan})} photographs", flush=True
    )
    teach(load_teachers(args.teachers, args.device), plan, Lessons(args.lessons))


if __name__ == "__main__":
    main()
