"""One run in a process of its own, so that its peak memory is its own: JSON on the last line.

`python -m benchmarks._measure VARIANT HEIGHT WIDTH PHOTO STYLE [WEIGHTS_DIR]`; called by `measure`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Levels of ours, with float32 or fp16 maps; uncut; the command on a PNG; the baselines of torch.
VARIANTS = (
    "default",
    "one-strip",
    "whole",
    "store",
    "recompute",
    "store-fp16",
    "recompute-fp16",
    "cli",
    "published",
    "suite",
    "instance_norm",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes and seconds of one run.

    Attributes:
        total: peak of the process above an interpreter with torch loaded.
        run: peak above the same process with the network and the image, just before the run.
        predicted: what the plan said `run` would be; 0 where there is no plan.
        plan: the plan in words.
        seconds: of the run alone.
    """

    total: int
    run: int
    predicted: int
    plan: str
    seconds: float


def measure(variant: str, height: int, width: int, args: argparse.Namespace) -> Measured:
    """Run `variant` on a picture of that size in a fresh process; `args` name network and photo."""
    command = [sys.executable, "-m", "benchmarks._measure", variant, str(height), str(width)]
    command += [str(args.photo), args.style, *([args.weights_dir] if args.weights_dir else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def status(field: str) -> int:
    """Bytes of a field of Linux's own accounting: VmRSS (now) or VmHWM (the highest so far)."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def _main(
    variant: str, height: int, width: int, photo: Path, style: str, weights_dir: str | None = None
) -> Measured:
    import torch

    base = status("VmRSS")

    from . import _baselines, _common

    args = argparse.Namespace(style=style, weights_dir=weights_dir)
    plan = None
    with tempfile.TemporaryDirectory() as folder:
        if variant == "cli":
            source, target = Path(folder, "in.png"), Path(folder, "out.png")
            _make_png(photo, source, height, width)
            command = ["stylize", str(source), "-o", str(target), "--style", style]
            command += ["--weights-dir", weights_dir] if weights_dir else []
            from animebg_core.cli import main

            before, begin = status("VmRSS"), time.perf_counter()
            assert main(command) == 0
        else:
            kind, _, half = variant.partition("-fp")
            dtype = torch.float16 if half else torch.float32
            network = _common.load_network(args, dtype=dtype)
            image = torch.rand(1, height, width, 3)
            if kind in ("published", "suite", "instance_norm"):
                run = getattr(_baselines, kind)(network.state)
            else:
                generator = network.generator
                plan = {
                    "default": lambda: _common.plan_run(generator, height, width),
                    "one-strip": lambda: _common.one_strip(generator, height, width),
                }.get(kind, lambda: _common.at_level(generator, kind, height, width))()
                run = _baselines.ours(generator, plan)
            del network
            before, begin = status("VmRSS"), time.perf_counter()
            run(image)
        seconds = time.perf_counter() - begin
    peak = status("VmHWM")
    predicted, words = (plan.peak_bytes, str(plan)) if plan else (0, "")
    return Measured(peak - base, peak - before, predicted, words, seconds)


def _make_png(photo: Path, target: Path, height: int, width: int) -> None:
    """In a process of its own too: its memory is not the command's."""
    code = (
        "import sys; from PIL import Image; p, t, w, h = sys.argv[1:];"
        "Image.open(p).convert('RGB').resize((int(w), int(h))).save(t, compress_level=1)"
    )
    command = [sys.executable, "-c", code, str(photo), str(target), str(width), str(height)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    from dataclasses import asdict

    kind, high, wide, *rest = sys.argv[1:]
    print(json.dumps(asdict(_main(kind, int(high), int(wide), *rest))))
