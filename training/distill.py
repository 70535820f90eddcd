"""Train small networks to paint what the published ones paint. See README.md for the commands.

    python -m training.distill --teachers FOLDER --lessons FOLDER --photos FOLDER \
        --published FOLDER --state FOLDER
    python -m training.distill ... --style kon --start STATE.pt --maps 0 --out FILE

Without `--style`, all four are trained as one network, whose convolutions they share; norms,
biases and the last convolution are each one's own. With it, one of them goes on alone. State is
saved every few minutes, and the same command goes on from it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from animebg_core import STYLES
from animebg_core.files.whole import part_file, whole_file
from animebg_core.network.checkpoint import published_names
from animebg_core.network.design import Stage, lite_table, stage_table
from animebg_core.training.data import to_input
from animebg_core.training.loop import Progress, Training, read_state
from animebg_core.training.losses import far_loss, felt_picture, picture_loss, spike_loss
from animebg_core.training.network import exported, run_maps

from .evaluate import Published
from .gather import photos
from .teach import DEPTHS, DIRECTIONS, STYLE_KEYS, Lessons, style_of


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of the maps at full, half and quarter size and inside a residual block; blocks.

    No channels at full size: the design of `lite_table`, which has no map there. Otherwise it is
    the published one, narrower.
    """

    full: int = 0
    half: int = 32
    quarter: int = 64
    inner: int = 64
    blocks: int = 8

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The table."""
        return (stage_table if self.full else lite_table)(self.blocks)


@dataclass(frozen=True, slots=True)
class Options:
    """What the result depends on, apart from the lessons and the start."""

    styles: tuple[str, ...]
    steps: int
    seed: int
    rate: float
    maps: float
    widths: Widths


def fresh_tensors(widths: Widths) -> dict[str, Tensor]:
    """A network before training: canonical names, float32."""
    by_shrink = {1: widths.full, 2: widths.half, 4: widths.quarter}
    tensors: dict[str, Tensor] = {}
    channels = 3
    for stage in widths.stages:
        for index, conv in enumerate(stage.convs):
            outputs = widths.inner if stage.name.endswith("a") else by_shrink[stage.shrink]
            if not stage.norm:
                outputs = 12 if conv.shuffled else 3
            shape = (channels, outputs) if conv.transposed else (outputs, channels)
            deviation = (channels * conv.kernel**2) ** -0.5
            weight = torch.randn(*shape, conv.kernel, conv.kernel) * deviation
            tensors[f"{stage.name}.{index}.weight"] = weight
            tensors[f"{stage.name}.{index}.bias"] = torch.zeros(outputs)
            channels = outputs
        if stage.norm:
            # A block begins by changing little.
            scale = 0.3 if stage.adds.startswith(("down", "block")) else 1.0
            tensors[f"{stage.name}.scale"] = torch.full((channels,), scale)
            tensors[f"{stage.name}.shift"] = torch.zeros(channels)
    return tensors


def is_shared(name: str) -> bool:
    """Whether the four styles have a tensor in common while they are trained together."""
    return name.endswith(".weight") and not name.startswith("output")


def matched_stages(stages: tuple[Stage, ...]) -> tuple[str, ...]:
    """The stages whose maps are held against the published network's, one for each of `DEPTHS`."""
    inner = [stage.name for stage in stages if stage.shrink == 4]
    carried = [name for name in inner if not name.endswith("a")]
    blocks = len(carried) - 1
    return tuple(carried[math.ceil(blocks * part / 8)] for part in (0, 3, 6, 8))


def rate_at(step: int, options: Options) -> float:
    """The learning rate: a short rise, level, and over the last 60% a straight fall to nothing.

    Together it does not fall, since each style goes on alone.
    """
    rate = options.rate * min(1.0, (step + 1) / 100)
    if len(options.styles) > 1:
        return rate
    return rate * min(1.0, (1 - step / options.steps) / 0.6)


class Run(Training):
    """A network in training, or four that share one."""

    def __init__(self, args: argparse.Namespace, options: Options) -> None:
        self.options = options
        self.lessons = Lessons(args.lessons)
        self.stages = options.widths.stages
        self.matched = matched_stages(self.stages)
        self.published = Published(args.teachers, args.published)
        self.held_out = photos(args.photos, "holdout")[:: args.every]
        device, folder, start = torch.device(args.device), args.state, args.start
        found = read_state(folder, device)
        if found:
            self._check_options(folder, found["options"])
            values = found["values"]
        else:
            values = self._started(start, device) if start else self._new(device)
        super().__init__(folder, values, device=device)
        if found:
            self.take(found)

    def _check_options(self, folder: Path, before: dict[str, Any]) -> None:
        """A run goes on as it began, but for the number of steps."""
        now = asdict(self.options)
        other = [name for name in now if name != "steps" and before.get(name) != now[name]]
        if other:
            was = ", ".join(f"{name} {before.get(name)}, not {now[name]}" for name in other)
            raise SystemExit(f"{folder} holds a run of {was}: name another --state")

    def _new(self, device: torch.device) -> dict[str, Tensor]:
        torch.manual_seed(self.options.seed)
        values: dict[str, Tensor] = {}
        for name, value in fresh_tensors(self.options.widths).items():
            if is_shared(name):
                values[name] = value
            else:
                values |= {f"{style}:{name}": value.clone() for style in self.options.styles}
        for depth in range(len(DEPTHS)):
            weight = torch.randn(DIRECTIONS, self.options.widths.quarter) * 0.05
            for style in self.options.styles:
                values[f"{style}:reads.{depth}.weight"] = weight.clone()
                values[f"{style}:reads.{depth}.bias"] = torch.zeros(DIRECTIONS)
        return {name: value.to(device) for name, value in values.items()}

    def _started(self, start: Path, device: torch.device) -> dict[str, Tensor]:
        """What another run ended with, or the network in a file that `export` wrote."""
        if start.suffix != ".safetensors":
            return self._own(torch.load(start, map_location=device)["average"])
        (style,) = self.options.styles  # a file is one style's
        tensors = load_file(start, device=str(device))
        own = {n if is_shared(n) else f"{style}:{n}": t.float() for n, t in tensors.items()}
        fresh = self._new(device)
        if {n: t.shape for n, t in (fresh | own).items()} != {n: t.shape for n, t in fresh.items()}:
            raise SystemExit(f"{start} is a network of other widths: see --widths")
        return fresh | own

    def _own(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the styles of this run need of another run's tensors."""
        return {
            name: value
            for name, value in values.items()
            if ":" not in name or name.split(":")[0] in self.options.styles
        }

    def tensors(self, values: Mapping[str, Tensor], style: str) -> dict[str, Tensor]:
        """A style's network, and its `reads`, by their names without the style."""
        return {
            name.removeprefix(f"{style}:"): value
            for name, value in values.items()
            if ":" not in name or name.startswith(f"{style}:")
        }

    def state(self) -> dict[str, Any]:
        """See `Training`."""
        return super().state() | {"options": asdict(self.options)}

    def save(self) -> None:
        """The state, and the history as a table that others read."""
        super().save()
        with whole_file(self.folder / "history.json") as file:
            file.write(json.dumps(self.history, indent=1).encode())

    def choose(self, step: int) -> int:
        """The lesson of a step: any that is there, of this run's styles; waits for the first."""
        draw = random.Random(f"{self.options.seed} {step}")
        style = self.options.styles[step % len(self.options.styles)]
        place = STYLE_KEYS.index(style)
        while not self.lessons.path(place).exists():
            print(f"waiting for {self.lessons.path(place)}, from training.teach", flush=True)
            time.sleep(10)
        count = (self.lessons.count() - place - 1) // len(STYLE_KEYS) + 1
        return draw.randrange(count) * len(STYLE_KEYS) + place

    def map_loss(
        self, maps: Mapping[str, Tensor], network: Mapping[str, Tensor], carried: Tensor
    ) -> Tensor:
        """Mean squared error of what can be read, linearly, of the carried maps."""
        losses = []
        for depth, name in enumerate(self.matched):
            weight = network[f"reads.{depth}.weight"][:, :, None, None].to(torch.bfloat16)
            read = F.conv2d(maps[name], weight).float() + network[f"reads.{depth}.bias"].view(
                1, -1, 1, 1
            )
            losses.append((read - carried[depth]).square().mean())
        return torch.stack(losses).mean()

    def train_step(self) -> tuple[float, float, float]:
        """One step; the loss of the picture, of the maps and of the spikes."""
        rate = rate_at(self.step, self.options)
        number = self.choose(self.step)
        lesson = self.lessons.load(number)
        style = style_of(number)
        network = self.tensors(self.values, style)
        photo, picture, carried = (
            side.to(self.device)
            for side in (to_input(lesson.photo), to_input(lesson.picture), lesson.carried)
        )
        if random.Random(f"mirror {self.options.seed} {self.step}").random() < 0.5:
            # The networks' strides put a grid of 4 pixels on a picture, from its first column on:
            # cut so that the grid comes to lie on itself.
            photo, picture = photo.flip(3)[..., 3:-1], picture.flip(3)[..., 3:-1]
            carried = carried.flip(3)[..., :-1]
        maps = run_maps(self.stages, network, photo)
        pictures = picture_loss(felt_picture(maps), picture)
        spikes = spike_loss(self.stages, maps, photo)
        loss = pictures + 0.05 * far_loss(maps) + spikes
        matched = torch.zeros(())
        if self.options.maps:
            matched = self.map_loss(maps, network, carried)
            loss = loss + self.options.maps * matched
        self.learn(loss, rate)
        return float(pictures.detach()), float(matched.detach()), float(spikes.detach())

    @torch.no_grad()
    def held_out_psnr(self, style: str) -> float:
        """Mean PSNR in dB of the averaged network on some held-out photographs of 640 pixels."""
        network = self.tensors(self.average, style)
        total = 0.0
        for path in self.held_out:
            pair = self.published.pair(style, path, 640)
            photo, wanted = (to_input(side).to(self.device) for side in pair)
            high, wide = (side // 4 * 4 for side in photo.shape[2:])
            made = run_maps(self.stages, network, photo[:, :, :high, :wide])["output"]
            error = (made - wanted[:, :, :high, :wide]) / 2
            total += float(-10 * error.square().mean().log10())
        return total / len(self.held_out)

    def look(self) -> dict[str, float]:
        """Decibels of each style on held-out photographs."""
        return {style: self.held_out_psnr(style) for style in self.options.styles}

    def train(self, *, look_every: int, save_seconds: float) -> None:
        """To the last step, with progress, looks at held-out photographs, and saved states."""
        tell = teller(
            self.options.steps,
            "held-out dB",
            ("picture", "maps", "spikes"),
            lambda: f", {self.lessons.count()} lessons",
        )
        self.go(self.options.steps, look_every=look_every, save_seconds=save_seconds, tell=tell)

    def export(self, style: str, path: Path) -> None:
        """The averaged network in float16, with its origin in the metadata."""
        names = published_names(self.options.widths.blocks) if self.options.widths.full else {}
        own = self.tensors(self.average, style)
        kept = {name: tensor for name, tensor in own.items() if not name.startswith("reads")}
        tensors = exported(self.stages, kept, names)
        metadata = {
            "format": "pt",
            "style": f"{style}-lite",
            "teacher": STYLES[style].file,
            "teacher_sha256": STYLES[style].sha256,
            "training_commit": commit(),
            "seed": str(self.options.seed),
            "steps": str(self.step),
            "licence": "MIT",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with part_file(path) as part:
            save_file(tensors, part, metadata=metadata)


def teller(
    steps: int, looked: str, losses: Sequence[str], beside: Callable[[], str] = str
) -> Callable[[Progress], None]:
    """Prints what each look found, and every 20 seconds where a training is.

    Args:
        steps: in all.
        looked: what a look finds.
        losses: their names.
        beside: more to say.
    """
    shown = time.monotonic()

    def tell(now: Progress) -> None:
        nonlocal shown
        if now.looked:
            found = ", ".join(f"{name} {value:.3f}" for name, value in now.looked.items())
            print(f"step {now.step}: {looked} {found}", flush=True)
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            means = " ".join(f"{n} {v:.4f}" for n, v in zip(losses, now.losses, strict=True))
            left = now.pace * (steps - now.step) / 60
            print(
                f"{now.step}/{steps} {means}{beside()}, {now.pace:.2f} s/step, {left:.0f} min left",
                flush=True,
            )

    return tell


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--style", choices=list(STYLES), help="one alone, instead of all together")
    parser.add_argument("--teachers", required=True, type=Path, help="the published networks")
    parser.add_argument("--lessons", required=True, type=Path, help="folder, from training.teach")
    parser.add_argument("--photos", required=True, type=Path, help="folder with index.json")
    parser.add_argument("--published", required=True, type=Path, help="held-out paintings, kept")
    parser.add_argument("--state", required=True, type=Path, help="folder for state and log")
    parser.add_argument(
        "--start", type=Path, help="another run's state.pt, or one style's .safetensors"
    )
    parser.add_argument("--out", type=Path, help="where the finished network is written")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--rate", type=float, default=0.002, help="of a weight's size, a step")
    parser.add_argument("--maps", type=float, default=0.5, help="weight of the carried maps")
    default = Widths()
    parser.add_argument(
        "--widths",
        type=int,
        nargs=5,
        metavar=("FULL", "HALF", "QUARTER", "INNER", "BLOCKS"),
        default=(default.full, default.half, default.quarter, default.inner, default.blocks),
        help="channels at full, half and quarter size and inside a residual block; blocks; "
        "0 at full size is the small design, otherwise the published one",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=6, help="look at every n-th held-out one")
    parser.add_argument("--look-every", type=int, default=1000)
    parser.add_argument("--save-seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(command)
    if args.out and not args.style:
        parser.error("--out writes one style: name it with --style")
    if args.start and args.start.suffix == ".safetensors" and not args.style:
        parser.error(f"{args.start} is one style's network: name it with --style")
    return args


def options_of(args: argparse.Namespace) -> Options:
    """The options in a command line."""
    return Options(
        styles=(args.style,) if args.style else STYLE_KEYS,
        steps=args.steps,
        seed=args.seed,
        rate=args.rate,
        maps=args.maps,
        widths=Widths(*args.widths),
    )


def main() -> None:
    """Train, save, export."""
    args = parse()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    options = options_of(args)
    run = Run(args, options)
    print(f"{options}\nfrom step {run.step}", flush=True)
    run.train(look_every=args.look_every, save_seconds=args.save_seconds)
    if args.out:
        run.export(options.styles[0], args.out)
        print(f"wrote {args.out}", flush=True)


if __name__ == "__main__":
    main()
