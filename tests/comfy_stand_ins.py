"""As much of ComfyUI as nodes.py touches, for machines without one.

comfy_inside.py holds `functions()` against the real hosts: a name that they lack, or an argument
that they do not take, is an error there. `NEWER` are those that the older host lacks.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch

NEWER = {
    ("comfy.model_management", "is_oom"),
    ("comfy.model_management", "intermediate_dtype"),
    ("comfy.model_patcher", "CoreModelPatcher"),
}


class Interrupted(Exception):  # noqa: N818 - no error
    """The host's InterruptProcessingException, which is a plain Exception in 0.3.64."""


@dataclass
class Answers:
    """What the host says when it is asked, to be set by a test, and what it was told."""

    models: Path
    load_device: Any = torch.device("cpu")
    offload_device: Any = torch.device("cpu")
    intermediate_device: Any = torch.device("cpu")
    intermediate_dtype: torch.dtype = torch.float32
    fp16: bool = False
    free: int = 4 << 30
    cancelled: bool = False
    moves: bool = True  # load_models_gpu really moves the weights
    loads: list[dict] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    previews: list[tuple] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)  # and the nodes that showed them
    emptied: int = 0


def install(answers: Answers) -> None:
    """Put the stand-ins into sys.modules, all newer names included."""
    for name, module in _modules(answers).items():
        sys.modules[name] = module


def functions() -> Iterator[tuple[str, str, Callable]]:
    """Module, name and stand-in of everything that can be called."""
    for name, module in _modules(Answers(Path())).items():
        for attribute, value in vars(module).items():
            if callable(value) and not attribute.startswith("_"):
                if inspect.isclass(value) and "__init__" not in vars(value):
                    continue
                yield name, attribute, value


def _modules(answers: Answers) -> dict[str, types.ModuleType]:
    parts = {
        "comfy": {},
        "comfy.model_management": _management(answers),
        "comfy.model_patcher": _patcher(),
        "comfy.utils": _utils(answers),
        "folder_paths": _folders(answers),
        "comfy_execution": {},
        "comfy_execution.utils": {"get_executing_context": lambda: _Context("7")},
        "server": {"PromptServer": types.SimpleNamespace(instance=_Server(answers))},
        "comfy_api": {},
        "comfy_api.latest": {
            "io": _io(),
            "ComfyExtension": type("ComfyExtension", (), {}),
            "InputImpl": types.SimpleNamespace(
                VideoFromFile=_VideoFromFile, VideoFromComponents=_VideoFromComponents
            ),
            "Types": types.SimpleNamespace(VideoComponents=types.SimpleNamespace),
        },
    }
    modules = {}
    for name, content in parts.items():
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update(content)
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return modules


class _VideoFromFile:
    """A video in a file, and the part of it that is meant."""

    def __init__(self, file, *, start_time=0.0, duration=0.0) -> None:
        self._file, self._window = file, (start_time, duration)

    def get_stream_source(self):
        return self._file

    def get_active_trim_window(self):
        return self._window


class _VideoFromComponents:
    """A video in memory."""

    def __init__(self, components) -> None:
        self.components = components


@dataclass
class _Context:
    node_id: str
    prompt_id: str = "a"


class _Server:
    client_id = "page"

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def send_progress_text(self, text, node_id, sid=None) -> None:
        assert sid == self.client_id
        self.answers.texts.append((node_id, text))


def _management(answers: Answers) -> dict[str, Any]:
    def get_torch_device():
        return answers.load_device

    def unet_offload_device():
        return answers.offload_device

    def intermediate_device():
        return answers.intermediate_device

    def intermediate_dtype():
        return answers.intermediate_dtype

    def should_use_fp16(device=None):
        assert device is answers.load_device
        return answers.fp16

    def get_free_memory(dev=None):
        return answers.free

    def extra_reserved_memory():
        return 400 << 20

    def load_models_gpu(models, memory_required=0, force_full_load=False):
        answers.loads.append({"memory": memory_required, "full": force_full_load})
        for patcher in models if answers.moves else ():
            patcher.model.to(patcher.load_device)

    def soft_empty_cache():
        answers.emptied += 1

    def throw_exception_if_processing_interrupted():
        if answers.cancelled:
            raise Interrupted

    def is_oom(e):
        return isinstance(e, torch.cuda.OutOfMemoryError)

    return {name: value for name, value in locals().items() if callable(value)}


def _patcher() -> dict[str, Any]:
    class ModelPatcher:
        def __init__(self, model, load_device, offload_device) -> None:
            model.device = offload_device  # as the host does: not every module takes it
            self.model, self.load_device, self.offload_device = model, load_device, offload_device

    return {"ModelPatcher": ModelPatcher, "CoreModelPatcher": ModelPatcher}


def _utils(answers: Answers) -> dict[str, Any]:
    class ProgressBar:
        def __init__(self, total) -> None:
            self.total = total

        def update_absolute(self, value, total=None, preview=None) -> None:
            if preview is None:
                answers.progress.append((value, self.total))
            else:
                answers.previews.append(preview)

    return {"ProgressBar": ProgressBar}


def _folders(answers: Answers) -> dict[str, Any]:
    known: dict[str, tuple[list[str], set[str]]] = {}

    def add_model_folder_path(folder_name, full_folder_path):
        paths, _ = known.setdefault(folder_name, ([], set()))
        if full_folder_path not in paths:
            paths.append(full_folder_path)

    def get_temp_directory():
        return str(answers.models.parent / "temp")

    def get_output_directory():
        return str(answers.models.parent / "output")

    def get_folder_paths(folder_name):
        return known[folder_name][0][:]

    def get_filename_list(folder_name):
        paths, extensions = known[folder_name]
        files = [(p, f) for p in paths for f in Path(p).rglob("*") if not f.is_dir()]
        found = {str(f.relative_to(p)) for p, f in files}  # links to nowhere too
        return sorted(name for name in found if Path(name).suffix in extensions)

    def get_full_path_or_raise(folder_name, filename):
        for path in known[folder_name][0]:
            if (Path(path) / filename).is_file():
                return str(Path(path) / filename)
        raise FileNotFoundError(filename)

    return {
        "models_dir": str(answers.models),
        "folder_names_and_paths": known,
        "add_model_folder_path": add_model_folder_path,
        "get_folder_paths": get_folder_paths,
        "get_temp_directory": get_temp_directory,
        "get_output_directory": get_output_directory,
        "get_filename_list": get_filename_list,
        "get_full_path_or_raise": get_full_path_or_raise,
    }


class _Input:
    """An input of a schema: what it was given, as attributes."""

    def __init__(self, id, optional=False, tooltip=None, **options) -> None:  # noqa: A002
        self.id, self.optional, self.tooltip, self.extra_dict = id, optional, tooltip, {}
        for name, value in options.items():
            setattr(self, name, value)

    def get_io_type(self) -> str:
        return type(self).io_type


class _Output:
    def __init__(self, display_name=None, tooltip=None) -> None:
        self.display_name, self.tooltip = display_name, tooltip

    def get_io_type(self) -> str:
        return type(self).io_type


def _io() -> types.SimpleNamespace:
    @dataclass
    class Schema:
        node_id: str
        display_name: str
        category: str
        description: str
        inputs: list
        outputs: list
        search_aliases: list = field(default_factory=list)
        hidden: list = field(default_factory=list)

    class NodeOutput(tuple):
        def __new__(cls, *values, block_execution=None):
            output = super().__new__(cls, values)
            output.block_execution = block_execution
            return output

    class NumberDisplay(str, Enum):
        number = "number"
        slider = "slider"

    def custom(io_type: str):
        own = {"io_type": io_type}
        return types.SimpleNamespace(
            Input=type("Input", (_Input,), own), Output=type("Output", (_Output,), own)
        )

    kinds = {
        name: custom(name.upper())
        for name in ("Combo", "Float", "Image", "Mask", "Int", "String", "Video")
    }
    return types.SimpleNamespace(
        Schema=Schema,
        NodeOutput=NodeOutput,
        NumberDisplay=NumberDisplay,
        ComfyNode=type("ComfyNode", (), {"hidden": None}),
        Hidden=types.SimpleNamespace(prompt="PROMPT"),
        WidgetInput=_Input,
        Custom=custom,
        **kinds,
    )
