"""What no request can show, checked inside the host: python tests/comfy_inside.py SCRATCH_FOLDER.

Run by test_comfy.py in the host's folder, with the host's interpreter. Prints what it measured.
"""

# ruff: noqa: E402, I001, TID251 - a host's modules, imported in the order that the host needs

import asyncio
import contextlib
import gc
import importlib
import inspect
import json
import sys
import time
import weakref
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = Path.cwd()
sys.path[:0] = [str(HOST), str(ROOT / "tests")]
SCRATCH = Path(sys.argv[1])
sys.argv = ["main.py", "--cpu", "--base-directory", str(SCRATCH)]

import comfy.options

comfy.options.enable_args_parsing()  # before anything reads the arguments

import comfy.cli_args
import comfy_config.config_parser  # noqa: F401 - the server has it before it comes to the packs
import comfy.model_management as management
import comfy.model_patcher
import comfy_stand_ins
import folder_paths
import node_contract
import nodes as host_nodes
import oracle
import torch
from comfy_api.latest import io
from safetensors.torch import save_file


def load_pack():
    """The pack's module `nodes`, loaded as the server does, and the CPU seconds that it took."""
    custom = SCRATCH / "custom_nodes"
    custom.mkdir(parents=True)
    (custom / "animebg").symlink_to(ROOT, target_is_directory=True)
    # Python's collector looks through all that the host has loaded (0.4 s) when enough is new,
    # wherever that falls: it is not to fall here.
    gc.collect()
    started, clock = time.process_time(), time.perf_counter()
    assert asyncio.run(host_nodes.load_custom_node(str(custom / "animebg")))
    took = time.process_time() - started
    print(f"import: {took:.3f} s of CPU, {time.perf_counter() - clock:.3f} s on the clock")
    return sys.modules[host_nodes.NODE_CLASS_MAPPINGS["AnimeBGLoadModel"].__module__], took


def loaded(patcher) -> bool:
    return any(entry.model is patcher for entry in management.current_loaded_models)


def check_stand_ins() -> None:
    """The unit tests' stand-ins have only what this host has, called as it wants to be called."""
    for module, name, own in comfy_stand_ins.functions():
        theirs = getattr(importlib.import_module(module), name, None)
        if theirs is None:
            assert (module, name) in comfy_stand_ins.NEWER, f"{module}.{name} is not in this host"
            continue
        wanted = list(inspect.signature(own).parameters)
        there = list(inspect.signature(theirs).parameters)
        missing = [one for one in wanted if one not in there]
        assert not missing, f"{module}.{name} takes {there}, the stand-in {wanted}"


def check_eviction(pack, network) -> None:
    """Another model under a tight budget sends ours away, and ours, wanted again, sends it away.

    "cpu:0" is the CPU under a name that the host does not except from its accounts.
    """
    model = network()
    other = comfy.model_patcher.ModelPatcher(
        torch.nn.ParameterList([torch.zeros(512, 512)]), torch.device("cpu:0"), torch.device("cpu")
    )
    model.patcher.load_device = torch.device("cpu:0")
    size = other.model_size() + model.patcher.model_size()

    def free(device=None, torch_free_too=False):
        used = sum(e.model.loaded_size() for e in management.current_loaded_models)
        room = management.minimum_inference_memory() + 1.3 * size / 2 + 100_000 - used
        return (room, room) if torch_free_too else room

    real, management.get_free_memory = management.get_free_memory, free
    try:
        image = torch.rand(1, 24, 24, 3)
        apply = pack.AnimeBGApplyStyle.execute
        before = apply(model, image, memory_limit_gb=1.0)[0]
        assert loaded(model.patcher)
        management.load_models_gpu([other], force_full_load=True)
        print("other loaded:", loaded(other), "ours:", loaded(model.patcher))
        assert loaded(other) and not model.patcher.loaded_size()
        after = apply(model, image, memory_limit_gb=1.0)[0]
        print("back: ours:", loaded(model.patcher), "other:", loaded(other))
        assert loaded(model.patcher) and not other.loaded_size()
        assert torch.equal(before, after)
    finally:
        management.get_free_memory = real
        management.unload_all_models()


def check_nothing_stays(network) -> None:
    """When the workflow lets go of a model, the network goes from memory."""
    model = network()
    model.load(0)
    kept = weakref.ref(model.generator)
    del model
    gc.collect()
    management.cleanup_models_gc()
    gc.collect()
    assert kept() is None


def check_intermediates(pack, network) -> None:
    """--fp16-intermediates and its like: what comes out is what the host wants between nodes."""
    ask = getattr(management, "intermediate_dtype", None)
    if ask is None:
        return
    comfy.cli_args.args.fp16_intermediates = True
    try:
        image = torch.rand(1, 20, 24, 3)
        exact = pack.AnimeBGApplyStyle.execute(network(), image)[0]
        half = pack.AnimeBGApplyStyle.execute(network(), image.half())[0]
        assert exact.dtype == half.dtype == torch.float16
        assert (exact.float() - half.float()).abs().max() < 0.02  # fp16 input: 1/2048 in, amplified
    finally:
        comfy.cli_args.args.fp16_intermediates = False
    assert pack.AnimeBGApplyStyle.execute(network(), image)[0].dtype == torch.float32


def check_cancel(pack, network) -> None:
    """The host's interrupt comes through as itself, whatever its class, and is taken back."""
    management.interrupt_current_processing(True)
    with contextlib.suppress(management.InterruptProcessingException):
        pack.AnimeBGApplyStyle.execute(network(), torch.rand(2, 20, 24, 3))
        raise AssertionError("not cancelled")
    assert not management.processing_interrupted()


def main() -> None:
    pack, took = load_pack()
    assert took < 0.1
    checkpoint = Path(folder_paths.get_folder_paths("animebg")[0]) / "small.safetensors"
    save_file(oracle.random_state(), checkpoint)

    def network():
        return pack.AnimeBGLoadModel.execute("small.safetensors")[0]

    with torch.inference_mode():
        check_stand_ins()
        check_eviction(pack, network)
        check_nothing_stays(network)
        check_intermediates(pack, network)
        check_cancel(pack, network)
    # Every input of all nodes, as the unit tests see them on the stand-ins.
    schemas = [getattr(pack, name).define_schema() for name in node_contract.CONTRACT]
    broken = node_contract.broken_promises(node_contract.promised_by_schema(schemas))
    assert not broken, json.dumps(broken)
    assert isinstance(schemas[0], io.Schema)


main()
