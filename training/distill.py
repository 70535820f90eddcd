"""Train a small network to paint what a published one paints. See README.md for the commands.

    python -m training.distill --style shinkai --teacher FILE --photos FOLDER --state FOLDER

Every third step, until all variants were seen, runs the teacher on a new one, matches the small
network's maps with the teacher's block by block, and caches the teacher's picture; all other steps
train on the cached pictures alone. State is saved every few minutes, and the same command goes on
from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from animebg_core import STYLES, load_generator
from animebg_core.checkpoint import published_names
from animebg_core.generator import stage_table

from .data import Cache, cut, photos, to_input, to_pixels, variants
from .fit import as_rows, fitted, from_rows, whiteners
from .network import run_maps
from .start import Widths, moments, reduced


@dataclass(frozen=True, slots=True)
class Options:
    """Everything the result depends on, apart from the photographs and the teacher."""

    style: str
    steps: int
    seed: int
    rate: float
    variants: int
    sizes: tuple[int, int]
    pixels: int
    widths: Widths


def rate_at(step: int, options: Options) -> float:
    """The learning rate: a short rise, level, and from 30% on a cosine fall to 2%."""
    rise = min(1.0, (step + 1) / 50)
    fall = max(0.0, (step / options.steps - 0.3) / 0.7)
    return options.rate * rise * (0.51 + 0.49 * math.cos(math.pi * min(1.0, fall)))


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Distance of two pictures: pixels at six sizes, each half the one before, gradients at three.

    The small sizes weigh the tone of whole regions, which is most of what a small network gets
    wrong; the root of the mean square, not a mean of absolutes, so that regions far off count most.
    """
    loss = made.new_zeros(())
    for level in range(6):
        if level:
            made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
        error = made - wanted
        loss = loss + (error.square().mean() + 1e-6).sqrt()
        for axis in (2, 3) if level < 3 else ():
            loss = loss + error.diff(dim=axis).abs().mean()
    return loss


def map_loss(made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error of maps, each channel in units of the teacher's variance there."""
    losses = []
    for name, target in wanted.items():
        error = (made[name].float() - target).square().mean((0, 2, 3))
        centred = target - target.mean((2, 3), keepdim=True)
        losses.append((error / (centred.square().mean((0, 2, 3)) + 1e-3)).clamp_max(10).mean())
    return torch.stack(losses).mean()


class Run:
    """One small network in training, and everything that a resumed run needs."""

    def __init__(self, args: argparse.Namespace, options: Options) -> None:
        self.options = options
        self.device = torch.device(args.device)
        self.folder: Path = args.state
        self.folder.mkdir(parents=True, exist_ok=True)
        self.teacher_path: Path = args.teacher
        teacher = load_generator(args.teacher, device=self.device)
        self.teacher_stages = teacher.stages
        self.teacher = {name: tensor.detach() for name, tensor in teacher.named_parameters()}
        self.stages = stage_table(len(options.widths.blocks))
        self.convs = {
            f"{stage.name}.{index}": conv
            for stage in self.stages
            for index, conv in enumerate(stage.convs)
        }
        # Maps that residual blocks carry, at quarter size: cheap to compare, and they steer every
        # layer before them.
        carried = [stage.name for stage in self.stages if stage.settles]
        self.matched = {*carried[::2], carried[-1], "up1"}
        self.train_photos = photos(args.photos, "train")
        self.variants = variants(
            self.train_photos,
            options.variants,
            options.sizes,
            options.pixels,
            options.seed,
            toned=0.5,
        )
        self.held_out = variants(
            photos(args.photos, "holdout"), 12, (640, 640), options.pixels, options.seed + 1
        )
        # Other photographs or variants are another cache: its name says which.
        described = repr([replace(variant, photo=variant.photo.name) for variant in self.variants])
        key = hashlib.sha256(described.encode()).hexdigest()[:8]
        self.cache = Cache(args.cache / f"{options.style}-{key}")
        self.held_out_cache = Cache(self.cache.folder / "holdout")
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._begin(args.start)

    def _begin(self, start: Path | None) -> None:
        latest = self.folder / "state.pt"
        found: dict[str, Any] | None = None
        if latest.exists():
            found = torch.load(latest, map_location=self.device)
            self.meaning, self.white = found["meaning"], found["white"]
            values, self.average = found["parameters"], found["average"]
        else:
            if start is None:
                tensors, self.meaning = self._reduced()
            else:
                begun = torch.load(start, map_location=self.device)
                tensors, self.meaning = begun["tensors"], begun["meaning"]
            seen = [cut(replace(variant, pixels=48_000)) for variant in self.variants[:8]]
            images = [to_input(photo, self.device) for photo in seen]
            self.white = whiteners(self.stages, tensors, images)
            values = self.to_white(tensors)
            self.average = {name: value.clone() for name, value in values.items()}
        self.parameters = {name: value.clone().requires_grad_() for name, value in values.items()}
        # Each tensor moves in proportion to its own size.
        groups = [
            {"params": [value], "size": max(float(value.detach().square().mean().sqrt()), 0.01)}
            for value in self.parameters.values()
        ]
        self.optimizer = torch.optim.Adam(groups, lr=self.options.rate, betas=(0.9, 0.99))
        if found is not None:
            self.optimizer.load_state_dict(found["optimizer"])
            self.step, self.history = found["step"], found["history"]

    def to_white(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters that are trained, of a network's tensors."""
        values = dict(tensors)
        for name, conv in self.convs.items():
            rows = as_rows(tensors[f"{name}.weight"], conv)
            values[f"{name}.weight"] = rows @ self.white[name][0]
        return values

    def from_white(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network's tensors; the inverse of `to_white`."""
        tensors = dict(values)
        for name, conv in self.convs.items():
            rows = values[f"{name}.weight"] @ self.white[name][1]
            channels = rows.shape[1] // conv.kernel**2
            tensors[f"{name}.weight"] = from_rows(rows, conv, channels)
        return tensors

    def _reduced(self) -> tuple[dict[str, Tensor], dict[str, tuple[str, list[int]]]]:
        """What training begins with: the teacher's layers, reduced and then fitted."""
        inputs = (to_input(cut(variant), self.device) for variant in self.variants[:16])
        found = moments(self.teacher_stages, self.teacher, inputs)
        start = reduced(self.teacher, found, self.options.widths)
        # Fitting needs all maps of all pictures at once: fewer and smaller ones.
        fit_on = variants(self.train_photos, 24, (448, 900), 80_000, self.options.seed + 4)
        images = [to_input(cut(variant), self.device) for variant in fit_on]
        return fitted(self.teacher_stages, self.teacher, start, images), start.meaning

    def save(self) -> None:
        """Write the state; a half-written one is never seen under its name."""
        temporary = self.folder / "state.tmp"
        torch.save(
            {
                "tensors": self.from_white(self.average),
                "parameters": {name: value.detach() for name, value in self.parameters.items()},
                "average": self.average,
                "white": self.white,
                "optimizer": self.optimizer.state_dict(),
                "meaning": self.meaning,
                "step": self.step,
                "history": self.history,
                "options": asdict(self.options),
            },
            temporary,
        )
        temporary.replace(self.folder / "state.pt")
        (self.folder / "history.json").write_text(json.dumps(self.history, indent=1))

    def paint(self, image: Tensor) -> dict[str, Tensor]:
        """The teacher's maps of [1, 3, H, W]."""
        with torch.no_grad():
            return run_maps(self.teacher_stages, self.teacher, image)

    def schedule(self, step: int) -> tuple[int, bool]:
        """The variant of a step, and whether it is new: every third is, until all were seen."""
        count = len(self.variants)
        seen = min(step // 3 + 1, count)
        if step % 3 == 0 and step // 3 < count:
            return step // 3, True
        return random.Random(f"{self.options.seed} {step}").randrange(seen), False

    def sample(self, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Photo, teacher's picture, and the teacher's maps to be matched: none if it was cached."""
        number, fresh = self.schedule(step)
        kept = None if fresh else self.cache.get(number)
        if kept is not None:
            return to_input(kept[0], self.device), to_input(kept[1], self.device), {}
        photo = cut(self.variants[number])
        image = to_input(photo, self.device)
        maps = self.paint(image)
        self.cache.put(number, photo, to_pixels(maps["output"]))
        wanted = {
            name: maps[source][:, channels].float().contiguous(memory_format=torch.channels_last)
            for name, (source, channels) in self.meaning.items()
            if name in self.matched
        }
        return image, maps["output"], wanted

    def train_step(self) -> float:
        """One step; the picture loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, self.options) * group["size"]
        image, wanted, wanted_maps = self.sample(self.step)
        maps = run_maps(self.stages, self.from_white(self.parameters), image)
        picture = picture_loss(maps["output"], wanted)
        loss = picture + map_loss(maps, wanted_maps) if wanted_maps else picture
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimizer.step()
        keep = min(0.998, (4 + self.step) / (8 + self.step))  # over the last quarter of the steps
        with torch.no_grad():
            names = list(self.average)
            torch._foreach_lerp_(
                [self.average[name] for name in names],
                [self.parameters[name] for name in names],
                1 - keep,
            )
        self.step += 1
        return float(picture.detach())

    @torch.no_grad()
    def held_out_psnr(self) -> float:
        """Mean PSNR in dB of the averaged network against the teacher on held-out photographs."""
        total = 0.0
        tensors = self.from_white(self.average)
        for number, variant in enumerate(self.held_out):
            kept = self.held_out_cache.get(number)
            if kept is None:
                photo = cut(variant)
                picture = to_pixels(self.paint(to_input(photo, self.device))["output"])
                self.held_out_cache.put(number, photo, picture)
                kept = photo, picture
            image, wanted = (to_input(side, self.device) for side in kept)
            made = run_maps(self.stages, tensors, image)["output"]
            total += float(-10 * ((made - wanted) / 2).square().mean().log10())
        return total / len(self.held_out)

    def train(self, *, look_every: int, save_seconds: float) -> None:
        """To the last step, with progress, looks at held-out photographs, and saved states."""
        began, first, saved = time.monotonic(), self.step, time.monotonic()
        shown, recent = began, 0.0
        while self.step < self.options.steps:
            loss = self.train_step()
            recent = loss if not recent else 0.98 * recent + 0.02 * loss
            now = time.monotonic()
            if self.step % look_every == 0 or self.step == self.options.steps:
                quality = self.held_out_psnr()
                self.history.append({"step": self.step, "loss": recent, "psnr": quality})
                print(f"step {self.step}: held-out {quality:.2f} dB, loss {recent:.4f}", flush=True)
            if now - shown > 20:
                pace = (now - began) / (self.step - first)
                left = pace * (self.options.steps - self.step) / 60
                print(
                    f"{self.step}/{self.options.steps} loss {recent:.4f} "
                    f"{pace:.2f} s/step, {left:.0f} min left",
                    flush=True,
                )
                shown = now
            if now - saved > save_seconds:
                self.save()
                saved = now
        self.save()

    def export(self, path: Path) -> None:
        """The averaged network in float16, published names, with its origin in the metadata."""
        names = published_names(len(self.options.widths.blocks))
        tensors = {
            names[name]: tensor.half().contiguous().cpu()
            for name, tensor in self.from_white(self.average).items()
        }
        metadata = {
            "format": "pt",
            "style": f"{self.options.style}-lite",
            "teacher": STYLES[self.options.style].file,
            "teacher_sha256": STYLES[self.options.style].sha256,
            "training_commit": commit(),
            "seed": str(self.options.seed),
            "steps": str(self.step),
            "licence": "MIT",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata=metadata)


def commit() -> str:
    """The commit this code is from, with "+" if changed since; "unknown" outside git."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "rev-list", "-1", "HEAD", "--", "."],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "."],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + "+" * bool(changed)


def parse(command: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", required=True, choices=list(STYLES))
    parser.add_argument("--teacher", required=True, type=Path, help="the published network's file")
    parser.add_argument("--photos", required=True, type=Path, help="folder with index.json")
    parser.add_argument("--state", required=True, type=Path, help="folder for state and log")
    parser.add_argument(
        "--cache", type=Path, help="folder for the teacher's pictures [STATE/cache]"
    )
    parser.add_argument("--start", type=Path, help="another style's state.pt to begin from")
    parser.add_argument("--out", type=Path, help="where the finished network is written")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--variants", type=int, default=1300)
    parser.add_argument("--sizes", type=int, nargs=2, default=(400, 960), help="longest sides")
    parser.add_argument("--pixels", type=int, default=100_000, help="most pixels of a variant")
    parser.add_argument("--rate", type=float, default=2e-3, help="steps, of each tensor's size")
    default = Widths()
    parser.add_argument(
        "--widths",
        type=int,
        nargs=4,
        metavar=("FULL", "HALF", "QUARTER", "INNER"),
        default=(default.full, default.half, default.quarter, default.inner),
        help="channels at full, half and quarter size, and inside a residual block",
    )
    parser.add_argument(
        "--blocks", type=int, nargs="+", default=default.blocks, help="the teacher's that are kept"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--look-every", type=int, default=250)
    parser.add_argument("--save-seconds", type=float, default=120)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(command)
    args.cache = args.cache or args.state / "cache"
    return args


def options_of(args: argparse.Namespace, widths: Widths) -> Options:
    """The options in a command line."""
    return Options(
        style=args.style,
        steps=args.steps,
        seed=args.seed,
        rate=args.rate,
        variants=args.variants,
        sizes=tuple(args.sizes),
        pixels=args.pixels,
        widths=widths,
    )


def main() -> None:
    """Train, save, export."""
    args = parse()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    options = options_of(args, Widths(*args.widths, blocks=tuple(args.blocks)))
    run = Run(args, options)
    print(f"{options}\nfrom step {run.step}: held-out {run.held_out_psnr():.2f} dB", flush=True)
    run.train(look_every=args.look_every, save_seconds=args.save_seconds)
    if args.out:
        run.export(args.out)
        print(f"wrote {args.out}", flush=True)


if __name__ == "__main__":
    main()
