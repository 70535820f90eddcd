"""The reference: the CartoonGAN generator written out line by line, with the published norm, and
the small one of `lite_table` likewise.

Shares nothing with the package, so that the package can be held against it. Runs in any dtype.
"""

import torch
import torch.nn.functional as F


def random_state(widths=(8, 16, 32), blocks=2, seed=0):
    """A seeded random network under the published names, float32: a state dict.

    The norms of the up stages are in12_1 and in13_1 up to 8 blocks; after more, their numbers go
    on.
    """
    state, conv, norm = _random_layers(seed)
    full, half, quarter = widths
    conv("conv01_1", full, 3, 7, full)
    norm("in01_1", full)
    conv("conv02_1", half, full, 3, half)
    conv("conv02_2", half, half, 3, half)
    norm("in02_1", half)
    conv("conv03_1", quarter, half, 3, quarter)
    conv("conv03_2", quarter, quarter, 3, quarter)
    norm("in03_1", quarter)
    for block in range(4, 4 + blocks):
        for part in (1, 2):
            conv(f"conv{block:02}_{part}", quarter, quarter, 3, quarter)
            norm(f"in{block:02}_{part}", quarter)
    conv("deconv01_1", quarter, half, 3, half)
    conv("deconv01_2", half, half, 3, half)
    norm(f"in{max(12, 4 + blocks):02}_1", half)
    conv("deconv02_1", half, full, 3, full)
    conv("deconv02_2", full, full, 3, full)
    norm(f"in{max(13, 5 + blocks):02}_1", full)
    conv("deconv03_1", 3, full, 7, 3)
    return state


def random_lite_state(widths=(8, 16, 12), blocks=2, seed=0):
    """A seeded random small network: half-size, quarter-size and inner channels."""
    state, conv, norm = _random_layers(seed)
    half, quarter, inner = widths
    conv("input.0", half, 3, 7, half)
    norm("input", half)
    conv("down.0", quarter, half, 3, quarter)
    norm("down", quarter)
    for block in range(blocks):
        conv(f"block{block}a.0", inner, quarter, 3, inner)
        norm(f"block{block}a", inner)
        conv(f"block{block}b.0", quarter, inner, 3, quarter)
        norm(f"block{block}b", quarter)
    conv("up.0", quarter, half, 3, half)
    conv("up.1", half, half, 3, half)
    norm("up", half)
    conv("output.0", 12, half, 3, 12)
    return state


def _random_layers(seed):
    """A state dict, and what puts a convolution or a norm into it."""
    random = torch.Generator().manual_seed(seed)
    state = {}

    def conv(name, first, second, size, made):
        fan_in = first * second * size * size / made
        state[f"{name}.weight"] = (
            torch.randn(first, second, size, size, generator=random) * (2 / fan_in) ** 0.5
        )
        state[f"{name}.bias"] = torch.randn(made, generator=random) * 0.1

    def norm(name, channels):
        state[f"{name}.scale"] = 1 + torch.randn(channels, generator=random) * 0.2
        state[f"{name}.shift"] = torch.randn(channels, generator=random) * 0.2

    return state, conv, norm


def norm(x, scale, shift):
    """The published instance norm: biased variance over the whole map, eps 1e-9."""
    count = x.shape[2] * x.shape[3]
    flat = x.reshape(x.shape[0], x.shape[1], count)
    mean = flat.sum(2)[:, :, None, None] / count
    deviation = x - mean
    variance = (deviation * deviation).reshape(flat.shape).sum(2)[:, :, None, None] / count
    return (
        deviation / (variance + 1e-9).sqrt() * scale[None, :, None, None]
        + shift[None, :, None, None]
    )


def run(state, x):
    """BGR [B, 3, H, W] in [-1, 1] to the same, H and W rounded up to 4 (a small network: to 2), in
    the dtype of `x`."""
    s = {name: tensor.to(x.dtype) for name, tensor in state.items()}

    def conv(y, name, stride=1, pad=0):
        return F.conv2d(y, s[f"{name}.weight"], s[f"{name}.bias"], stride=stride, padding=pad)

    def deconv(y, name):
        weight, bias = s[f"{name}.weight"], s[f"{name}.bias"]
        return F.conv_transpose2d(y, weight, bias, stride=2, padding=1, output_padding=1)

    def reflect(y, pad):
        return F.pad(y, (pad, pad, pad, pad), mode="reflect")

    def named_norm(y, name):
        return norm(y, s[f"{name}.scale"], s[f"{name}.shift"])

    if "down.0.weight" in s:
        first = F.relu(named_norm(conv(reflect(x, 3), "input.0", 2), "input"))
        y = F.relu(named_norm(conv(first, "down.0", 2, 1), "down"))
        block = 0
        while f"block{block}a.0.weight" in s:
            z = F.relu(named_norm(conv(reflect(y, 1), f"block{block}a.0"), f"block{block}a"))
            y = named_norm(conv(reflect(z, 1), f"block{block}b.0"), f"block{block}b") + y
            block += 1
        y = conv(deconv(y, "up.0"), "up.1", 1, 1)[:, :, : first.shape[2], : first.shape[3]]
        y = conv(F.relu(named_norm(y, "up") + first), "output.0", 1, 1)
        four = y.view(y.shape[0], 3, 2, 2, *y.shape[2:]).permute(0, 1, 4, 2, 5, 3)
        return torch.tanh(four.flatten(4, 5).flatten(2, 3))

    y = F.relu(named_norm(conv(reflect(x, 3), "conv01_1"), "in01_1"))
    y = conv(conv(y, "conv02_1", 2, 1), "conv02_2", 1, 1)
    y = F.relu(named_norm(y, "in02_1"))
    y = conv(conv(y, "conv03_1", 2, 1), "conv03_2", 1, 1)
    y = F.relu(named_norm(y, "in03_1"))
    block = 4
    while f"conv{block:02}_1.weight" in s:
        z = F.relu(named_norm(conv(reflect(y, 1), f"conv{block:02}_1"), f"in{block:02}_1"))
        y = named_norm(conv(reflect(z, 1), f"conv{block:02}_2"), f"in{block:02}_2") + y
        block += 1
    up1, up2 = f"in{max(12, block):02}_1", f"in{max(13, block + 1):02}_1"
    y = F.relu(named_norm(conv(deconv(y, "deconv01_1"), "deconv01_2", 1, 1), up1))
    y = F.relu(named_norm(conv(deconv(y, "deconv02_1"), "deconv02_2", 1, 1), up2))
    return torch.tanh(conv(reflect(y, 3), "deconv03_1"))


def stylize(state, image, dtype=torch.float64):
    """RGB [B, H, W, 3] in [0, 1] to the same, by the reference, computed in `dtype`."""
    x = image.to(dtype).flip(-1).permute(0, 3, 1, 2) * 2 - 1
    y = run(state, x)[:, :, : image.shape[1], : image.shape[2]]
    return ((y + 1) / 2).flip(1).permute(0, 2, 3, 1)
