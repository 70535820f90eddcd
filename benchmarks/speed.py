"""Seconds of ours at every level and of the baselines, interleaved in one process.

`python -m benchmarks.speed` takes 480x720; baselines that are not installed are left out
(`pip install onnx onnxruntime openvino`). With `--profile` the default plan's operators
are listed instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from animebg_core import plan_run

from . import _baselines, _common


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    _common.add_network_arguments(parser)
    parser.add_argument("--size", type=_common.size, default=(480, 720), metavar="HxW")
    parser.add_argument("--rounds", type=int, default=3, help="best of so many (default: 3)")
    parser.add_argument("--threads", type=int, help="of torch and of the baselines")
    parser.add_argument("--photo", type=Path, default=_common.DEMO_PHOTO)
    parser.add_argument("--profile", action="store_true", help="list the default plan's operators")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    height, width = args.size
    network = _common.load_network(args)
    generator, state = network.generator, network.state
    image = _common.load_photo(args.photo, height, width)
    _common.print_header("onnxruntime", "openvino")
    default = plan_run(generator, height, width)
    print(f"{height}x{width}, default: {default}\n")
    if args.profile:
        _print_profile(_baselines.ours(generator, default), image)
        return

    variants = {
        "published implementation": _baselines.published(state),
        "the suite's reference": _baselines.suite(state),
        "F.instance_norm, whole image": _baselines.instance_norm(state),
        **_installed(state, image),
        "ours, one strip": _baselines.ours(generator, _common.one_strip(generator, height, width)),
        **{
            f"ours, {level}": _baselines.ours(
                generator, _common.at_level(generator, level, height, width)
            )
            for level in _common.LEVELS
        },
        "ours, default": _baselines.ours(generator, default),
    }
    reference = variants["published implementation"](image)
    errors = {
        name: 2 * (run(image) - reference).abs().max().item() for name, run in variants.items()
    }
    best = _common.best_times(
        {name: lambda run=run: run(image) for name, run in variants.items()}, args.rounds
    )
    original = best["published implementation"]
    rows = [
        [name, f"{seconds:.2f}", f"{original / seconds:.2f}", f"{errors[name]:.1e}"]
        for name, seconds in best.items()
    ]
    print(f"best of {args.rounds}, taken in turn; difference: largest, in [-1, 1]\n")
    _common.print_table(["run as", "s", "times as fast as published", "difference"], rows)
    for uncut in ("ours, one strip", "ours, whole"):
        print(f"ours, store against {uncut}: {best['ours, store'] / best[uncut] - 1:+.1%}")


def _installed(state: dict[str, Tensor], image: Tensor) -> dict[str, _baselines.Run]:
    """The baselines of other runtimes, as far as they are installed."""
    found: dict[str, _baselines.Run] = {}
    factories: dict[str, Callable[[dict[str, Tensor]], _baselines.Run]] = {
        "ONNX Runtime": _baselines.onnxruntime,
        "OpenVINO": _baselines.openvino,
    }
    for name, factory in factories.items():
        try:
            run = factory(state)
        except ImportError as error:
            print(f"{name} left out: {error}")
            continue
        run(image)
        found[name] = run
    return found


def _print_profile(run: _baselines.Run, image: Tensor) -> None:
    from torch.profiler import ProfilerActivity, profile

    run(image)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run(image)
    averages = profiler.key_averages()
    print(averages.table(sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=40))


if __name__ == "__main__":
    main()
