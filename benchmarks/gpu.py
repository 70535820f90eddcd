"""On an NVIDIA GPU: frames per second at 1080p, share of the peak, memory at 1, 8 and 33 MP, and
the ways of running that are off until somebody has measured them (ANIMEBG_UNMEASURED).

`python -m benchmarks.gpu`, with `--style random` where no network is at hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from animebg_core import gather_statistics, plan_run, stylize
from animebg_core.engine.schedule import total_work

from . import _baselines, _common

FRAME = (1080, 1920)
SIZES = {1: (816, 1224), 8: (2160, 3840), 33: (4320, 7680)}
LARGE, LITTLE = (8660, 11547), 4 << 30
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    _common.add_network_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tf32", action="store_true", help="let fp32 convolutions use TF32")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return 1
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.tf32
    _common.print_header()
    print(f"TF32 {'on' if args.tf32 else 'off'}\n")
    _print_speed(args)
    print("predicted: against the peak; reserved: what the allocator held, in MiB\n")
    _print_memory(args)
    _print_unmeasured(args)
    return 0


def _print_speed(args: argparse.Namespace) -> None:
    height, width = FRAME
    image = torch.rand(1, height, width, 3, device="cuda")
    variants: dict[str, Callable[[], Tensor]] = {}
    work: dict[str, int] = {}
    plans: dict[str, str] = {}
    for name, dtype in DTYPES.items():
        generator = _common.load_network(args, "cuda", dtype).generator
        plan = plan_run(generator, height, width)
        forms = {f"ours, {name}": plan}
        forms[f"ours, {name}, one strip"] = _common.one_strip(generator, height, width)
        for key, chosen in forms.items():
            run = _baselines.ours(generator, chosen)
            variants[key] = lambda run=run: run(image)
            # What the picture needs; a plan that computes some of it again gets no credit for that.
            work[key] = 2 * total_work(generator, height, width, "whole")
            plans[key] = str(chosen)
    state = {name: tensor.cuda() for name, tensor in _common.load_network(args).state.items()}
    for name, factory in (
        ("published implementation, fp32", _baselines.published),
        ("F.instance_norm, fp32", _baselines.instance_norm),
    ):
        run = factory(state)
        variants[name] = lambda run=run: run(image)
        work[name] = work["ours, fp32"]
    best = _common.best_times(variants, args.rounds)
    peak = {name: _matmul_rate(dtype) for name, dtype in DTYPES.items()}
    for name, rate in peak.items():
        print(f"matrix product 8192^3 {name}: {rate / 1e12:.0f} TFLOP/s")
    print()
    rows = []
    for key, seconds in best.items():
        rate = work[key] / seconds
        of = peak["fp16" if "fp16" in key else "fp32"]
        published = best["published implementation, fp32"] / seconds
        rows.append(
            [
                key,
                f"{1 / seconds:.1f}",
                f"{published:.2f}",
                f"{rate / 1e12:.1f}",
                f"{rate / of:.0%}",
            ]
        )
    header = ["1080x1920", "frames/s", "times as fast as published", "TFLOP/s", "of the peak"]
    _common.print_table(header, rows)
    for key, plan in plans.items():
        print(f"{key}: {plan}")
    print()


def _matmul_rate(dtype: torch.dtype, size: int = 8192) -> float:
    """Operations a second of a large matrix product, the best of several."""
    first, second = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    best = _common.best_times({"mm": lambda: first @ second}, 10, pause=0.0)
    return 2 * size**3 / best["mm"]


def _print_memory(args: argparse.Namespace) -> None:
    rows = []
    for name, dtype in DTYPES.items():
        generator = _common.load_network(args, "cuda", dtype).generator
        for megapixels, (height, width) in SIZES.items():
            for level in ("default", *_common.LEVELS):
                chosen = (
                    plan_run(generator, height, width)
                    if level == "default"
                    else _common.at_level(generator, level, height, width)
                )
                if chosen.peak_bytes > torch.cuda.mem_get_info()[0]:
                    continue
                image = torch.rand(1, height, width, 3)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                _baselines.ours(generator, chosen)(image)
                taken = torch.cuda.max_memory_allocated() - before
                rows.append(
                    [
                        f"{megapixels} ({height}x{width})",
                        name,
                        chosen.level if level == "default" else level,
                        "yes" if level == "default" else "",
                        _common.mebibytes(taken),
                        f"{taken / (height * width):.0f}",
                        f"{chosen.peak_bytes / taken:.2f}",
                        _common.mebibytes(torch.cuda.max_memory_reserved()),
                    ]
                )
    header = [
        "MP",
        "dtype",
        "level",
        "default",
        "peak MiB",
        "B/px",
        "predicted/peak",
        "reserved MiB",
    ]
    _common.print_table(header, rows)


def _print_unmeasured(args: argparse.Namespace) -> None:
    """Frames from and to main memory under given statistics, as a film has them; and a picture
    whose maps the card does not hold.
    """
    generator = _common.load_network(args, "cuda", torch.float16).generator
    frame = torch.rand(1, *FRAME, 3)
    statistics = gather_statistics([frame], generator)

    def painted(ways: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with _asked_for(ways):
                return stylize(frame, generator, statistics=statistics)

        return run

    best = _common.best_times({ways: painted(ways) for ways in ("", "copies")}, args.rounds)
    rows = [[ways or "as by default", f"{1 / seconds:.1f}"] for ways, seconds in best.items()]
    _common.print_table(["1080x1920, fp16, statistics given", "frames/s"], rows)

    picture, rows = torch.rand(1, *LARGE, 3), []
    for ways in ("host-maps", "copies,host-maps"):
        with _asked_for(ways):
            plan = plan_run(generator, *LARGE, budget=LITTLE)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            best = _common.best_times(
                {"": lambda plan=plan: stylize(picture, generator, plan=plan)}, 1
            )
            taken = torch.cuda.max_memory_allocated() - before
        rows.append([ways, str(plan), f"{best['']:.1f}", _common.mebibytes(taken)])
    _common.print_table(["100 MP, fp16, in 4 GiB", "plan", "s", "peak MiB"], rows)


@contextmanager
def _asked_for(ways: str) -> Iterator[None]:
    os.environ["ANIMEBG_UNMEASURED"] = ways
    try:
        yield
    finally:
        del os.environ["ANIMEBG_UNMEASURED"]


if __name__ == "__main__":
    sys.exit(main())
