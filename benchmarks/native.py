"""The native kernels against torch's own and other runtimes, interleaved in one process.

`python -m benchmarks.native` takes 480x720 with one and with all threads; `--layers` times every
convolution by itself instead, beside the rate of a matrix product. Other runtimes run what
`animebg export` writes, and are left out if they are not installed
(`pip install onnx onnxruntime openvino`).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from animebg_core import Generator, plan_run
from animebg_core.engine import kernels
from animebg_core.engine.device import Device, Scratch
from animebg_core.engine.kernels import native
from animebg_core.engine.schedule import Step, schedule
from animebg_core.engine.statistics import Gathering, Norm
from animebg_core.errors import OptionError
from animebg_core.network import onnx

from . import _baselines, _common

Run = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    _common.add_network_arguments(parser)
    parser.add_argument(
        "--sizes", nargs="*", type=_common.size, default=[(480, 720)], metavar="HxW"
    )
    parser.add_argument("--threads", nargs="*", type=int, default=[1, torch.get_num_threads()])
    parser.add_argument("--rounds", type=int, default=3, help="best of so many (default: 3)")
    parser.add_argument("--photo", type=Path, default=_common.DEMO_PHOTO)
    parser.add_argument("--layers", action="store_true", help="every convolution by itself")
    args = parser.parse_args()
    network = _common.load_network(args)
    _common.print_header("onnxruntime", "openvino")
    print(f"native kernels: {native.instruction_set()}")
    for threads in dict.fromkeys(args.threads):
        torch.set_num_threads(threads)
        print(f"\n{threads} threads, matrix product {product_rate() / 1e9:.0f} GFLOP/s\n")
        for size in args.sizes:
            if args.layers:
                print_layers(network.generator, size, args.rounds)
            else:
                print_runs(network, args.photo, size, args.rounds)


def product_rate(side: int = 512) -> float:
    """Floating-point operations a second in torch's own matrix product."""
    a, made = torch.randn(side, side), torch.empty(side, side)
    seconds = _common.best_times({"": lambda: torch.mm(a, a, out=made)}, 20, pause=0)
    return 2 * side**3 / seconds[""]


def _without() -> AbstractContextManager[object]:
    """Within it there are none."""
    return mock.patch.object(native, "_library", lambda: None)


def print_runs(network: _common.Network, photo: Path, size: tuple[int, int], rounds: int) -> None:
    """Whole pictures: seconds, and how far from float64."""
    height, width = size
    image = _common.load_photo(photo, height, width)
    generator = network.generator
    torchs = copy.deepcopy(generator)
    with _without():
        kernels.choose(torchs, Device.of(torchs))  # kept for this generator from now on
        plan = plan_run(torchs, height, width)
    by_torch = _baselines.ours(torchs, plan)

    def torchs_only(image: Tensor) -> Tensor:
        with _without():
            return by_torch(image)

    variants: dict[str, Run] = {
        "published implementation": _baselines.published(network.state),
        **dict(_runtimes(generator)),
        "ours, torch's kernels": torchs_only,
        "ours, native kernels": _baselines.ours(generator, plan_run(generator, height, width)),
    }
    exact = _common.oracle.stylize(network.state, image)
    errors = {name: 2 * (run(image) - exact).abs().max().item() for name, run in variants.items()}
    best = _common.best_times(
        {name: lambda run=run: run(image) for name, run in variants.items()}, rounds
    )
    first = best["published implementation"]
    rows = [
        [name, f"{seconds:.2f}", f"{first / seconds:.2f}", f"{errors[name]:.1e}"]
        for name, seconds in best.items()
    ]
    print(f"{height}x{width}: best of {rounds}; difference: from float64, in [-1, 1]\n")
    _common.print_table(["run as", "s", "times as fast as published", "difference"], rows)


def _runtimes(generator: Generator) -> Iterator[tuple[str, Run]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "style.onnx"
        try:
            onnx.export(generator, path)
        except OptionError as error:
            print(f"ONNX Runtime and OpenVINO left out: {error}")
            return
        model = path.read_bytes()
    for name, factory in (("ONNX Runtime", _onnxruntime), ("OpenVINO", _openvino)):
        try:
            yield name, factory(model)
        except ImportError as error:
            print(f"{name} left out: {error}")


def _onnxruntime(model: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _planes(lambda x: session.run(None, {"image": x.numpy()})[0])


def _openvino(model: bytes) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled: dict[tuple[int, ...], Callable[..., dict[int, object]]] = {}

    def run(x: Tensor) -> object:
        shape = tuple(x.shape)
        if shape not in compiled:
            network = core.read_model(model)
            network.reshape(list(shape))
            compiled[shape] = core.compile_model(network, "CPU", settings)
        return compiled[shape](x.numpy())[0]

    return _planes(run)


def _planes(run: Callable[[Tensor], object]) -> Run:
    """From NCHW, as models take it, to pictures."""
    return lambda image: torch.as_tensor(run(image.permute(0, 3, 1, 2).contiguous())).permute(
        0, 2, 3, 1
    )


class _Map:
    """A map in memory, as a source of rows."""

    def __init__(self, data: Tensor) -> None:
        self.data = data
        self.height, self.width = data.shape[2:]

    def rows(self, start: int, stop: int) -> Tensor:
        return self.data[:, :, start:stop]


def print_layers(generator: Generator, size: tuple[int, int], rounds: int) -> None:
    """Milliseconds of each convolution, its rate by the direct form's operations against that of a
    matrix product, and the bytes a second of the maps that it reads and writes."""
    rate, chosen = product_rate(), kernels.choose(generator, Device.of(generator))
    seen: dict[tuple[object, ...], Step] = {}
    for sweep in schedule(generator, *size, "store"):
        for step in sweep.steps:
            seen.setdefault((step.conv, step.inputs, step.outputs, step.size), step)
    rows = []
    for step in seen.values():
        run, count = _layer(chosen[step.stage.name, step.index], step)
        (seconds,) = _common.best_times({"": run}, rounds, pause=0).values()
        rows.append(
            [
                f"{step.stage.name}.{step.index}: {step.inputs} to {step.outputs}",
                f"{seconds * 1e3:.1f}",
                f"{2 * step.work / seconds / 1e9:.0f}",
                f"{2 * step.work / seconds / rate:.2f}",
                f"{count / seconds / 1e9:.1f}",
            ]
        )
    head = ["convolution", "ms", "GFLOP/s", "of the product's rate", "GB/s"]
    _common.print_table(head, rows)


def _layer(kernel: kernels.Kernel, step: Step) -> tuple[Callable[[], None], int]:
    """One convolution over a whole map, and the bytes of the maps that it reads and writes."""
    source = torch.randn(1, step.inputs, *step.source)
    source = source.contiguous(memory_format=torch.channels_last)
    out = torch.empty(1, step.outputs, *step.size).contiguous(memory_format=torch.channels_last)
    norm, scratch = None, Scratch(torch.device("cpu"))
    if step.before is not None:
        norm = Norm(torch.ones(1, step.inputs, 1, 1), torch.zeros(1, step.inputs, 1, 1))

    def run() -> None:
        made = kernel.open(_Map(source), step, norm, scratch)
        gathering = Gathering(-(-out.shape[2] // 32)) if step.is_last and step.stage.norm else None
        for start in range(0, out.shape[2], 32):
            part = out[:, :, start : start + 32]
            made.store(start, start + part.shape[2], part, None, gathering)

    return run, 4 * (source.numel() + out.numel())


if __name__ == "__main__":
    with torch.inference_mode():
        main()
