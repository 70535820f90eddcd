"""Checkpoints: published names and formats become a `Generator` here, strictly."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from ..errors import CheckpointError, OptionError, WeightsError, first_line
from ..files.resolve import resolve_weights
from ..files.whole import whole_file
from .design import LITE, design_of, expected_names, stage_table
from .generator import Generator

# What weights and maps may be stored in, by the names that users give.
PRECISIONS: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
_FIRST_BLOCK = 4  # the published names count stages: residual blocks begin with conv04_1
# Far above any network of this design; a larger file would only fill the memory.
_MAX_BYTES = 4 << 30


def load_generator(
    style_or_path: str | Path,
    *,
    weights_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Generator:
    """The network of a style, found or downloaded, ready to run.

    Args:
        style_or_path: a key of `STYLES` or `LITE_STYLES`, or the path of a `.pth` or `.safetensors`
            checkpoint.
        weights_dir: a folder (or file) to search instead of all other places.
        device: where the weights go.
        dtype: float32, float16 or bfloat16. On a GPU the compute type; on the CPU the storage of
            weights and maps, computed in float32 (half-precision convolutions are far slower
            there).
        progress: called with (bytes done, bytes in all) while a download runs; may raise to stop
            it.

    Raises:
        OptionError: no such device or dtype.
        StyleError: an unknown style.
        WeightsError: the file is missing, cannot be downloaded, or is no checkpoint of this design.
    """
    _check_device(device)
    path = resolve_weights(style_or_path, weights_dir=weights_dir, progress=progress)
    return load_checkpoint(path, device=device, dtype=dtype)


def load_checkpoint(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Generator:
    """The generator in a `.pth` or `.safetensors` file; see `load_generator` for `device` and
    `dtype`.

    Raises:
        CheckpointError: not a checkpoint of this design; the text lists the keys or shapes, sorted.
    """
    if dtype not in PRECISIONS.values():
        known = ", ".join(map(str, PRECISIONS.values()))
        raise OptionError(f"dtype is one of {known}, not {dtype}")
    state = read_state(path)
    try:
        generator = Generator(_canonical(state))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return placed_generator(generator, device, dtype)


def _check_device(device: str | torch.device) -> None:
    """Refuse, before anything is downloaded for it, a device that this torch has not.

    Raises:
        OptionError: it has not; torch's own errors for that are of several types.
    """
    try:
        torch.empty(0, device=device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(f"device {device} cannot be used: {first_line(error)}") from error


def placed_generator(
    generator: Generator, device: str | torch.device, dtype: torch.dtype
) -> Generator:
    """The generator itself, moved to a device in a dtype as `load_generator` takes them."""
    # Channels-last already, so that no kernel needs a copy in the layout that it computes in.
    return (
        cast(Any, generator.to(device=device, dtype=dtype))
        .to(memory_format=torch.channels_last)
        .eval()
    )


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the file's own names and dtypes, on the CPU.

    `.pth` files are read with `weights_only=True`, so that no code in them runs.

    Raises:
        CheckpointError: unreadable, truncated, unsafe, or something else than floating-point
            tensors, all finite.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise CheckpointError(
                f"{path}: {size} bytes, far more than a network of this design has"
            )
        state: object
        if path.suffix.lower() == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors, and only tensors are loaded from a .pth"
        ) from error
    # What torch raises for damaged bytes depends on where the damage lies: of 10,000 damaged files
    # struct.error, zlib.error and MemoryError too. Its code runs nothing of the file's.
    except Exception as error:  # noqa: BLE001
        raise _unreadable(path, error) from error
    return _tensors(path, state)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, OSError) and error.strerror:
        return CheckpointError(f"{path}: cannot be read: {error.strerror}")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not any(letter.isalpha() for letter in reason):  # a key or a number alone says nothing
        reason = f"{type(error).__name__}: {reason}"
    return CheckpointError(
        f"{path}: not readable as a checkpoint, perhaps cut short: fetch it again ({reason})"
    )


def _tensors(path: Path, state: object) -> dict[str, Tensor]:
    """`state` if it is a flat mapping of names to finite floating-point tensors."""
    if not isinstance(state, Mapping) or not state:
        found = type(cast(object, state)).__name__
        raise CheckpointError(f"{path}: expected a state dict of tensors, found {found}")
    tensors: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, value in state.items():  # pyright: ignore[reportUnknownVariableType]
        if isinstance(name, str) and isinstance(value, Tensor) and _is_plain(value):
            tensors[name] = value.detach()
        else:
            wrong.append(str(name))  # pyright: ignore[reportUnknownArgumentType]
    if wrong:
        raise CheckpointError(
            f"{path}: expected only dense tensors of 16, 32 or 64 bits in floating point, others:"
            f" {_listed(wrong)}"
        )
    if bad := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise CheckpointError(
            f"{path}: NaN or infinite values in {_listed(bad)}: a damaged file, fetch it again"
        )
    return tensors


def _is_plain(tensor: Tensor) -> bool:
    """Numbers that are there and can be computed with: not sparse, quantised or without data."""
    return (
        tensor.dtype in (torch.float64, *PRECISIONS.values())
        and tensor.layout == torch.strided
        and not tensor.is_meta
    )


def convert(source: str | Path, target: str | Path) -> None:
    """Write the checkpoint `source` as safetensors to `target`, all that it holds unchanged.

    Raises:
        CheckpointError: `source` is no checkpoint of this design, or `target` is no `.safetensors`
            name.
        WeightsError: `target` cannot be written; nothing half written is left.
    """
    target = Path(target)
    if target.suffix.lower() != ".safetensors":
        raise CheckpointError(
            f"{target}: convert writes safetensors, name the output *.safetensors"
        )
    load_checkpoint(source)  # refuses what is no network of this design
    # Copies, since a .pth may hold one memory under two names, and safetensors does not.
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in read_state(source).items()
    }
    metadata = {"format": "pt"}
    if Path(source).suffix.lower() == ".safetensors":
        with cast(Any, safe_open(source, "pt")) as file:
            metadata |= cast("dict[str, str] | None", file.metadata()) or {}
    try:
        with whole_file(target) as file:
            file.write(save(state, metadata))
    except OSError as error:
        raise WeightsError(f"{target} cannot be written: {error.strerror or error}") from error


def published_names(blocks: int, *, up_norms: tuple[str, str] | None = None) -> dict[str, str]:
    """Canonical tensor name to published name, for a generator of `blocks` residual blocks.

    `up_norms` are the published names of the two norms of the up stages; their numbers follow the
    last block's (in12_1 and in13_1 after 8 blocks).
    """
    after = _FIRST_BLOCK + blocks
    up1, up2 = up_norms or (f"in{after:02}_1", f"in{after + 1:02}_1")
    stage_names = {
        "input": (("conv01_1",), "in01_1"),
        "down1": (("conv02_1", "conv02_2"), "in02_1"),
        "down2": (("conv03_1", "conv03_2"), "in03_1"),
        "up1": (("deconv01_1", "deconv01_2"), up1),
        "up2": (("deconv02_1", "deconv02_2"), up2),
        "output": (("deconv03_1",), ""),
    }
    for block in range(blocks):
        number = f"{_FIRST_BLOCK + block:02}"
        stage_names[f"block{block}a"] = ((f"conv{number}_1",), f"in{number}_1")
        stage_names[f"block{block}b"] = ((f"conv{number}_2",), f"in{number}_2")
    published: dict[str, str] = {}
    for name in expected_names(stage_table(blocks)):
        stage, *index, kind = name.split(".")
        convs, norm = stage_names[stage]
        published[name] = f"{convs[int(index[0])]}.{kind}" if index else f"{norm}.{kind}"
    return published


def _canonical(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under canonical names; lists what is missing or unexpected."""
    if design_of(state) is LITE:
        return dict(state)  # our own files have canonical names; the generator checks them
    numbers = [m[1] for name in state if (m := re.fullmatch(r"conv(\d+)_1\.weight", name))]
    blocks = sum(int(number) >= _FIRST_BLOCK for number in numbers)
    names = published_names(blocks, up_norms=_up_norms(state))
    missing = sorted(set(names.values()) - set(state))
    unexpected = sorted(set(state) - set(names.values()))
    if missing or unexpected:
        parts = [f"missing {_listed(missing)}"] if missing else []
        parts += [f"unexpected {_listed(unexpected)}"] if unexpected else []
        raise CheckpointError(
            f"not a CartoonGAN generator; AnimeGAN and upscalers do not fit: {'; '.join(parts)}"
        )
    return {canonical: state[published] for canonical, published in names.items()}


def _up_norms(state: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """The last two norms that follow no convolution of their own number: those of the up stages.

    With other than eight blocks their numbers may go on after the blocks' or stay 12 and 13.
    """
    norms = [m for name in state if (m := re.fullmatch(r"(in(\d+)_1)\.scale", name))]
    alone = sorted((int(m[2]), m[1]) for m in norms if f"conv{m[2]}_1.weight" not in state)
    return (alone[-2][1], alone[-1][1]) if len(alone) >= 2 else None


def _listed(names: Iterable[str], most: int = 12) -> str:
    """Sorted names in one line, the rest counted."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + rest
