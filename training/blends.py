"""Train the four small networks together, so that what lies between them paints between them.

    python -m training.blends --photos FOLDER --state FOLDER --steps 3000 --out FOLDER

A mean of weights paints what none of its parts does where these cancel, each in its own way, what
lies far from all else: dark flat places. Here each network goes on painting what it painted, and
the mean of any of them is held to the mean of their paintings: the networks become linearly
connected (Frankle and others, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML
2020). State is saved every few minutes, and the same command goes on from it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from animebg_core import LITE_STYLES, load_generator
from animebg_core.files.resolve import resolve_weights
from animebg_core.files.whole import part_file
from animebg_core.network.design import Stage
from animebg_core.training.data import (
    cut,
    scaled,
    to_input,
    variants,
    with_islands,
    with_shadow,
)
from animebg_core.training.loop import Training, read_state
from animebg_core.training.losses import far_loss, felt_picture, picture_loss, spike_loss
from animebg_core.training.network import exported, run_maps

from .distill import commit, teller
from .gather import photos

KEYS = tuple(LITE_STYLES)
ALONE = 2.0  # what a network alone counts, against a blend


def drawn_parts(draw: random.Random) -> dict[str, float]:
    """Which networks are mixed, and how much of each: two of them, or three or four."""
    count = draw.choice((2, 2, 2, 2, 3, 4))
    amounts = [draw.uniform(0.15, 0.85) for _ in range(count)]
    return dict(zip(draw.sample(KEYS, count), (a / sum(amounts) for a in amounts), strict=True))


class Blends(Training):
    """The four networks, and what they painted before."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.seed, self.steps, self.rate = args.seed, args.steps, args.rate
        starts = [args.start / LITE_STYLES[key].file if args.start else key for key in KEYS]
        self.files = {key: resolve_weights(start) for key, start in zip(KEYS, starts, strict=True)}
        self.origin = {
            "seed": str(args.seed),
            "rate": str(args.rate),
            **{
                key: hashlib.sha256(file.read_bytes()).hexdigest()
                for key, file in self.files.items()
            },
        }
        self.before = {key: load_generator(file) for key, file in self.files.items()}
        self.stages: tuple[Stage, ...] = self.before[KEYS[0]].stages
        values = {
            f"{key}:{name}": tensor.float()
            for key in KEYS
            for name, tensor in self.before[key].named_parameters()
        }
        super().__init__(args.state, values, device=torch.device("cpu"))
        found = read_state(args.state, self.device)
        if found:
            before: Mapping[str, str] = found["origin"]
            if other := [name for name, now in self.origin.items() if before[name] != now]:
                raise SystemExit(
                    f"{args.state} holds a run of other {', '.join(other)}: name another --state, "
                    "or the networks that it was begun with by --start"
                )
            self.take(found)
        paths = photos(args.photos, "train")
        self.pictures = variants(paths, self.steps, self.seed)
        self.held_out = photos(args.photos, "holdout")[:: args.every]
        self.threads = ThreadPoolExecutor(2)

    def state(self) -> dict[str, Any]:
        """See `Training`."""
        return super().state() | {"origin": self.origin}

    def of(self, values: Mapping[str, Tensor], key: str) -> dict[str, Tensor]:
        """One network of the four."""
        start = f"{key}:"
        return {n.removeprefix(start): v for n, v in values.items() if n.startswith(start)}

    def mixed(self, values: Mapping[str, Tensor], parts: Mapping[str, float]) -> dict[str, Tensor]:
        """The mean of some."""
        networks = [(self.of(values, key), share) for key, share in parts.items()]
        return {
            name: torch.stack([network[name] * share for network, share in networks]).sum(0)
            for name in networks[0][0]
        }

    @torch.no_grad()
    def painted(self, key: str, photo: Tensor) -> Tensor:
        """What a network painted before."""
        tensors = dict(self.before[key].named_parameters())
        return run_maps(self.stages, tensors, photo, torch.float32)["output"]

    def loss(self, network: Mapping[str, Tensor], photo: Tensor, wanted: Tensor) -> Tensor:
        """How far a network is from a picture, with what keeps its maps in order."""
        maps = run_maps(self.stages, network, photo, torch.float32)
        near = picture_loss(felt_picture(maps), wanted)
        return near + 0.05 * far_loss(maps) + spike_loss(self.stages, maps, photo)

    def train_step(self) -> tuple[float, float]:
        """One step: a blend, and one of its networks alone; the loss of each."""
        draw = random.Random(f"blend {self.seed} {self.step}")
        pixels = cut(self.pictures[self.step])
        kind = draw.random()
        if kind < 0.4:
            pixels = with_shadow(pixels, draw.randrange(1 << 31))
        elif kind < 0.6:
            pixels = with_islands(pixels, draw.randrange(1 << 31))
        photo, parts = to_input(pixels), drawn_parts(draw)
        alone = draw.choice(list(parts))
        waiting = {key: self.threads.submit(self.painted, key, photo) for key in parts}
        before = {key: found.result() for key, found in waiting.items()}
        wanted = torch.stack([before[key] * share for key, share in parts.items()]).sum(0)
        # Two graphs at once, each on one thread, are faster than two threads in one.
        jobs = [
            self.threads.submit(self._graded, parts, photo, wanted),
            self.threads.submit(self._graded, {alone: 1.0}, photo, before[alone]),
        ]
        blend, one = (job.result() for job in jobs)
        rate = min(1.0, (self.step + 1) / 50, (1 - self.step / self.steps) / 0.6)
        self.learn(blend + ALONE * one, self.rate * rate)
        return float(blend.detach()), float(one.detach())

    def _graded(self, parts: Mapping[str, float], photo: Tensor, wanted: Tensor) -> Tensor:
        """The loss, of which the gradient is known already."""
        own = {
            name: value.detach().requires_grad_()
            for name, value in self.values.items()
            if name.split(":")[0] in parts
        }
        loss = self.loss(self.mixed(own, parts), photo, wanted)
        found = torch.autograd.grad(loss, list(own.values()))
        terms = [(self.values[name] * grad).sum() for name, grad in zip(own, found, strict=True)]
        linear = torch.stack(terms).sum()
        return linear + (loss.detach() - linear.detach())

    @torch.no_grad()
    def look(self) -> dict[str, float]:
        """Loss of the blends at a half, and decibels of each alone, on held-out photographs."""
        halves: list[float] = []
        alone: dict[str, list[float]] = {key: [] for key in KEYS}
        for number, path in enumerate(self.held_out):
            pixels = with_shadow(np.asarray(scaled(path, 400)), number)
            high, wide = (side // 4 * 4 for side in pixels.shape[:2])
            photo = to_input(pixels[:high, :wide])
            before = {key: self.painted(key, photo) for key in KEYS}
            for key in KEYS:
                made = run_maps(self.stages, self.of(self.average, key), photo, torch.float32)
                error = ((made["output"] - before[key]) / 2).square().mean()
                alone[key].append(float(-10 * error.log10()))
            for i, one in enumerate(KEYS):
                for other in KEYS[:i]:
                    mixed = self.mixed(self.average, {one: 0.5, other: 0.5})
                    made = run_maps(self.stages, mixed, photo, torch.float32)["output"]
                    halves.append(float(picture_loss(made, (before[one] + before[other]) / 2)))
        return {"blends": float(np.mean(halves))} | {
            key: float(np.mean(values)) for key, values in alone.items()
        }

    def train(self, *, look_every: int, save_seconds: float) -> None:
        """To the last step, with progress and saved states."""
        tell = teller(self.steps, "held-out", ("blends", "alone"))
        self.go(self.steps, look_every=look_every, save_seconds=save_seconds, tell=tell)

    def export(self, folder: Path) -> None:
        """The four averaged networks in float16, with their origin and this in the metadata.

        Each is levelled for itself. Their factors differ by some per cent, so that a half of one
        and a half of another come to be 0.49 and 0.51.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for key in KEYS:
            with safe_open(self.files[key], "pt") as file:  # pyright: ignore
                metadata = file.metadata()
            metadata |= {
                "blends_commit": commit(),
                "blends_seed": str(self.seed),
                "blends_steps": str(self.step),
            }
            with part_file(folder / LITE_STYLES[key].file) as part:
                tensors = exported(self.stages, self.of(self.average, key), {})
                save_file(tensors, part, metadata=metadata)


def parse(command: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", required=True, type=Path, help="folder with index.json")
    parser.add_argument("--state", required=True, type=Path, help="folder for the state")
    parser.add_argument("--start", type=Path, help="a folder of four networks [the shipped ones]")
    parser.add_argument("--out", type=Path, help="folder for the finished networks")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=0.0015, help="of a weight's size, a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=8, help="look at every n-th held-out one")
    parser.add_argument("--look-every", type=int, default=250)
    parser.add_argument("--save-seconds", type=float, default=120)
    return parser.parse_args(command)


def main() -> None:
    """Train, save, export."""
    args = parse()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run = Blends(args)
    print(f"from step {run.step}, {len(run.held_out)} held-out photographs", flush=True)
    if not run.step:
        print(f"before: {run.look()}", flush=True)
    run.train(look_every=args.look_every, save_seconds=args.save_seconds)
    if args.out:
        run.export(args.out)


if __name__ == "__main__":
    main()
