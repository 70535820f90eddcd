"""All that is asked of ComfyUI: memory, progress, cancel, folders, schemas across its versions.

nodes.py has the nodes; nothing here knows of styles or widgets.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from PIL import Image

from .animebg_core import Generator
from .animebg_core.engine.device import out_of_memory

FOLDER = "animebg"  # the model folder's name in the host: models/animebg

_STEPS = 1000  # of the bar
_PREVIEW = 512  # longer side of a preview, in pixels


# --- Memory ---


class LoadedModel:
    """What the loader hands on: a generator in the host's patcher, which moves it between devices.

    Attributes:
        name: of the style, for people.
        patcher: where the host looks for it, for its accounts of the device's memory.
    """

    def __init__(self, generator: Generator, name: str = "") -> None:
        self.name = name
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


class Memory:
    """The host's memory where a model runs, as `Painter` asks for it.

    Attributes:
        reserved: bytes that the last try was given.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model, self.reserved = model, 0

    def free(self) -> int:
        """What the host could give, in bytes, less its reserve."""
        return self._model.free_memory()

    def reserve(self, count: int) -> None:
        """Bring the model to where it runs, and make so many bytes free there."""
        self.reserved = count
        self._model.load(count)

    def exhausted(self, error: BaseException) -> bool:
        """Whether the host, or torch, says that there was no room left."""
        asked = getattr(comfy.model_management, "is_oom", None)  # older hosts have none
        return (asked is not None and asked(error)) or out_of_memory(error)

    def release(self) -> None:
        """Give back what torch keeps for later."""
        comfy.model_management.soft_empty_cache()


def to_host(image: torch.Tensor) -> torch.Tensor:
    """The image where, and in the numbers in which, this host passes images between nodes."""
    ask = getattr(comfy.model_management, "intermediate_dtype", None)
    dtype = ask() if ask else torch.float32
    return image.to(comfy.model_management.intermediate_device(), dtype)


def offload_device() -> torch.device:
    """Where networks lie that do not run."""
    return comfy.model_management.unet_offload_device()


def fp16_is_good() -> bool:
    """Whether the device that runs networks is good at fp16, as the host sees it."""
    return comfy.model_management.should_use_fp16(comfy.model_management.get_torch_device())


# --- What people see while it runs ---


class Bar:
    """The bar of the node that runs, the line of text on it, and pictures of what is coming.

    Called with (work done, work in all), it raises as soon as the user has cancelled. A fraction of
    what is being done counts too.
    """

    def __init__(self, say: Callable[[float, int], str] | None = None) -> None:
        """`say` gives the line of text for the work done and the work in all."""
        self._bar = comfy.utils.ProgressBar(_STEPS)
        self._say, self._said, self._step = say, -math.inf, 0

    def __call__(self, done: float, total: int) -> None:
        # Itself, since the bar looks for a cancel only when it redraws.
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._step = int(_STEPS * done // max(total, 1))
        self._bar.update_absolute(self._step)
        if self._say and time.monotonic() >= self._said + 1:
            self._said = time.monotonic()
            tell(self._say(done, total))

    def show(self, images: torch.Tensor) -> None:
        """Send the first of the images [B, H, W, 3], in [0, 1], to the node as a preview."""
        pixels = images[0].float().mul(255).round().byte().cpu()
        picture = Image.fromarray(pixels.numpy())
        # The host shrinks it; a side of which it leaves nothing would end the whole server.
        least = math.ceil(max(picture.size) / _PREVIEW)
        if min(picture.size) < least:
            width, height = picture.size
            picture = picture.resize((max(width, least), max(height, least)))
        preview = ("JPEG", picture, _PREVIEW)
        self._bar.update_absolute(self._step, _STEPS, preview)


def tell(text: str) -> None:
    """Show a line of text on the node that runs, where the host has a page to show it on."""
    server, context = getattr(sys.modules.get("server"), "PromptServer", None), _running()
    if server is not None and context is not None:
        server.instance.send_progress_text(text, context.node_id, server.instance.client_id)


def others_go_on(prompt: dict[str, Any] | None) -> bool:
    """Whether the workflow still makes something when the node that runs fails.

    Then that node is to block what needs it, and not to raise, which would stop the rest too.
    """
    context = _running()
    if not prompt or context is None or context.node_id not in prompt:
        return False
    if context.prompt_id not in _blocking:
        _blocking.clear()
    failed = _blocking.setdefault(context.prompt_id, set())
    failed.add(context.node_id)
    uses = {
        name: {link[0] for link in one["inputs"].values() if _is_link(link)}
        for name, one in prompt.items()
    }
    lost, more = set(failed), set(failed)
    while more:
        more = {name for name, used in uses.items() if used & more} - lost
        lost |= more
    used = set[str]().union(*uses.values())
    # What nobody uses and uses others is there to be seen; a photo that waits for a wire is not.
    return any(uses[name] and name not in used for name in uses.keys() - lost)


_blocking: dict[str, set[str]] = {}  # the workflow that runs, and its nodes that have failed


def _is_link(value: Any) -> bool:
    """Whether an input's value is another node's output, and not its own."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _running() -> Any:
    """The node that runs, and its workflow's id, where the host says so."""
    ask = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", None)
    return ask() if ask else None


# --- Folders ---


def register_model_folder(suffixes: Iterable[str]) -> None:
    """Make models/animebg a model folder, behind those that extra_model_paths.yaml named before."""
    own = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.add_model_folder_path(FOLDER, own)
    folders, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (folders, {*extensions, *suffixes})
    with contextlib.suppress(OSError):  # it is there so that people find where files go
        os.makedirs(own, exist_ok=True)


def model_files() -> list[str]:
    """Checkpoints in the model folders, by their paths there."""
    folders = folder_paths.get_folder_paths(FOLDER)
    return [
        name
        for name in folder_paths.get_filename_list(FOLDER)
        if not name.startswith(".")  # a download that is not finished
        and printable(name) == name  # a host that prints it loses the thread that runs prompts
        and any(os.path.isfile(os.path.join(folder, name)) for folder in folders)  # no dead link
    ]


def printable(text: str) -> str:
    """The text, with escapes for what no UTF-8 has, such as the bytes of a file's odd name."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def model_folder() -> Path:
    """The first of the model folders: downloads go there."""
    return Path(folder_paths.get_folder_paths(FOLDER)[0])


def model_path(name: str) -> Path:
    """The whole path of one of `model_files`."""
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def temporary_folder() -> Path:
    """Where files lie that other nodes read; emptied when the host starts."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def work_folder() -> Path:
    """Where films lie in pieces until they are complete; it outlives the host."""
    folder = Path(folder_paths.get_output_directory()) / ".animebg"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- Schemas across host versions ---


def schema(**options: Any) -> io.Schema:
    """The schema with those options that this host knows; older ones refuse the newer."""
    known = {field.name for field in fields(io.Schema)}
    return io.Schema(**{name: value for name, value in options.items() if name in known})


def with_data(widget: io.WidgetInput, name: str, data: Any) -> io.WidgetInput:
    """The widget, with `data` under `name` for the pack's own script in the page."""
    widget.extra_dict[name] = data
    return widget


def advanced(widget: io.WidgetInput) -> io.WidgetInput:
    """The widget, folded away where the host can do that; older constructors know no such thing."""
    widget.extra_dict["advanced"] = True
    return widget
