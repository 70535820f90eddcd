"""The ComfyUI nodes: schemas and what each does. What they ask of ComfyUI is in host.py."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from pathlib import Path

import torch
from comfy_api.latest import ComfyExtension, io

from . import host
from .animebg_core import (
    LITE_STYLES,
    STYLES,
    MemoryBudgetError,
    RunPlan,
    Style,
    StyleError,
    load_generator,
    plan_run,
    stylize,
)
from .animebg_core.files.locate import SUFFIXES, find_weights
from .animebg_core.files.resolve import resolve_weights
from .host import LoadedModel

CATEGORY = "AnimeBG"
AnimeBGModel = io.Custom("ANIMEBG_MODEL")

# Labels and not keys: what stands in a saved workflow is what its reader sees.
_STYLES = {style.label: style for style in (*STYLES.values(), *LITE_STYLES.values())}
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_ALIASES = [
    "anime",
    "anime background",
    "anime style",
    "background",
    "cartoon",
    "cartoonize",
    "CartoonGAN",
    "AnimeGAN",
    "AnimeBackgroundGAN",
    "Ghibli",
    "Shinkai",
    "Miyazaki",
    "Hosoda",
    "Satoshi Kon",
    "photo to anime",
    "style transfer",
    "stylize",
]

# How torch's allocators say it: graphics cards; a CPU on Linux and macOS, on Windows; DirectML.
_NO_ROOM = ("out of memory", "can't allocate memory", "not enough memory", "not enough gpu")

_log = logging.getLogger(__name__)


class AnimeBGLoadModel(io.ComfyNode):
    """Style and precision to a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="AnimeBGLoadModel",
            display_name="Load AnimeBG Model",
            category=CATEGORY,
            description=(
                "Loads a network that paints photos as anime backgrounds. A style that is not on "
                "this computer yet is downloaded once (45 MB) and checked."
            ),
            search_aliases=_ALIASES,
            inputs=[
                io.Combo.Input(
                    "style",
                    options=_options(),
                    default=_options()[0],
                    tooltip=(
                        "Whose backgrounds the network was trained on. Below the built-in styles: "
                        "your own .safetensors and .pth files from the folder models/animebg."
                    ),
                ),
                host.advanced(
                    io.Combo.Input(
                        "precision",
                        options=["auto", *_DTYPES],
                        default="auto",
                        tooltip=(
                            "Number format of the network. auto: fp16 on graphics cards where "
                            "ComfyUI says that it is good, else fp32. On a CPU, fp16 and bf16 save "
                            "memory, not time."
                        ),
                    )
                ),
            ],
            outputs=[
                AnimeBGModel.Output(
                    display_name="model",
                    tooltip="For Apply AnimeBG Style, any number of them.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, style: str, precision: str = "auto") -> tuple[str, int, int] | None:
        # An unknown style is refused by execute; here it only has no file.
        path = find_weights(_STYLES[style]) if style in _STYLES else None
        path = _in_model_folders(style) or path
        with contextlib.suppress(OSError):
            found = os.stat(path) if path else None
            return (str(path), found.st_mtime_ns, found.st_size) if found else None
        return None

    @classmethod
    def execute(cls, style: str, precision: str = "auto") -> io.NodeOutput:
        path = _in_model_folders(style)
        if path is None:
            folder = host.model_folder()
            path = resolve_weights(_known(style).key, folder=folder, progress=host.progress())
        generator = load_generator(path, device=host.offload_device(), dtype=_dtype(precision))
        return io.NodeOutput(LoadedModel(generator))


class AnimeBGApplyStyle(io.ComfyNode):
    """Model and image to the painted image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="AnimeBGApplyStyle",
            display_name="Apply AnimeBG Style",
            category=CATEGORY,
            description=(
                "Paints images as anime backgrounds, at their own size. Colours come from the "
                "whole image, so that there are no tiles and no seams. Transparency is kept."
            ),
            search_aliases=_ALIASES,
            inputs=[
                AnimeBGModel.Input("model", tooltip="From Load AnimeBG Model."),
                io.Image.Input("image", tooltip="One image or a batch, of any size."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 is the photo, 1 the painting; between them a mixture of both.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Where to paint: white is painted, black stays the photo. Resized to the "
                        "image. An empty mask paints nothing."
                    ),
                ),
                host.advanced(
                    io.Float.Input(
                        "memory_limit_gb",
                        optional=True,
                        default=0.0,
                        min=0.0,
                        max=1024.0,
                        step=0.1,
                        tooltip=(
                            "Most memory that painting may take, in GB. 0: what ComfyUI reports "
                            "free. Less memory changes the time, not the picture."
                        ),
                    )
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Same size, batch and channels.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        image: torch.Tensor,
        strength: float = 1.0,
        mask: torch.Tensor | None = None,
        memory_limit_gb: float = 0.0,
    ) -> io.NodeOutput:
        model.load(0)  # a plan depends on where the network runs
        plan = _plan(model, image, mask is not None, int(memory_limit_gb * 1e9))
        while True:
            _log.debug("AnimeBG: %s", plan)
            model.load(plan.peak_bytes)
            try:
                painted = stylize(
                    image,
                    model.generator,
                    strength=strength,
                    mask=mask,
                    plan=plan,
                    progress=host.progress(),
                )
                return io.NodeOutput(host.to_host(painted))
            except RuntimeError as error:
                if not host.out_of_memory(error):
                    raise
            # Not above: while the error lives, its traceback holds the tensors of the failed try.
            host.free_cache()
            plan = _smaller(plan, model, image, mask is not None)


class AnimeBGExtension(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        host.register_model_folder(SUFFIXES)
        return [AnimeBGLoadModel, AnimeBGApplyStyle]


# --- Running ---


def _plan(model: LoadedModel, image: torch.Tensor, masked: bool, limit: int) -> RunPlan:
    """The fastest plan for `limit` bytes, or where that is 0 for what the host can give.

    Raises:
        MemoryBudgetError: there is none, even after the host has made room.
    """
    batch, height, width = image.shape[:3]

    def within(budget: int) -> RunPlan:
        return plan_run(model.generator, height, width, batch=batch, budget=budget, masked=masked)

    if limit:
        return within(limit)
    try:
        return within(model.free_memory())
    except MemoryBudgetError as error:
        # Other models stay where a slower plan fits beside them; where none does, they go.
        model.load(error.needed)
    return within(model.free_memory())


def _smaller(plan: RunPlan, model: LoadedModel, image: torch.Tensor, masked: bool) -> RunPlan:
    """A plan for less memory than one that ran out of it: half the batch, then 3/4 of the bytes.

    Raises:
        MemoryBudgetError: none does.
    """
    if plan.batch > 1:
        return replace(plan, batch=plan.batch // 2, peak_bytes=plan.peak_bytes // 2)
    height, width = image.shape[1:3]
    return plan_run(model.generator, height, width, budget=plan.peak_bytes * 3 // 4, masked=masked)


def _dtype(precision: str) -> torch.dtype:
    if precision != "auto":
        return _DTYPES[precision]
    return torch.float16 if host.fp16_is_good() else torch.float32


# --- Files ---


def _is_file_of(style: Style, name: str) -> bool:
    return Path(name).stem == Path(style.file).stem


def _options() -> list[str]:
    """The loader's values: the built-in styles' labels, then every other checkpoint."""
    own = [n for n in host.model_files() if not any(_is_file_of(s, n) for s in _STYLES.values())]
    return [*_STYLES, *own]


def _in_model_folders(option: str) -> Path | None:
    """The file of a loader's value in the model folders, if it is there."""
    style = _STYLES.get(option)
    names = [n for n in host.model_files() if (_is_file_of(style, n) if style else n == option)]
    # A converted file first, as everywhere in this project.
    names.sort(key=lambda name: not name.endswith(SUFFIXES[0]))
    return host.model_path(names[0]) if names else None


def _known(option: str) -> Style:
    """The built-in style of a loader's value.

    Raises:
        StyleError: it is neither that nor a file, e.g. one that an old workflow names.
    """
    if option not in _STYLES:
        folder = host.model_folder()
        raise StyleError(
            f'there is no style "{option}": choose one of {", ".join(_options())}, '
            f"or put the file into {folder} and refresh the page's node definitions (key R)"
        )
    return _STYLES[option]
