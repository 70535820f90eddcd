"""The ComfyUI nodes: schemas and what each does. What they ask of ComfyUI is in host.py."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from comfy_api.latest import ComfyExtension, io

from . import host, inputs
from .animebg_core import (
    DEFAULT_PAINTING_SIZE,
    LITE_STYLES,
    STYLES,
    AnimeBGError,
    MemoryBudgetError,
    Painter,
    Style,
    StyleError,
    blend_generators,
    load_generator,
)
from .animebg_core.files.download import by_hand
from .animebg_core.files.locate import SUFFIXES, find_weights, is_file_of, is_installed
from .animebg_core.files.resolve import resolve_weights
from .animebg_core.network.checkpoint import PRECISIONS
from .animebg_core.pipeline import DETAILS, Detail
from .animebg_core.upsampling import painted_size
from .host import LoadedModel
from .inputs import ALIASES, CATEGORY, AnimeBGModel
from .sample_nodes import AnimeBGSamplePhoto, AnimeBGSampleVideo
from .video_node import AnimeBGApplyStyleToVideo

_log = logging.getLogger(__name__)

# Labels and not keys: what stands in a saved workflow is what its reader sees.
_STYLES = {style.label: style for style in (*STYLES.values(), *LITE_STYLES.values())}
_PRECISIONS = ("auto", *PRECISIONS)
_BATCHES = ("images", "frames")


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
            search_aliases=ALIASES,
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
                        options=list(_PRECISIONS),
                        default=_PRECISIONS[0],
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
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, style: str) -> bool:
        # Named here, the host leaves the style to execute: what it says itself of one that is not
        # there ("Some input values are not available") tells nobody what to do.
        return True

    @classmethod
    def fingerprint_inputs(cls, style: str, precision: str = "auto") -> tuple[str, int, int]:
        # An unknown style is refused by execute; here it only has no file.
        path = find_weights(_STYLES[style]) if style in _STYLES else None
        path = _in_model_folders(style) or path
        with contextlib.suppress(OSError):
            if path:
                found = os.stat(path)
                return str(path), found.st_mtime_ns, found.st_size
        return "", time.monotonic_ns(), 0  # what failed is tried again, and not remembered

    @classmethod
    def execute(cls, style: str, precision: str = "auto") -> io.NodeOutput:
        try:
            path = _in_model_folders(style) or _downloaded(_known(style))
            generator = load_generator(path, device=host.offload_device(), dtype=_dtype(precision))
        except AnimeBGError as error:
            host.tell(str(error))  # newer hosts hide it below a traceback
            if host.others_go_on(getattr(cls.hidden, "prompt", None)):
                _log.warning("%s: %s", host.printable(style), error)
                # With a value, since hosts drop an output that has none, block and all.
                return io.NodeOutput(None, block_execution=str(error))
            raise error from None  # the host prints all that led to it otherwise
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
                "Paints images as anime backgrounds; they keep their size. Colours come from the "
                "whole image, so that there are no tiles and no seams. Transparency is kept."
            ),
            search_aliases=ALIASES,
            inputs=[
                AnimeBGModel.Input("model", tooltip="From Load AnimeBG Model."),
                io.Image.Input("image", tooltip="One image or a batch, of any size."),
                inputs.fraction(
                    "strength",
                    optional=False,
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
                inputs.painting_size("image"),
                io.Combo.Input(
                    "detail",
                    options=list(DETAILS),
                    default=DETAILS[0],
                    optional=True,
                    tooltip=(
                        "Whose edges a larger image gets: the photo's, or those of the painting at "
                        "full size, which takes the time of painting that as well."
                    ),
                ),
                inputs.fraction(
                    "colour",
                    tooltip="1: the painting's colours, 0: the photo's with the painting's light.",
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
                io.Combo.Input(
                    "batch",
                    options=list(_BATCHES),
                    default=_BATCHES[0],
                    optional=True,
                    tooltip=(
                        "images: each of a batch is painted for itself. frames: they are a film in "
                        "order, painted steady, with one set of colours for each shot."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Same size, batch and channels."),
                io.String.Output(
                    display_name="info",
                    tooltip=(
                        "Style, size, memory and time of the run: what helps to report trouble."
                    ),
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
        painting_size: int = DEFAULT_PAINTING_SIZE,
        detail: Detail = "photo",
        colour: float = 1.0,
        memory_limit_gb: float = 0.0,
        batch: str = "images",
    ) -> io.NodeOutput:
        inputs.check("batch", batch, _BATCHES)
        started, memory = time.monotonic(), host.Memory(model)
        model.load(0)  # a plan depends on where the network runs
        painter = Painter(
            model.generator,
            strength=strength,
            mask=mask,
            painting_size=painting_size,
            detail=detail,
            colour=colour,
            memory_limit=int(memory_limit_gb * 1e9) or None,
            memory=memory,
        )
        bar = host.Bar(_left(len(image)))
        try:
            if batch == "frames":
                painted = _paint_frames(painter, image, bar)
            else:
                painted = painter.paint_images(image, progress=bar, preview=bar.show)
        except MemoryBudgetError as error:
            raise _in_gb(error, memory_limit_gb) from None
        took = f"{memory.reserved / 1e9:.1f} GB, {time.monotonic() - started:.1f} s"
        info = f"{_empty_masks(mask)}{model.name}, {_sizes(image, painting_size)}, {took}"
        host.tell(info)
        return io.NodeOutput(host.to_host(painted), info)


class AnimeBGBlendModels(io.ComfyNode):
    """Two models to one between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            node_id="AnimeBGBlendModels",
            display_name="Blend AnimeBG Models",
            category=CATEGORY,
            description=(
                "Mixes two styles into one: the mean of their weights. Published ones mix with "
                "published ones, (Lite) with (Lite); chain the node for more than two."
            ),
            search_aliases=["mix styles", "merge models", "blend styles", *ALIASES],
            inputs=[
                AnimeBGModel.Input("model_a", tooltip="From Load AnimeBG Model, or a blend."),
                AnimeBGModel.Input("model_b", tooltip="Another one of the same size."),
                inputs.fraction(
                    "amount",
                    default=0.5,
                    tooltip="0 is model_a, 1 is model_b; between them a mixture of both.",
                ),
            ],
            outputs=[AnimeBGModel.Output(display_name="model", tooltip="For Apply AnimeBG Style.")],
        )

    @classmethod
    def execute(
        cls, model_a: LoadedModel, model_b: LoadedModel, amount: float = 0.5
    ) -> io.NodeOutput:
        parts = [(model_a, 1 - amount), (model_b, amount)]
        mixed = blend_generators([(model.generator, share) for model, share in parts])
        name = " + ".join(f"{share:.0%} {_one(model.name)}" for model, share in parts if share)
        return io.NodeOutput(LoadedModel(mixed.to(host.offload_device()), name))


class AnimeBGExtension(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        host.register_model_folder(SUFFIXES)
        return [
            AnimeBGLoadModel,
            AnimeBGApplyStyle,
            AnimeBGApplyStyleToVideo,
            AnimeBGBlendModels,
            AnimeBGSamplePhoto,
            AnimeBGSampleVideo,
        ]


# --- Running ---


def _in_gb(error: MemoryBudgetError, limit: float) -> MemoryBudgetError:
    """The error, where the user's own limit is too low with the value to set it to."""
    if not limit:
        return error
    least = math.ceil(error.needed / 1e8) / 10
    text = (
        f"memory_limit_gb is {limit:g}, too little to paint this image: set it to {least:g} or "
        "more, or to 0 for what ComfyUI reports free"
    )
    return MemoryBudgetError(text, needed=error.needed, available=error.available)


def _paint_frames(painter: Painter, images: torch.Tensor, bar: host.Bar) -> torch.Tensor:
    """The images as frames of a film in order."""
    # Here, since PyAV takes a second to load.
    from .animebg_core.film.batch import paint_batch

    def tell(done: float) -> None:
        bar(done, len(images))

    return paint_batch(images, painter, tell=tell, finished=bar.show)


def _left(count: int) -> Callable[[float, int], str]:
    """Says which of `count` images is painted, and how long it takes still."""
    started = time.monotonic()

    def say(done: float, total: int) -> str:
        number = min(count, 1 + int(count * done // max(total, 1)))
        text = f"image {number} of {count}" if count > 1 else "painting"
        spent = time.monotonic() - started
        # The first moments tell nothing yet.
        return f"{text}, {spent * (total - done) / done:.0f} s left" if spent > 1 < done else text

    return say


def _empty_masks(mask: torch.Tensor | None) -> str:
    """Says that a mask is empty, since people wonder then why nothing was painted."""
    if mask is None:
        return ""
    masks = mask.reshape(-1, *mask.shape[-2:])
    empty = sum(not bool(one.any()) for one in masks)
    which = (
        "the mask is empty" if empty == len(masks) else f"{empty} of {len(masks)} masks are empty"
    )
    return f"{which}: nothing is painted there. " if empty else ""


def _sizes(image: torch.Tensor, painting_size: int) -> str:
    """How many images of which size, and at which they are painted, if it is another."""
    count, height, width = image.shape[:3]
    small = painted_size(height, width, painting_size)
    text = f"{count} x " if count > 1 else ""
    text += f"{width} x {height}"
    return text if small == (height, width) else f"{text} by way of {small[1]} x {small[0]}"


def _one(name: str) -> str:
    """A model's name where it stands among others: a blend's in brackets, with its own shares."""
    return f"({name})" if " + " in name else name


def _dtype(precision: str) -> torch.dtype:
    inputs.check("precision", precision, _PRECISIONS)
    if precision != "auto":
        return PRECISIONS[precision]
    return torch.float16 if host.fp16_is_good() else torch.float32


# --- Files ---


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

    def say(done: float, total: int) -> str:
        if done:
            return f"downloading {style.label}: {int(done) // 10**6} of {total // 10**6} MB"
        if time.monotonic() < started + 2:
            return f"connecting, to download {style.label}"
        return f"no answer yet; instead of waiting, {by_hand(style, folder)}"

    return resolve_weights(style.key, folder=folder, progress=host.Bar(say))


def _known(option: str) -> Style:
    """The built-in style of a loader's value.

    Raises:
        StyleError: it is neither that nor a file, e.g. one that an old workflow names.
    """
    if option not in _STYLES:
        raise StyleError(
            f'there is no style "{host.printable(option)}": choose one of {", ".join(_options())}, '
            f"or put the file into {host.model_folder()} and refresh the page's node definitions "
            "(key R)"
        )
    return _STYLES[option]
