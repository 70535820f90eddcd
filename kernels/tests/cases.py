"""Random convolutions for the kernels, and what torch makes of them in float64."""

import random
from dataclasses import dataclass

import animebg_kernels as ak
import torch
import torch.nn.functional as F

TYPES = {torch.float32: ak.FLOAT32, torch.float16: ak.FLOAT16}


@dataclass
class Case:
    kernel: int
    stride: int
    transposed: bool
    shuffled: bool
    reflect: bool
    normed: bool
    tanh: bool
    inputs: int
    outputs: int
    height: int
    width: int
    norm: bool
    clamped: bool
    relu: bool
    source_type: torch.dtype
    made_type: torch.dtype
    strips: tuple[int, ...]  # rows of each
    crop: int  # columns cut from the right
    threads: int
    seed: int


def random_case(seed: int) -> Case:
    """Any convolution that the kernels know, on a map of a few pixels to a few tiles."""
    r = random.Random(seed)
    form = r.choice(["plain", "plain", "plain", "transposed", "shuffled", "first", "last"])
    kernel, stride = r.choice([(3, 1), (3, 1), (3, 2), (1, 1), (5, 1), (7, 2), (7, 1)])
    inputs, outputs = (r.choice([r.randint(1, 40), 8, 16, 32, 48]) for _ in range(2))
    if form == "transposed":
        kernel, stride = 3, 2
    elif form == "shuffled":
        kernel, stride, outputs = 3, 1, 4 * r.randint(1, 10)
    elif form == "first":
        kernel, stride, inputs = 7, r.choice([1, 2]), 3
    elif form == "last":
        stride, outputs = 1, 3
    reflect = form != "transposed" and r.random() < 0.5
    pad = (kernel - 1) // 2
    smallest = pad + 1 if reflect else 1
    height, width = (max(smallest, r.choice([r.randint(1, 9), r.randint(1, 40)])) for _ in range(2))
    if r.random() < 0.05:
        width = r.randint(100, 300)
    doubles = form in ("transposed", "shuffled")
    made = height * 2 if doubles else -(-height // stride)
    strips, rest = [], made
    while rest:
        strips.append(min(rest, r.choice([1, 1, 2, 3, 4, 5, 7, 8, 16, rest])))
        rest -= strips[-1]
    normed = form != "shuffled" and r.random() < 0.6
    return Case(
        kernel, stride, form == "transposed", form == "shuffled", reflect,
        normed=normed, tanh=form != "transposed" and not normed and seed % 4 == 0,
        inputs=inputs, outputs=outputs, height=height, width=width,
        norm=r.random() < 0.7, clamped=r.random() < 0.3, relu=r.random() < 0.5,
        source_type=r.choice([torch.float32, torch.float32, torch.float16]),
        made_type=r.choice([torch.float32, torch.float32, torch.float16]),
        strips=tuple(strips), crop=r.choice([0, 0, 0, 1, 2]), threads=r.choice([1, 1, 2, 3]),
        seed=seed,
    )  # fmt: skip


GUARD = 7.25


@dataclass
class Result:
    made: torch.Tensor  # [H, W, C]
    moments: tuple[torch.Tensor, torch.Tensor] | None  # of each strip: [strips, C] float64


def inputs_of(case: Case) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(case.seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    first, second = (case.inputs, case.outputs) if case.transposed else (case.outputs, case.inputs)
    spread = (case.inputs * case.kernel**2) ** -0.5
    return {
        "source": normal(case.height, case.width, case.inputs).to(case.source_type),
        "weight": normal(first, second, case.kernel, case.kernel) * spread,
        "bias": normal(case.outputs),
        "factor": normal(case.inputs),
        "offset": normal(case.inputs),
        "low": -torch.rand(case.inputs, generator=g),
        "high": torch.rand(case.inputs, generator=g),
    }


def reference(case: Case, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """[H, W, C] in float64, before it is rounded to the type of the map."""
    x = given["source"].double()
    if case.norm:
        if case.clamped:
            x = torch.minimum(torch.maximum(x, given["low"].double()), given["high"].double())
        x = x * given["factor"].double() + given["offset"].double()
    if case.relu:
        x = x.relu()
    x = x.permute(2, 0, 1)[None]
    weight, bias = given["weight"].double(), given["bias"].double()
    if case.transposed:
        y = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
    else:
        pad = (case.kernel - 1) // 2
        x = F.pad(x, (pad,) * 4, mode="reflect" if case.reflect else "constant")
        y = F.conv2d(x, weight, bias, case.stride)
        if case.shuffled:
            y = F.pixel_shuffle(y, 2)
        y = y.tanh() if case.tanh else y
    y = y[..., : max(1, y.shape[3] - case.crop)]
    return y[0].permute(1, 2, 0)


def run(library: ak.Library, case: Case, given: dict[str, torch.Tensor]) -> Result:
    """The map, strip by strip, each from no more source rows than it is made of.

    What surrounds every buffer must stay as it is, which is looked at.
    """
    conv = ak.Conv(
        case.kernel, case.stride, case.transposed, case.shuffled, case.reflect, case.normed,
        case.tanh, case.inputs, case.outputs,
    )  # fmt: skip
    layer = ak.Layer(library, conv, given["weight"].data_ptr(), given["bias"].data_ptr())
    channels = case.outputs // 4 if case.shuffled else case.outputs
    doubles = case.transposed or case.shuffled
    full = case.width * 2 if doubles else -(-case.width // case.stride)
    width = max(1, full - case.crop)
    rows: list[torch.Tensor] = []
    moments: list[torch.Tensor] = []
    start = 0
    for strip in case.strips:
        first, last = _source_rows(case, start, start + strip)
        # Alone in memory, so that a sanitiser sees what is read beyond.
        window = given["source"][first:last].clone()
        # Between guards: a row above and below, and with odd seeds some numbers behind each row.
        row = width * channels + case.seed % 2 * 5
        around = torch.full((strip + 2, row), GUARD, dtype=case.made_type)
        around[1:-1, : width * channels] = torch.nan
        count = layer.scratch_bytes(strip, width, case.threads)
        scratch = torch.full((count + 64,), 77, dtype=torch.uint8)
        parts = torch.full((2, channels), torch.nan, dtype=torch.float64)
        names = ("factor", "offset", "low", "high")
        norm = [case.norm, case.norm, case.norm and case.clamped, case.norm and case.clamped]
        values = ak.Rows(
            source=window.data_ptr(),
            source_row=case.width * case.inputs,
            source_type=TYPES[case.source_type],
            first=first,
            last=last,
            height=case.height,
            width=case.width,
            relu=case.relu,
            start=start,
            stop=start + strip,
            made_width=width,
            made_type=TYPES[case.made_type],
            made=around[1].data_ptr(),
            made_row=row,
            mean=parts[0].data_ptr() if case.normed else None,
            m2=parts[1].data_ptr() if case.normed else None,
            scratch=scratch.data_ptr(),
            threads=case.threads,
            **{n: given[n].data_ptr() if on else None for n, on in zip(names, norm, strict=True)},
        )
        layer.run(values)
        assert scratch[count:].eq(77).all(), "the scratch memory is larger than it said"
        made = around[1:-1, : width * channels].reshape(strip, width, channels).clone()
        around[1:-1, : width * channels] = GUARD
        assert around.eq(GUARD).all(), "more was written than rows"
        rows.append(made)
        moments.append(parts)
        start += strip
    made = torch.cat(rows)
    if not case.normed:
        return Result(made, None)
    table = torch.stack(moments)
    return Result(made, (table[:, 0], table[:, 1]))


def _source_rows(case: Case, start: int, stop: int) -> tuple[int, int]:
    """The rows inside the source that output rows [start, stop) are made of."""
    pad = (case.kernel - 1) // 2
    if case.transposed:
        wanted = range(start // 2, (stop - 1) // 2 + 1 + (1 - stop % 2))
    elif case.shuffled:
        wanted = range(start // 2 - pad, (stop + 1) // 2 + pad)
    else:
        wanted = range(start * case.stride - pad, (stop - 1) * case.stride - pad + case.kernel)
    last = case.height - 1
    if case.reflect:
        inside = [-y if y < 0 else 2 * last - y if y > last else y for y in wanted]
    else:
        inside = [y for y in wanted if 0 <= y <= last]
    return min(inside), max(inside) + 1


def check(library: ak.Library, case: Case) -> None:
    """The kernels' map and moments against float64."""
    given = inputs_of(case)
    wanted = reference(case, given)
    result = run(library, case, given)
    # float32 sums of up to 2000 products of size 1 (Winograd: 3 times the error), values up to 20;
    # half precision rounds by 2**-11 of the value.
    largest = wanted.abs().max().item() + 1
    tolerance = largest * (4e-6 if case.made_type == torch.float32 else 6e-4)
    difference = (result.made.double() - wanted).abs().max().item()
    assert difference <= tolerance, f"{difference} of {largest}: {case}"
    if result.moments is None:
        return
    start = 0
    for strip, mean, m2 in zip(case.strips, *result.moments, strict=True):
        part = result.made[start : start + strip].double().flatten(0, 1)
        start += strip
        own = part.mean(0)
        square = (part - own).square().sum(0)
        # Of the numbers as they were stored: what is left is the rounding of sums of some hundred
        # numbers in float32.
        assert (mean - own).abs().max() <= 5e-7 * largest, f"mean: {case}"
        bound = (
            6e-6 * square
            + 5e-7 * largest * (square * len(part)).sqrt()
            + len(part) * (3e-7 * largest) ** 2
        )
        assert ((m2 - square).abs() <= bound).all(), f"m2: {case}"
