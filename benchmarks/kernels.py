"""The forms of each operation that were tried on the CPU: milliseconds, rate and rounding error.

`python -m benchmarks.kernels` takes strips as a 480x720 picture has them, on one thread. Rates
count the multiplications and additions of the direct form; errors are against float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from animebg_core.engine.device import Device, Scratch
from animebg_core.engine.kernels import Layer, torch_ops
from animebg_core.engine.statistics import chunk
from animebg_core.network.design import Conv
from animebg_core.network.generator import ConvWeights

from . import _common

LAST = torch.channels_last
Forms = dict[str, Callable[[], Tensor]]

CPU = Device(torch.device("cpu"), torch.float32, cpu=True)

# Winograd's forms, by the points of their construction beside infinity. The last one is used.
WINOGRAD = {
    "Winograd F(2x2)": (0, 1, -1),
    "Winograd F(4x4), points 0 1 -1 2 -2": (0, 1, -1, 2, -2),
    "Winograd F(4x4), points 0 1 -1 1/2 -2": (0, 1, -1, 1 / 2, -2),
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
    for name, points in WINOGRAD.items():
        form = Winograd(weight, points)
        forms[name] = lambda form=form: form(window)
    work = 2 * 9 * channels**2 * rows * columns
    reference = F.conv2d(window.double(), weight.double())
    return f"3x3, {channels}, {rows}x{columns}", work, reference, forms


class Winograd:
    """F(m x m, 3x3) on a window whose rows and columns, less two, are multiples of m.

    Lavin and Gray (CVPR 2016), by the construction of Toom and Cook on m + 1 points and infinity;
    the transforms are matrix products, as in the engine's own kernel.
    """

    def __init__(self, weight: Tensor, points: tuple[float, ...]) -> None:
        output, weights, inputs = toom_cook(points)
        self._tile = len(points) - 1
        self._made = weight.shape[0]
        self._to_products, self._to_pixels = both_ways(inputs), both_ways(output)
        products = both_ways(weights) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
        self._products = products.view(-1, weight.shape[1], self._made)
        self._scratch = Scratch(CPU.device)

    def __call__(self, window: Tensor) -> Tensor:
        tile, (images, channels, rows, columns) = self._tile, window.shape
        assert images == 1
        pixels, square = window[0].permute(1, 2, 0), tile + 2
        down, across = (rows - 2) // tile, (columns - 2) // tile
        row, column, channel = pixels.stride()
        tiles = pixels.as_strided(
            (square, square, down, across, channels),
            (row, column, tile * row, tile * column, channel),
        )
        count, take = down * across, self._scratch.take
        gathered = take("a", *tiles.shape).copy_(tiles).view(square**2, -1)
        spread = take("b", square**2, count, channels)
        torch.mm(self._to_products, gathered, out=spread.view(square**2, -1))
        mixed = take("a", square**2, count, self._made)
        torch.bmm(spread, self._products, out=mixed)
        tiled = take("b", tile**2, count * self._made)
        torch.mm(self._to_pixels, mixed.view(square**2, -1), out=tiled)
        result = take("result", 1, rows - 2, columns - 2, self._made)
        result.view(down, tile, across, tile, self._made).copy_(
            tiled.view(tile, tile, down, across, self._made).permute(2, 0, 3, 1, 4)
        )
        return result.permute(0, 3, 1, 2)


def toom_cook(points: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the output (m from n), the weights (n from 3) and the input (n from n), float64, for m + 1
    points and infinity: n = m + 2.
    """
    at = torch.tensor(points, dtype=torch.float64)
    count = len(points) + 1

    def powers(most: int) -> Tensor:
        finite = at[:, None] ** torch.arange(most)
        infinite = torch.zeros(1, most, dtype=torch.float64)
        infinite[0, -1] = 1
        return torch.cat([finite, infinite])

    inputs = torch.zeros(count, count, dtype=torch.float64)
    scales = torch.ones(count, dtype=torch.float64)
    for index in range(count):
        others = [point for other, point in enumerate(points) if other != index]
        polynomial = torch.tensor([1.0], dtype=torch.float64)  # of the lowest power first
        for point in others:
            polynomial = F.pad(polynomial, (1, 0)) - point * F.pad(polynomial, (0, 1))
            if index < len(points):
                scales[index] *= points[index] - point
        inputs[index, : polynomial.numel()] = polynomial
    return powers(count - 2).T.contiguous(), powers(3) / scales[:, None], inputs


def both_ways(transform: Tensor) -> Tensor:
    """A one-dimensional transform of rows and columns, as one matrix on flattened squares."""
    return torch.kron(transform, transform).float()


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
        layer = Layer(
            Conv(7, padding="reflect"), ConvWeights(weight, torch.zeros(made)), bias=False
        )
        kernel, scratch = torch_ops.make(layer, CPU), Scratch(CPU.device)
        forms["four pixels at once, channels-last"] = lambda: kernel.convolve(window, scratch)
    work = 2 * 49 * channels * made * rows * columns
    reference = F.conv2d(window.double(), weight.double())
    return f"7x7, {channels} to {made}, {rows}x{columns}", work, reference, forms


def statistics(channels: int, rows: int, columns: int) -> tuple[str, float, Tensor, Forms]:
    """The second moment of each channel of a strip, channels-last."""
    strip = torch.randn(1, channels, rows, columns).add_(3).to(memory_format=LAST)
    count, scratch = rows * columns, Scratch(CPU.device)
    reference = torch.var(strip.double(), (2, 3), correction=0)
    forms: Forms = {
        "var_mean": lambda: torch.var_mean(strip, (2, 3), correction=0)[0],
        "ours, centred": lambda: chunk(strip, None, scratch).m2 / count,
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
