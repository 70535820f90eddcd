"""The ComfyUI nodes: schemas and what each does. What they ask of ComfyUI is in host.py."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import ComfyExtension, io
from PIL import Image

from . import host
from .animebg_core import (
    LITE_STYLES,
    STYLES,
    AnimeBGError,
    MemoryBudgetError,
    RunPlan,
    Style,
    StyleError,
    load_generator,
    plan_run,
    stylize,
)
from .animebg_core.files.download import by_hand
from .animebg_core.files.locate import SUFFIXES, find_weights, is_file_of, is_installed
from .animebg_core.files.resolve import resolve_weights
from .host import LoadedModel

CATEGORY = "AnimeBG"
AnimeBGModel = io.Custom("ANIMEBG_MODEL")

# Labels and not keys: what stands in a saved workflow is what its reader sees.
_STYLES = {style.label: style for style in (*STYLES.values(), *LITE_STYLES.values())}
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What people type into the search. Escapes, since some checkers read .py files as cp1252.
_ALIASES = [
    *("anime", "anime background", "anime style", "anime filter", "photo to anime", "AnimeGAN"),
    *("cartoon", "cartoonize", "CartoonGAN", "AnimeBackgroundGAN", "toon", "painting"),
    *("watercolor", "background", "style transfer", "stylize", "Ghibli", "Makoto Shinkai"),
    *("Mamoru Hosoda", "Hayao Miyazaki", "Satoshi Kon"),
    "\u30a2\u30cb\u30e1",  # Japanese: anime
    "\u80cc\u666f",  # background
    "\u5199\u771f\u3092\u30a2\u30cb\u30e1\u306b",  # photo to anime
    "\u65b0\u6d77\u8aa0",  # Makoto Shinkai
    "\u7d30\u7530\u5b88",  # Mamoru Hosoda
    "\u5bae\u5d0e\u99ff",  # Hayao Miyazaki
    "\u4eca\u654f",  # Satoshi Kon
    "\u30b8\u30d6\u30ea",  # Ghibli
    "\u52a8\u6f2b",  # Chinese: anime
    "\u52a8\u753b",  # animation
    "\u52a8\u753b\u80cc\u666f",  # anime background
    "\u65b0\u6d77\u8bda",  # Makoto Shinkai
    "\u7ec6\u7530\u5b88",  # Mamoru Hosoda
    "\u5bab\u5d0e\u9a8f",  # Hayao Miyazaki
    "\u5409\u535c\u529b",  # Ghibli
    "\u5361\u901a",  # cartoon
]

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
                host.with_data(
                    io.Combo.Input(
                        "style",
                        options=_options(),
                        default=_options()[0],
                        tooltip=(
                            "Whose backgrounds the network was trained on. Below the built-in "
                            "styles: your own .safetensors and .pth files from the folder "
                            "models/animebg."
                        ),
                    ),
                    "animebg_styles",
                    _shown_styles(),
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
    def validate_inputs(cls, style: str | None) -> bool | str:
        # Named here, the host leaves the choice to us; what it says itself tells nobody what to do.
        known = style is None or style in _options()  # None: it comes from another node
        return known or _unknown(style)

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
        path = _in_model_folders(style) or _downloaded(_known(style))
        generator = load_generator(path, device=host.offload_device(), dtype=_dtype(precision))
        return io.NodeOutput(LoadedModel(generator, style))


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
                io.Image.Output(display_name="image", tooltip="Same size, batch and channels."),
                io.String.Output(
                    display_name="info",
                    tooltip="Style, size, plan and time of the run: what helps to report trouble.",
                ),
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
        started = time.monotonic()
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
                    progress=host.Bar(_left(len(image))),
                )
                break
            except RuntimeError as error:
                if not host.out_of_memory(error):
                    raise
            # Not above: while the error lives, its traceback holds the tensors of the failed try.
            host.free_cache()
            plan = _smaller(plan, model, image, mask is not None)
        info = _info(model, image, mask, plan, time.monotonic() - started)
        host.tell(info)
        return io.NodeOutput(host.to_host(painted), info)


class AnimeBGSamplePhoto(io.ComfyNode):
    """The pack's own photo, so that the first picture needs no file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="AnimeBGSamplePhoto",
            display_name="AnimeBG Sample Photo",
            category=CATEGORY,
            description=(
                "A photo that comes with AnimeBG, to try it without a file of your own: a pavilion "
                "by a lake, 640 x 427 pixels (by danielbuechele, CC BY 2.0)."
            ),
            search_aliases=["sample photo", "example image", "test image", "demo", *_ALIASES],
            inputs=[],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The photo."),
                io.Mask.Output(display_name="mask", tooltip="White where the pavilion is."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        photo, mask = _pixels("demo-photo.jpg", "RGB"), _pixels("demo-photo-mask.png", "L")
        return io.NodeOutput(host.to_host(photo), host.to_host(mask))


class AnimeBGExtension(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        host.register_model_folder(SUFFIXES)
        return [AnimeBGLoadModel, AnimeBGApplyStyle, AnimeBGSamplePhoto]


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
        try:
            return within(limit)
        except MemoryBudgetError as error:
            least = math.ceil(error.needed / 1e8) / 10
            raise MemoryBudgetError(
                f"memory_limit_gb is {limit / 1e9:g}, too little for {width} x {height} pixels: "
                f"set it to {least:g} or more, or to 0 for what ComfyUI reports free",
                needed=error.needed,
                available=error.available,
            ) from None
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


def _left(count: int) -> Callable[[int, int], str]:
    """Says which of `count` images is painted, and how long it takes still."""
    started = time.monotonic()

    def say(done: int, total: int) -> str:
        number = min(count, 1 + count * done // max(total, 1))
        text = f"image {number} of {count}" if count > 1 else "painting"
        spent = time.monotonic() - started
        # The first moments tell nothing yet.
        return f"{text}, {spent * (total - done) / done:.0f} s left" if spent > 1 < done else text

    return say


def _info(
    model: LoadedModel, image: torch.Tensor, mask: torch.Tensor | None, plan: RunPlan, took: float
) -> str:
    """What was done, in one line for people: the style, the size, the plan, the time."""
    count, height, width = image.shape[:3]
    times = f"{count} x " if count > 1 else ""
    text = f"{model.name}, {times}{width} x {height}, {plan.level}, {took:.1f} s"
    empty = (
        0 if mask is None else int((mask.reshape(-1, *mask.shape[-2:]) == 0).all(-1).all(-1).sum())
    )
    if not empty or mask is None:
        return text
    masks = mask.shape[0] if mask.ndim > 2 else 1
    which = "the mask is empty" if empty == masks else f"{empty} of {masks} masks are empty"
    return f"{which}: nothing is painted there. {text}"


# --- Files ---


def _pixels(name: str, mode: str) -> torch.Tensor:
    """[1, H, W, 3] or, where the mode is L, [1, H, W], in [0, 1], of a picture of the pack."""
    with Image.open(Path(__file__).parent / "docs/images" / name) as picture:
        return torch.from_numpy(np.array(picture.convert(mode))).float()[None] / 255


def _options() -> list[str]:
    """The loader's values: the built-in styles' labels, then every other checkpoint."""
    own = [n for n in host.model_files() if not any(is_file_of(s, n) for s in _STYLES.values())]
    return [*_STYLES, *own]


def _in_model_folders(option: str) -> Path | None:
    """The file of a loader's value in the model folders, if it is there."""
    style = _STYLES.get(option)
    names = [n for n in host.model_files() if (is_file_of(style, n) if style else n == option)]
    # A converted file first, as everywhere in this project.
    names.sort(key=lambda name: not name.endswith(SUFFIXES[0]))
    return host.model_path(names[0]) if names else None


def _shown_styles() -> dict[str, dict[str, str | int]]:
    """For the script in the page: each built-in style's picture, and the MB of its download."""
    return {
        label: {
            "picture": style.key,
            "download": 0
            if _in_model_folders(label) or is_installed(style)
            else math.ceil(style.size / 1e6),
        }
        for label, style in _STYLES.items()
    }


def _downloaded(style: Style) -> Path:
    """The file of a built-in style that is in no model folder, fetched if need be."""

    folder, started = host.model_folder(), time.monotonic()

    def say(done: int, total: int) -> str:
        if done:
            return f"downloading {style.label}: {done // 10**6} of {total // 10**6} MB"
        if time.monotonic() < started + 2:
            return f"connecting, to download {style.label}"
        return f"no answer yet; instead of waiting, {by_hand(style, folder)}"

    try:
        return resolve_weights(style.key, folder=folder, progress=host.Bar(say))
    except AnimeBGError as error:
        raise error from None  # the host prints all that led to it otherwise


def _known(option: str) -> Style:
    """The built-in style of a loader's value.

    Raises:
        StyleError: it is neither that nor a file, e.g. one that an old workflow names.
    """
    if option not in _STYLES:
        raise StyleError(_unknown(option))
    return _STYLES[option]


def _unknown(option: str) -> str:
    return (
        f'there is no style "{option}": choose one of {", ".join(_options())}, '
        f"or put the file into {host.model_folder()} and refresh the page's node definitions "
        "(key R)"
    )
