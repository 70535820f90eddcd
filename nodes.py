"""The two ComfyUI nodes: schemas, and the door between the host's memory manager and `stylize`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

from .animebg_core import (
    LITE_STYLES,
    STYLES,
    Generator,
    MemoryBudgetError,
    RunPlan,
    Style,
    StyleError,
    load_generator,
    plan_run,
    stylize,
)
from .animebg_core.files.weights import SUFFIXES, find_weights, resolve_weights

FOLDER = "animebg"
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


class LoadedModel:
    """What the loader hands on: a generator in the host's patcher, which moves it between devices.

    Attributes:
        patcher: where the host looks for it, for its accounts of the device's memory.
    """

    def __init__(self, generator: Generator) -> None:
        # The host looks this class up when it starts and may have put another in its place.
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.patcher = patcher(
            AnimeBG(generator),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    @property
    def generator(self) -> Generator:
        """The network, on whichever device the host has it."""
        return self.patcher.model.generator

    def load(self, memory_required: int) -> None:
        """Bring the weights to where they run, and make `memory_required` bytes free there."""
        comfy.model_management.load_models_gpu(
            [self.patcher], memory_required=memory_required, force_full_load=True
        )
        # A host that was told to keep models off the device moves only layers that it knows.
        self.generator.to(self.patcher.load_device)

    def free_memory(self) -> int:
        """Bytes of the device that a run may take: what the host could give, less its reserve."""
        # Newer patchers also count what the host would page out of other models.
        ask = getattr(self.patcher, "get_free_memory", comfy.model_management.get_free_memory)
        free = ask(self.patcher.load_device) - comfy.model_management.extra_reserved_memory()
        return max(0, int(free))


class AnimeBG(torch.nn.Module):
    """Holds the generator: the patcher sets attributes, `device` too, on the module it is given."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator


class AnimeBGLoadModel(io.ComfyNode):
    """Style and precision to a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
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
                _advanced(
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
            folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
            path = resolve_weights(_known(style).key, folder=folder, progress=_progress())
        generator = load_generator(
            path, device=comfy.model_management.unet_offload_device(), dtype=_dtype(precision)
        )
        return io.NodeOutput(LoadedModel(generator))


class AnimeBGApplyStyle(io.ComfyNode):
    """Model and image to the painted image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
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
                _advanced(
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
                    progress=_progress(),
                )
                return io.NodeOutput(_intermediate(painted))
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            # Not above: while the error lives, its traceback holds the tensors of the failed try.
            comfy.model_management.soft_empty_cache()
            plan = _smaller(plan, model, image, mask is not None)


class AnimeBGExtension(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        _register_model_folder()
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


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the computer, had no room left."""
    asked = getattr(comfy.model_management, "is_oom", None)
    if asked is not None and asked(error):
        return True
    # Older hosts know one backend's class; the others and the main memory say it in words.
    text = str(error).lower()
    return any(words in text for words in _NO_ROOM)


def _intermediate(image: torch.Tensor) -> torch.Tensor:
    """The image where, and in the numbers in which, this host passes images between nodes."""
    ask = getattr(comfy.model_management, "intermediate_dtype", None)
    dtype = ask() if ask else torch.float32
    return image.to(comfy.model_management.intermediate_device(), dtype)


def _progress() -> Callable[[int, int], None]:
    """Moves the node's bar, and raises as soon as the user has cancelled."""
    bar = comfy.utils.ProgressBar(1000)

    def report(done: int, total: int) -> None:
        # Itself, since the bar looks for a cancel only when it redraws.
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(1000 * done // max(total, 1))

    return report


def _dtype(precision: str) -> torch.dtype:
    if precision != "auto":
        return _DTYPES[precision]
    device = comfy.model_management.get_torch_device()
    return torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32


# --- Files ---


def _register_model_folder() -> None:
    """Make models/animebg a model folder, behind those that extra_model_paths.yaml named before."""
    own = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.add_model_folder_path(FOLDER, own)
    folders, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (folders, {*extensions, *SUFFIXES})
    with contextlib.suppress(OSError):  # it is there so that people find where files go
        os.makedirs(own, exist_ok=True)


def _files() -> list[str]:
    """Checkpoints in the model folders, by their paths there."""
    # What begins with a dot is a download that is not finished.
    return [name for name in folder_paths.get_filename_list(FOLDER) if not name.startswith(".")]


def _is_file_of(style: Style, name: str) -> bool:
    return Path(name).stem == Path(style.file).stem


def _options() -> list[str]:
    """The loader's values: the built-in styles' labels, then every other checkpoint."""
    own = [n for n in _files() if not any(_is_file_of(s, n) for s in _STYLES.values())]
    return [*_STYLES, *own]


def _in_model_folders(option: str) -> Path | None:
    """The file of a loader's value in the model folders, if it is there."""
    style = _STYLES.get(option)
    names = [n for n in _files() if (_is_file_of(style, n) if style else n == option)]
    # A converted file first, as everywhere in this project.
    names.sort(key=lambda name: not name.endswith(SUFFIXES[0]))
    return Path(folder_paths.get_full_path_or_raise(FOLDER, names[0])) if names else None


def _known(option: str) -> Style:
    """The built-in style of a loader's value.

    Raises:
        StyleError: it is neither that nor a file, e.g. one that an old workflow names.
    """
    if option not in _STYLES:
        folder = folder_paths.get_folder_paths(FOLDER)[0]
        raise StyleError(
            f'there is no style "{option}": choose one of {", ".join(_options())}, '
            f"or put the file into {folder} and refresh the page's node definitions (key R)"
        )
    return _STYLES[option]


# --- Schemas across host versions ---


def _schema(**options: Any) -> io.Schema:
    """The schema with those options that this host knows; older ones refuse the newer."""
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(**{name: value for name, value in options.items() if name in known})


def _advanced(widget: io.WidgetInput) -> io.WidgetInput:
    """The widget, folded away where the host can do that; older constructors know no such thing."""
    widget.extra_dict["advanced"] = True
    return widget
