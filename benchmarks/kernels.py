"""The forms of each operation that were tried on the CPU: milliseconds, rate and rounding error.

`python benchmarks/kernels.py` takes strips as a 480x720 picture has them, on one thread. Rates
count the multiplications and additions of the direct form; errors are against float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from unittest import mock

import _common
import torch
import torch.nn.functional as F
from animebg_core.engine.convolution import Scratch
from torch import Tensor

from animebg_core.engine import convolution
from animebg_core.engine.statistics import Moments

LAST = torch.channels_last
Forms = dict[str, Callable[[], Tensor]]

# What `convolution` could have used in place of its F(4x4, 3x3) on 0, 1, -1, 1/2, -2.
USUAL_POINTS = {
    "_OUTPUT": ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    "_WEIGHTS": (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    "_INPUT": (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}
SMALL_TILES = {
    "_TILE": 2,
    "_OUTPUT": ((1, 1, 1, 0), (0, 1, -1, -1)),
    "_WEIGHTS": ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    "_INPUT": ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    _common.print_header()
    with torch.inference_mode():
        for title, work, reference, forms in cases():
            best = _common.best_times(forms, args.rounds, pause=0.0)
            slowest = max(best.values())
            rows = [
                [
                    name,
                    f"{seconds * 1e3:.2f}",
                    f"{work / seconds / 1e9:.1f}",
                    f"{slowest / seconds:.2f}",
                    f"{(forms[name]().double() - reference).abs().max().item():.0e}",
                ]
                for name, seconds in best.items()
            ]
            rate = "GB/s" if "statistics" in title else "GFLOP/s"
            _common.print_table([title, "ms", rate, "times as fast", "error"], rows)


def cases() -> Iterator[tuple[str, float, Tensor, Forms]]:
    """Title, operations (or bytes), the float64 result, and the forms."""
    size = 1024
    first, second = torch.randn(size, size), torch.randn(size, size)
    product = first.double() @ second.double()
    yield "matrix product", 2 * size**3, product, {"mm": lambda: first @ second}
    for channels, rows, columns in ((256, 16, 180), (128, 16, 360), (64, 32, 720)):
        yield three_by_three(channels, rows, columns)
    for channels, made, rows, columns in ((256, 128, 8, 180), (128, 64, 16, 360)):
        yield transposed(channels, made, rows, columns)
    yield seven_by_seven(3, 64, 32, 720)
    yield seven_by_seven(64, 3, 32, 720)
    for channels, rows, columns in ((64, 32, 720), (256, 16, 180)):
        yield statistics(channels, rows, columns)


def three_by_three(channels: int, rows: int, columns: int) -> tuple[str, float, Tensor, Forms]:
    """A 3x3 convolution of stride 1 on what a ReLU may have made."""
    window, weight = _data(channels, channels, 3, rows + 2, columns + 2)
    forms = _direct(lambda x, w: F.conv2d(x, w), window, weight)
    for name, rows_of in (
        ("Winograd F(2x2)", SMALL_TILES),
        ("Winograd F(4x4), points 0 1 -1 2 -2", USUAL_POINTS),
        ("Winograd F(4x4), points 0 1 -1 1/2 -2", {"_TILE": 4}),
    ):
        forms[name] = _winograd(window, weight, rows_of)
    work = 2 * 9 * channels**2 * rows * columns
    reference = F.conv2d(window.double(), weight.double())
    return f"3x3, {channels}, {rows}x{columns}", work, reference, forms


def _winograd(window: Tensor, weight: Tensor, other: dict[str, object]) -> Callable[[], Tensor]:
    scratch = Scratch()
    with mock.patch.multiple(convolution, **other):
        run = convolution._winograd(weight, None).run

    def form() -> Tensor:
        with mock.patch.multiple(convolution, **other):
            return run(window, scratch)

    return form


def transposed(
    channels: int, made: int, rows: int, columns: int
) -> tuple[str, float, Tensor, Forms]:
    """A transposed 3x3 convolution that doubles a strip and reads a row and a column beyond it."""
    window, weight = _data(channels, made, 3, rows + 1, columns + 1)
    weight = weight.transpose(0, 1).contiguous()

    def run(x: Tensor, w: Tensor) -> Tensor:
        return F.conv_transpose2d(x, w, stride=2)[:, :, 1 : 2 * rows + 1, 1 : 2 * columns + 1]

    forms = _direct(run, window, weight)
    # An even row (column) of the output reads one of the source, an odd one two.
    taps = ((1,), (2, 0))
    phases = [
        (y, x, weight[:, :, taps[y]][:, :, :, taps[x]].transpose(0, 1).to(memory_format=LAST))
        for y in (0, 1)
        for x in (0, 1)
    ]
    result = torch.empty(1, rows, 2, columns, 2, made)

    def by_phases() -> Tensor:
        for y, x, phase in phases:
            part = F.conv2d(window[:, :, : rows + y, : columns + x], phase)
            result[:, :, y, :, x] = part.permute(0, 2, 3, 1)
        return result.view(1, 2 * rows, 2 * columns, made).permute(0, 3, 1, 2)

    forms["four ordinary ones, by parity"] = by_phases
    title = f"transposed 3x3, {channels} to {made}, {rows}x{columns}"
    work = 2 * 9 * channels * made * rows * columns
    return title, work, run(window.double(), weight.double()), forms


def seven_by_seven(
    channels: int, made: int, rows: int, columns: int
) -> tuple[str, float, Tensor, Forms]:
    """The first and the last convolution."""
    window, weight = _data(channels, made, 7, rows + 6, columns + 6)
    forms = _direct(lambda x, w: F.conv2d(x, w), window, weight)
    if made < 16:
        scratch = Scratch()
        kernel = convolution._narrow(weight, None)
        forms["four pixels at once, channels-last"] = lambda: kernel.run(window, scratch)
    work = 2 * 49 * channels * made * rows * columns
    reference = F.conv2d(window.double(), weight.double())
    return f"7x7, {channels} to {made}, {rows}x{columns}", work, reference, forms


def statistics(channels: int, rows: int, columns: int) -> tuple[str, float, Tensor, Forms]:
    """The second moment of each channel of a strip, channels-last."""
    strip = torch.randn(1, channels, rows, columns).add_(3).to(memory_format=LAST)
    count, scratch = rows * columns, Scratch()
    reference = torch.var(strip.double(), (2, 3), correction=0)
    forms: Forms = {
        "var_mean": lambda: torch.var_mean(strip, (2, 3), correction=0)[0],
        "ours (Moments.of)": lambda: Moments.of(strip, None, scratch).m2 / count,
    }
    return f"statistics, {channels}, {rows}x{columns}", strip.numel() * 4, reference, forms


def _data(channels: int, made: int, kernel: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    window = torch.randn(1, channels, rows, columns).to(memory_format=LAST)
    if channels > 3:
        window.relu_()
    return window, torch.randn(made, channels, kernel, kernel) / (kernel * channels**0.5)


def _direct(run: Callable[[Tensor, Tensor], Tensor], window: Tensor, weight: Tensor) -> Forms:
    planes, flat = window.contiguous(), weight.contiguous()
    last = weight.to(memory_format=LAST)
    return {
        "torch, NCHW": lambda: run(planes, flat),
        "torch, channels-last": lambda: run(window, last),
    }


if __name__ == "__main__":
    main()
