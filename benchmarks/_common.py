"""What the benchmarks share: paths, the network, photos, timing and tables."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The published implementation written out line by line (tests/oracle.py); `tests` is no package.
if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))

import numpy as np  # noqa: E402
import oracle  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from animebg_core import Generator, RunPlan, plan_run  # noqa: E402
from animebg_core.engine.plan import Level, peak_bytes  # noqa: E402
from animebg_core.files.resolve import resolve_weights  # noqa: E402
from animebg_core.network.checkpoint import load_checkpoint, read_state  # noqa: E402

DEMO_PHOTO = ROOT / "docs" / "images" / "demo-photo.jpg"
LEVELS: tuple[Level, ...] = ("whole", "store", "recompute")


@dataclass(frozen=True, slots=True)
class Network:
    """One network as ours (`generator`) and under its published names (`state`, float32, CPU)."""

    generator: Generator
    state: dict[str, Tensor]


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """`--style` and `--weights-dir`."""
    parser.add_argument(
        "--style",
        default="shinkai",
        metavar="KEY_OR_PATH",
        help="a style, a checkpoint, or `random`: random weights of the same shapes",
    )
    parser.add_argument("--weights-dir", metavar="DIR", help="look for networks only here")


def load_network(
    args: argparse.Namespace,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Network:
    """The network that `--style` and `--weights-dir` name."""
    if args.style == "random":
        state = oracle.random_state((64, 128, 256), 8)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "random.safetensors")
            save_file(state, path)
            return Network(load_checkpoint(path, device=device, dtype=dtype), state)
    path = resolve_weights(args.style, weights_dir=args.weights_dir)
    state = {name: tensor.float() for name, tensor in read_state(path).items()}
    return Network(load_checkpoint(path, device=device, dtype=dtype), state)


def size(text: str) -> tuple[int, int]:
    """Height and width in "480x720", for argparse."""
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wanted HEIGHTxWIDTH, got {text!r}") from None


def size_of(megapixels: float) -> tuple[int, int]:
    """Height and width of a 2:3 picture of about so many megapixels, multiples of 4."""
    height = round(math.sqrt(megapixels * 1e6 / 1.5) / 4) * 4
    return height, round(height * 1.5 / 4) * 4


def load_photo(path: Path, height: int, width: int) -> Tensor:
    """A photo at that size: RGB [1, H, W, 3] float32 in [0, 1]."""
    photo = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(photo) / np.float32(255))[None]


def at_level(generator: Generator, level: Level, height: int, width: int) -> RunPlan:
    """The plan of that level with the strips and the prediction that `plan_run` would give it."""
    plan = plan_run(generator, height, width, budget=1 << 60)
    plan = replace(plan, level=level, peak_bytes=0)
    return replace(plan, peak_bytes=peak_bytes(generator, plan, height, width, masked=False))


def one_strip(generator: Generator, height: int, width: int) -> RunPlan:
    """The whole image, uncut."""
    plan = at_level(generator, "whole", height, width)
    plan = replace(plan, rows=height + 3, block_rows=height + 3, peak_bytes=0)
    return replace(plan, peak_bytes=peak_bytes(generator, plan, height, width, masked=False))


def best_times(
    variants: Mapping[str, Callable[[], object]], rounds: int, pause: float = 0.1
) -> dict[str, float]:
    """Seconds of each variant, the best of `rounds`, taken in turn so that all see the same
    machine. One round before them warms up and is not counted. Each begins after a pause, since
    threads of the one before may still spin."""
    best = dict.fromkeys(variants, math.inf)
    for index in range(rounds + 1):
        for name, run in variants.items():
            time.sleep(pause)
            begin = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index:
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


def machine() -> str:
    """What a figure depends on: processor, cores, memory, accelerator."""
    model = platform.machine()
    memory = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
        with open("/proc/meminfo", encoding="ascii") as lines:
            memory = f", {int(next(lines).split()[1]) / 2**20:.0f} GiB"
    except (OSError, StopIteration):
        pass
    vectors = torch.backends.cpu.get_cpu_capability()
    parts = [f"{model} ({vectors}), {os.cpu_count()} cores{memory}"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return "; ".join(parts)


def versions(*others: str) -> str:
    """Python, torch, and those of the named distributions that are installed."""
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", *others):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def print_header(*others: str) -> None:
    """Date, machine and versions."""
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}; {machine()}")
    print(f"{versions(*others)}; {torch.get_num_threads()} threads\n")


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(padded)} |")
    print(flush=True)


def mebibytes(count: float) -> str:
    """Bytes as text in MiB."""
    return f"{count / 2**20:,.0f}"
