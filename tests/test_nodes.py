"""The nodes on stand-ins for the host; comfy_inside.py holds the stand-ins against real ones."""

import asyncio
import importlib
import importlib.util
import io
import json
import os
import re
import sys
from pathlib import Path

import comfy_stand_ins
import numpy as np
import oracle
import pytest
import torch
from comfy_stand_ins import Answers, Interrupted
from node_contract import CONTRACT, broken_promises, promised_by_schema
from PIL import Image, ImageOps
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
LABELS = ["Makoto Shinkai", "Mamoru Hosoda", "Hayao Miyazaki", "Satoshi Kon"]
LOCALES = ("en", "ja", "zh")
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))


# --- Fixtures ---


@pytest.fixture(autouse=True)
def one_thread():
    """The pictures are small: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def host(tmp_path, monkeypatch) -> Answers:
    """A host that answers as it is told, with an empty models folder."""
    for name in ("comfy", "comfy.model_management", "comfy.model_patcher", "comfy.utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    answers = Answers(models=tmp_path / "models")
    before = dict(sys.modules)
    comfy_stand_ins.install(answers)
    yield answers
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in (
            "comfy",
            "comfy_api",
            "comfy_execution",
            "folder_paths",
            "pack",
            "server",
        ):
            del sys.modules[name]


@pytest.fixture
def nodes(host, monkeypatch):
    """nodes.py, loaded as a host loads the pack: its folder is a package of any name."""
    monkeypatch.setenv("ANIMEBG_WEIGHTS_DIR", str(host.models / "none"))
    monkeypatch.setenv("HF_HUB_CACHE", str(host.models / "none"))
    spec = importlib.util.spec_from_file_location(
        "pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = package
    spec.loader.exec_module(package)
    extension = asyncio.run(package.comfy_entrypoint())
    asyncio.run(extension.get_node_list())
    return sys.modules["pack.nodes"]


@pytest.fixture
def folder(host, nodes) -> Path:
    return host.models / "animebg"


@pytest.fixture
def model(nodes, checkpoint):
    """A loaded small network."""
    return nodes.LoadedModel(nodes.load_generator(checkpoint))


@pytest.fixture
def painter(nodes):
    """The pack's own module of that name, where plans and retries are."""
    return sys.modules[nodes.Painter.__module__]


def schemas(nodes) -> list:
    return [getattr(nodes, name).define_schema() for name in CONTRACT]


def put(folder: Path, name: str, seed: int = 0) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    save_file(oracle.random_state(seed=seed), folder / name)
    return folder / name


def options(nodes) -> list[str]:
    return schemas(nodes)[0].inputs[0].options


# --- The promise ---


def test_saved_workflows_find_all_that_they_were_promised(nodes):
    assert broken_promises(promised_by_schema(schemas(nodes))) == []


def test_a_broken_promise_is_noticed():
    def changed(**spec) -> dict:
        now = json.loads(json.dumps(CONTRACT))
        now["AnimeBGApplyStyle"]["inputs"].update(spec)
        return now

    fine = {"type": "FLOAT", "required": False, "default": 0.0}
    assert broken_promises(changed(more=fine)) == []
    assert broken_promises(changed(more={**fine, "required": True}))
    assert broken_promises(changed(more={"type": "FLOAT", "required": False}))
    assert broken_promises(changed(strength={**fine, "required": True}))
    without = changed()
    del without["AnimeBGApplyStyle"]["inputs"]["mask"]
    assert broken_promises(without) == ["AnimeBGApplyStyle.mask is gone"]
    other = changed()
    other["AnimeBGLoadModel"]["inputs"]["precision"]["options"].remove("bf16")
    other["AnimeBGLoadModel"]["outputs"][0]["type"] = "MODEL"
    assert len(broken_promises(other)) == 2


# --- The loader ---


def test_the_loader_lists_styles_then_files_and_no_style_twice(nodes, folder):
    put(folder, "zebra.safetensors")
    put(folder, "own/alpha.safetensors")
    put(folder, "own/shinkai_makoto.safetensors")
    put(folder, "kon_satoshi.safetensors")
    put(folder, ".animebg-download/kon/snapshots/kon_satoshi.safetensors")
    put(folder, ".animebg-download/part.safetensors")
    (folder / "README.md").write_text("not a model")
    (folder / "unmounted.safetensors").symlink_to("nowhere")
    listed = options(nodes)
    shown = schemas(nodes)[0].inputs[0].extra_dict["animebg_styles"]
    assert list(shown) == listed[:8]
    assert shown["Satoshi Kon"] == {"picture": "kon", "download": 0}
    assert shown["Hayao Miyazaki"] == {"picture": "miyazaki", "download": 45}
    assert all((ROOT / f"web/pictures/{s['picture']}.jpg").is_file() for s in shown.values())
    assert listed[:4] == LABELS
    assert listed[-2:] == ["own/alpha.safetensors", "zebra.safetensors"]
    lite = [style.label for style in nodes.LITE_STYLES.values()]
    assert listed[4:-2] == lite


def test_the_model_folder_joins_those_of_extra_model_paths(host, nodes, tmp_path):
    folders = sys.modules["folder_paths"]
    folders.folder_names_and_paths.clear()
    # As extra_model_paths.yaml leaves it: a folder, and no extensions, which would list any file.
    folders.add_model_folder_path("animebg", str(tmp_path / "elsewhere"))
    nodes.host.register_model_folder(nodes.SUFFIXES)
    nodes.host.register_model_folder(nodes.SUFFIXES)
    paths, extensions = folders.folder_names_and_paths["animebg"]
    assert paths == [str(tmp_path / "elsewhere"), str(host.models / "animebg")]
    assert extensions == {".safetensors", ".pth"}


def test_a_style_in_any_model_folder_is_taken(host, nodes, folder, monkeypatch):
    put(folder, "below/kon_satoshi.safetensors", seed=3)
    monkeypatch.setattr(nodes, "resolve_weights", None)  # nothing else is asked
    model = nodes.AnimeBGLoadModel.execute("Satoshi Kon")[0]
    expected = nodes.load_generator(folder / "below/kon_satoshi.safetensors")
    assert torch.equal(model.generator.input.scale, expected.input.scale)


def test_a_link_to_nowhere_hides_no_file(nodes, folder, monkeypatch):
    (folder / "kon_satoshi.safetensors").symlink_to("nowhere")
    put(folder, "rest/kon_satoshi.safetensors", seed=3)
    monkeypatch.setattr(nodes, "resolve_weights", None)  # nothing else is asked
    assert nodes.AnimeBGLoadModel.execute("Satoshi Kon")[0].generator
    assert nodes.AnimeBGLoadModel.fingerprint_inputs("Satoshi Kon")[0]


def test_a_missing_style_is_downloaded_into_the_first_folder(host, nodes, folder, monkeypatch):
    target = put(folder.parent, "downloaded.safetensors")
    asked = []

    def resolve(key, folder=None, progress=None):
        asked.append((key, folder))
        progress(25, 100)
        return target

    monkeypatch.setattr(nodes, "resolve_weights", resolve)
    nodes.AnimeBGLoadModel.execute("Hayao Miyazaki")
    assert asked == [("miyazaki", folder)]
    assert host.progress == [(250, 1000)]
    host.cancelled = True
    with pytest.raises(Interrupted):
        nodes.AnimeBGLoadModel.execute("Hayao Miyazaki")


def branch(loader):
    """A loader, a painter and a node that saves, as the host passes a workflow to its nodes."""
    return {
        loader: {"inputs": {"style": "Satoshi Kon"}},
        f"{loader}-paint": {"inputs": {"model": [loader, 0], "strength": 1.0}},
        f"{loader}-save": {"inputs": {"images": [f"{loader}-paint", 0]}},
    }


def test_a_missing_style_blocks_its_own_pictures_where_others_go_on(host, nodes, monkeypatch):
    from types import SimpleNamespace

    def resolve(key, **_):
        raise nodes.StyleError(f"{key} is not there")

    monkeypatch.setattr(nodes, "resolve_weights", resolve)
    hidden = SimpleNamespace(prompt=branch("7"))  # what runs, as the stand-in says
    monkeypatch.setattr(nodes.AnimeBGLoadModel, "hidden", hidden)

    def load():
        return nodes.AnimeBGLoadModel.execute("Satoshi Kon")

    with pytest.raises(nodes.StyleError):
        load()
    hidden.prompt["photo"] = {"inputs": {"image": "photo.png"}}  # which waits for a wire
    with pytest.raises(nodes.StyleError):
        load()
    hidden.prompt |= branch("8")
    output = load()
    assert output.block_execution == "kon is not there"
    assert len(output) == 1  # hosts pass over a block without a value
    assert host.texts[-1] == ("7", "kon is not there")
    hidden.prompt["8-paint"]["inputs"]["image"] = ["7-paint", 0]
    with pytest.raises(nodes.StyleError):
        load()


@pytest.mark.parametrize("style", ["Makoto Shinkai v0", "gone.safetensors", "../x.safetensors", ""])
def test_an_unknown_style_is_refused_with_what_to_do(host, nodes, folder, style):
    with pytest.raises(nodes.StyleError) as caught:
        nodes.AnimeBGLoadModel.execute(style)
    text = str(caught.value)
    assert f'no style "{style}"' in text and str(folder) in text and "Satoshi Kon" in text
    assert "\n" not in text
    assert host.texts == [("7", text)]  # on the node's face
    asked = nodes.AnimeBGLoadModel.fingerprint_inputs
    assert asked(style=style) != asked(style=style)  # tried again, whatever came of it
    # Newer hosts would refuse it before, in words of their own, if this did not say otherwise.
    assert nodes.AnimeBGLoadModel.validate_inputs(style) is True


def test_names_that_no_host_can_print_are_not_listed_and_print_as_escapes(nodes, folder):
    try:
        os.link(put(folder, "x.safetensors"), os.fsencode(folder) + b"/od\xff.safetensors")
    except OSError:
        pytest.skip("this file system has no such names")
    assert options(nodes)[8:] == ["x.safetensors"]
    with pytest.raises(nodes.StyleError) as caught:
        nodes.AnimeBGLoadModel.execute("od\udcff.safetensors")
    assert 'no style "od\\udcff.safetensors"' in str(caught.value).encode("utf-8").decode("utf-8")


def test_a_changed_file_is_noticed(nodes, folder):
    fingerprint = nodes.AnimeBGLoadModel.fingerprint_inputs
    assert fingerprint(style="Makoto Shinkai") != fingerprint(style="Makoto Shinkai")
    path = put(folder, "shinkai_makoto.safetensors")
    first = fingerprint(style="Makoto Shinkai", precision="fp16")
    assert first == fingerprint(style="Makoto Shinkai", precision="auto")
    assert first[0] == str(path)
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(style="Makoto Shinkai") != first


@pytest.mark.parametrize(
    ("precision", "fp16", "expected"),
    [
        ("auto", False, torch.float32),
        ("auto", True, torch.float16),
        ("fp32", True, torch.float32),
        ("fp16", False, torch.float16),
        ("bf16", False, torch.bfloat16),
    ],
)
def test_precision_is_the_users_or_the_hosts(host, nodes, folder, precision, fp16, expected):
    put(folder, "own.safetensors")
    host.fp16 = fp16
    model = nodes.AnimeBGLoadModel.execute("own.safetensors", precision)[0]
    assert {p.dtype for p in model.generator.parameters()} == {expected}


def test_values_that_a_list_does_not_have_are_refused(nodes, folder, model):
    put(folder, "own.safetensors")
    with pytest.raises(nodes.AnimeBGError, match="precision is one of auto, fp32"):
        nodes.AnimeBGLoadModel.execute("own.safetensors", "float16")
    image = torch.rand(1, 8, 8, 3)
    with pytest.raises(nodes.AnimeBGError, match="batch is one of images, frames, not film"):
        nodes.AnimeBGApplyStyle.execute(model, image, batch="film")
    with pytest.raises(nodes.AnimeBGError, match="detail is one of photo, painting, not all"):
        nodes.AnimeBGApplyStyle.execute(model, image, detail="all")


# --- Devices ---


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps", "xpu:0", "privateuseone:0"])
def test_the_patcher_is_told_the_devices_of_the_host(host, nodes, checkpoint, device):
    host.load_device, host.offload_device = torch.device(device), torch.device("cpu")
    model = nodes.LoadedModel(nodes.load_generator(checkpoint))
    assert model.patcher.load_device is host.load_device
    assert model.patcher.offload_device is host.offload_device
    assert model.patcher.model.generator is model.generator


@pytest.mark.parametrize("moves", [True, False], ids=["normal", "novram"])
def test_the_weights_are_where_they_run_even_if_the_host_left_them(host, nodes, checkpoint, moves):
    host.load_device, host.moves = torch.device("meta"), moves
    model = nodes.LoadedModel(nodes.load_generator(checkpoint))
    model.load(123)
    assert {p.device.type for p in model.generator.parameters()} == {"meta"}
    assert host.loads == [{"memory": 123, "full": True}]


def test_the_image_leaves_as_the_host_passes_images(host, nodes, model):
    host.intermediate_dtype = torch.float16
    image = torch.rand(1, 12, 16, 3)
    assert nodes.AnimeBGApplyStyle.execute(model, image.half())[0].dtype == torch.float16
    host.intermediate_device = torch.device("meta")
    assert nodes.AnimeBGApplyStyle.execute(model, image)[0].device.type == "meta"
    host.intermediate_device = torch.device("cpu")
    delattr(nodes.host.comfy.model_management, "intermediate_dtype")  # as in 0.3.64
    assert nodes.AnimeBGApplyStyle.execute(model, image)[0].dtype == torch.float32


@pytest.mark.parametrize("file", ["nodes.py", "host.py"])
def test_the_hosts_side_names_no_device_and_keeps_no_model(file):
    source = (ROOT / file).read_text()
    literals = re.findall(r"[\"'](cpu|cuda|mps|xpu|privateuseone|directml)\b", source)
    assert literals == []
    assert not re.search(r"torch\.(cuda|mps|xpu|device\()\b", source)
    assert not re.search(r"^(?:_\w*cache|_models?)\b", source, re.MULTILINE)
    assert "except Exception" not in source and "lru_cache" not in source


# --- Painting ---


def test_the_picture_is_that_of_stylize(host, nodes, model, painter):
    image, mask = torch.rand(2, 30, 41, 4), torch.rand(1, 9, 9)
    painted, _ = nodes.AnimeBGApplyStyle.execute(model, image, strength=0.7, mask=mask)
    expected = painter.stylize(image, model.generator, strength=0.7, mask=mask)
    assert torch.allclose(painted, expected, atol=1e-5)  # other strips: rounding
    assert painted.shape == image.shape


def test_a_large_image_is_painted_small_and_previewed(host, nodes, model, painter):
    image = torch.rand(1, 90, 120, 3)
    painted, info = nodes.AnimeBGApplyStyle.execute(
        model, image, painting_size=60, detail="photo", colour=0.4
    )
    seen = []
    expected = painter.stylize(
        image, model.generator, painting_size=60, colour=0.4, preview=seen.append
    )
    assert torch.allclose(painted, expected, atol=1e-5)  # other strips: rounding
    assert "120 x 90 by way of 60 x 45, " in info
    ((_, picture, _),) = host.previews
    assert picture.size == (60, 45)
    shown = torch.from_numpy(np.array(picture)) / 255
    assert (shown - seen[0][0]).abs().max() < 0.6 / 255  # rounded to whole values


def test_a_blend_is_between_its_models_and_is_said(nodes, folder):
    put(folder, "a.safetensors", seed=1)
    put(folder, "b.safetensors", seed=2)
    a, b = (nodes.AnimeBGLoadModel.execute(f"{name}.safetensors")[0] for name in "ab")
    whole, half = (nodes.AnimeBGBlendModels.execute(a, b, share)[0] for share in (1.0, 0.5))
    first, second = a.generator.input.conv(0).weight, b.generator.input.conv(0).weight
    assert torch.equal(whole.generator.input.conv(0).weight, second)
    assert torch.allclose(half.generator.input.conv(0).weight, (first + second) / 2)
    assert (half.name, whole.name) == (
        "50% a.safetensors + 50% b.safetensors",
        "100% b.safetensors",
    )
    assert half.patcher.model.generator is half.generator
    # A blend of blends: whose shares are whose.
    mixed = nodes.AnimeBGBlendModels.execute(half, b, 0.3)[0]
    shares = "70% (50% a.safetensors + 50% b.safetensors) + 30% b.safetensors"
    assert mixed.name == shares


def test_an_empty_mask_gives_the_image_back(nodes, model):
    image = torch.rand(1, 20, 20, 3)
    same, _ = nodes.AnimeBGApplyStyle.execute(model, image, mask=torch.zeros(1, 64, 64))
    assert torch.equal(same, image) and same is not image


def test_progress_runs_from_0_to_1000_and_cancel_stops_it(host, nodes, model):
    nodes.AnimeBGApplyStyle.execute(model, torch.rand(3, 64, 64, 3))
    steps = [value for value, _ in host.progress]
    assert steps == sorted(steps) and steps[-1] == 1000 and len(steps) >= 30
    host.cancelled = True
    host.progress.clear()
    with pytest.raises(Interrupted):
        nodes.AnimeBGApplyStyle.execute(model, torch.rand(3, 64, 64, 3))
    assert host.progress == []


@pytest.fixture
def budgets(nodes, monkeypatch, painter) -> list[int]:
    """The budgets that plans were made for."""
    asked = []

    def plan_run(*args, budget, **kwargs):
        asked.append(budget)
        return real(*args, budget=budget, **kwargs)

    real = painter.plan_run
    monkeypatch.setattr(painter, "plan_run", plan_run)
    return asked


def test_the_budget_is_what_the_host_has_free_or_the_users_limit(host, nodes, model, budgets):
    image = torch.rand(1, 16, 16, 3)
    host.free = 3 << 30
    nodes.AnimeBGApplyStyle.execute(model, image)
    nodes.AnimeBGApplyStyle.execute(model, image, memory_limit_gb=1.5)
    model.patcher.get_free_memory = lambda device: 7 << 30  # newer patchers know more
    nodes.AnimeBGApplyStyle.execute(model, image)
    reserve = 400 << 20
    assert budgets == [(3 << 30) - reserve, 1_500_000_000, (7 << 30) - reserve]
    # Loaded to plan for its device, then with room for the plan.
    memory = [load["memory"] for load in host.loads]
    assert memory[::2] == [0, 0, 0] and min(memory[1::2]) > 0


def test_where_no_plan_fits_the_host_makes_room_first(host, nodes, model, monkeypatch):
    image = torch.rand(1, 256, 256, 3)
    host.free = 0
    real = nodes.LoadedModel.load

    def load(self, memory_required):
        real(self, memory_required)
        host.free = (400 << 20) + 2 * memory_required

    monkeypatch.setattr(nodes.LoadedModel, "load", load)
    nodes.AnimeBGApplyStyle.execute(model, image)
    assert host.loads[1]["memory"] > 1_000_000


def test_when_there_is_no_room_at_all_the_error_gives_the_figures(host, nodes, model):
    host.free = 0
    with pytest.raises(nodes.MemoryBudgetError) as caught:
        nodes.AnimeBGApplyStyle.execute(model, torch.rand(1, 64, 64, 3))
    assert caught.value.available == 0 < caught.value.needed
    with pytest.raises(
        nodes.MemoryBudgetError, match="memory_limit_gb is 0.001, .* set it to 0.1 "
    ):
        nodes.AnimeBGApplyStyle.execute(model, torch.rand(1, 64, 64, 3), memory_limit_gb=0.001)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "MPS backend out of memory (MPS allocated: 1 GB)",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "Could not allocate tensor with 9 bytes. There is not enough GPU video memory available!",
    ],
)
def test_out_of_memory_halves_the_batch_then_takes_less_memory(
    host, nodes, model, monkeypatch, message, painter
):
    image = torch.rand(4, 24, 24, 3)
    tried = []

    def plan_run(*args, budget, batch=1, **kwargs):  # all together, as on a graphics card
        plan = real_plan(*args, budget=1 << 40, **kwargs)
        return painter.replace(plan, batch=batch, peak_bytes=budget)

    def stylize(*args, plan, **kwargs):
        tried.append((plan.batch, plan.peak_bytes))
        if len(tried) < 5:
            raise RuntimeError(message)
        return real(*args, plan=plan, **kwargs)

    real, real_plan = painter.stylize, painter.plan_run
    monkeypatch.setattr(painter, "stylize", stylize)
    monkeypatch.setattr(painter, "plan_run", plan_run)
    painted, _ = nodes.AnimeBGApplyStyle.execute(model, image, memory_limit_gb=1.6)
    assert tried == [(4, 16e8), (2, 8e8), (1, 4e8), (1, 3e8), (1, 2.25e8)]
    assert [load["memory"] for load in host.loads[1:]] == [peak for _, peak in tried]
    assert host.emptied == 4
    assert torch.allclose(painted, real(image, model.generator), atol=1e-5)


def test_out_of_memory_for_good_gives_the_figures(host, nodes, model, monkeypatch, painter):
    def stylize(*args, **kwargs):
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(painter, "stylize", stylize)
    with pytest.raises(nodes.MemoryBudgetError) as caught:
        nodes.AnimeBGApplyStyle.execute(model, torch.rand(1, 64, 64, 3))
    assert 0 < caught.value.available < caught.value.needed


def test_a_limit_as_the_error_names_it_is_enough(nodes, model):
    image = torch.rand(1, 700, 900, 3)
    with pytest.raises(nodes.MemoryBudgetError) as caught:
        nodes.AnimeBGApplyStyle.execute(model, image, memory_limit_gb=0.01)
    (least,) = re.findall(r"set it to ([\d.]+) or more", str(caught.value))
    nodes.AnimeBGApplyStyle.execute(model, image, memory_limit_gb=float(least))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, ""),
        (torch.ones(1, 9, 9), ""),
        (torch.zeros(1, 64, 64), "the mask is empty: nothing is painted"),
        (torch.zeros(64, 64), "the mask is empty: nothing is painted"),
        (torch.stack([torch.ones(9, 9), torch.zeros(9, 9)]), "1 of 2 masks are empty: "),
    ],
)
def test_the_node_says_what_was_painted_and_what_an_empty_mask_does(host, nodes, model, mask, said):
    model.name = "Satoshi Kon"
    _, info = nodes.AnimeBGApplyStyle.execute(model, torch.rand(2, 20, 24, 3), mask=mask)
    assert info.startswith(said or "Satoshi Kon, ")
    assert re.search(r"Satoshi Kon, 2 x 24 x 20, \d+\.\d GB, \d+\.\d s$", info)
    assert host.texts[-1] == ("7", info)


def test_a_batch_says_which_image_it_is_at(host, nodes):
    say = nodes._left(12)
    assert say(0, 1200) == "image 1 of 12"
    assert [say(done, 1200) for done in (250, 1200)] == ["image 3 of 12", "image 12 of 12"]


def test_a_preview_is_the_first_image_as_the_host_wants_it(host, nodes):
    nodes.host.Bar().show(torch.full((2, 4, 6, 3), 0.5))
    ((kind, picture, longest),) = host.previews
    assert (kind, picture.size, longest) == ("JPEG", (6, 4), 512)
    assert picture.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("width, height", [(5000, 3), (1, 1280), (1281, 1), (20_000, 1)])
def test_something_is_left_of_the_preview_of_a_thin_image(host, nodes, width, height):
    nodes.host.Bar().show(torch.full((1, height, width, 3), 0.5))
    ((_, picture, longest),) = host.previews
    # As a host sends it: what has no pixels cannot be saved, and its server ends.
    ImageOps.contain(picture, (longest, longest)).save(io.BytesIO(), format="JPEG")


def test_the_sample_film_moves_and_sounds(nodes):
    (video,) = nodes.AnimeBGSampleVideo.execute()
    images, audio = video.components.images, video.components.audio
    assert images.shape == (48, 320, 480, 3) and video.components.frame_rate == 24
    assert 0 <= images.min() < images.max() <= 1
    (photo, _) = nodes.AnimeBGSamplePhoto.execute()
    assert torch.equal(images[0], photo[0, -320:, :480])
    assert torch.equal(images[-1], photo[0, :320, -480:])
    assert audio["waveform"].shape == (1, 1, 2 * audio["sample_rate"])
    assert 0.05 < audio["waveform"].abs().max() < 0.2  # soft


def test_the_sample_photo_comes_along_with_its_mask(nodes):
    image, mask = nodes.AnimeBGSamplePhoto.execute()
    assert image.shape == (1, 427, 640, 3) and mask.shape == (1, 427, 640)
    assert mask[0, 250, 200] == 1 and mask[0, 50, 500] == 0


def test_other_errors_come_out_as_they_are(nodes, model, monkeypatch, painter):
    def stylize(*args, **kwargs):
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(painter, "stylize", stylize)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        nodes.AnimeBGApplyStyle.execute(model, torch.rand(1, 16, 16, 3))


# --- What people see ---


@pytest.mark.parametrize("language", LOCALES)
def test_every_text_is_there_in_every_language(nodes, language):
    texts = json.loads((ROOT / f"locales/{language}/nodeDefs.json").read_text("utf-8"))
    main = json.loads((ROOT / f"locales/{language}/main.json").read_text("utf-8"))
    assert set(main["nodeCategories"]) == {nodes.CATEGORY}
    for schema in schemas(nodes):
        said = texts[schema.node_id]
        assert said["display_name"] and said["description"]
        assert list(said["inputs"]) == [one.id for one in schema.inputs]
        assert [int(key) for key in said["outputs"]] == list(range(len(schema.outputs)))
        if language == "en":
            assert said["display_name"] == schema.display_name
            assert said["description"] == schema.description
            for one in schema.inputs:
                assert said["inputs"][one.id] == {"name": one.id, "tooltip": one.tooltip}
            for number, one in enumerate(schema.outputs):
                told = {"name": one.display_name, "tooltip": one.tooltip}
                assert said["outputs"][str(number)] == told
        page = (ROOT / f"web/docs/{schema.node_id}/{language}.md").read_text("utf-8")
        assert page.startswith(f"# {said['display_name']}\n")
        named = [*said["inputs"].values(), *said["outputs"].values()]
        assert all(one["name"] and one["tooltip"] for one in named)
        assert all(f"**{one['name']}**" in page for one in named)
        (picture,) = re.findall(r"!\[.+\]\((.+)\)", page)
        with Image.open(ROOT / "web/docs" / picture) as image:
            assert image.width >= 480


@pytest.mark.parametrize("language", LOCALES)
def test_the_pages_own_texts_are_there_in_every_language(language):
    """Those that web/pictures.js shows, the notes of the templates among them."""
    mine, english = (
        json.loads((ROOT / f"locales/{name}/main.json").read_text("utf-8"))["animebg"]
        for name in (language, "en")
    )
    assert {*mine} == {"here", "download", "own", "title", "notes"}
    assert mine["here"] and mine["title"] and "#" in mine["download"]
    assert mine["own"].keys() == english["own"].keys()
    assert mine["notes"].keys() == {path.stem for path in WORKFLOWS}
    for path in WORKFLOWS:
        nodes = json.loads(path.read_text("utf-8"))["nodes"]
        (note,) = [node for node in nodes if node["type"] == "MarkdownNote"]
        assert note["properties"] == {"animebg_note": path.stem}  # what the page goes by
        assert note["title"] == english["title"]
        assert note["widgets_values"] == [english["notes"][path.stem]]
        text = mine["notes"][path.stem]
        assert text.startswith("## ") and (language == "en" or text != english["notes"][path.stem])
        # What it tells people to press is on the node under that name.
        for kind, button in english["own"].items():
            assert (button in english["notes"][path.stem]) == (mine["own"][kind] in text)


def test_the_nodes_are_found_by_what_people_type(nodes):
    for schema in schemas(nodes):
        assert schema.category == "AnimeBG"
        typed = {alias.lower() for alias in schema.search_aliases}
        # Who looks for a style wants what paints; the samples would stand before that.
        wanted = {"anime", "cartoon", "background", "ghibli"}
        sample = schema.node_id.startswith("AnimeBGSample")
        assert (typed & wanted) == (set() if sample else wanted)
        assert not sample or "demo" in typed


@pytest.mark.parametrize(
    "file", ["nodes.py", "sample_nodes.py", "video_node.py", "inputs.py", "host.py", "__init__.py"]
)
def test_checkers_that_read_python_as_cp1252_can(file):
    (ROOT / file).read_bytes().decode("cp1252").encode("ascii")


def test_old_hosts_get_no_option_that_they_do_not_know(nodes, monkeypatch):
    import dataclasses

    @dataclasses.dataclass
    class Schema:
        node_id: str
        display_name: str
        category: str
        description: str
        inputs: list
        outputs: list

    monkeypatch.setattr(nodes.io, "Schema", Schema)
    assert [schema.node_id for schema in schemas(nodes)] == list(CONTRACT)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_and_its_twin_for_the_api_are_one_graph(path):
    drawn = json.loads(path.read_text("utf-8"))
    twin = json.loads((path.parent / "api" / path.name).read_text("utf-8"))
    drawn_nodes = {str(n["id"]): n for n in drawn["nodes"] if n["type"] != "MarkdownNote"}
    # On the page the first picture is the pack's own.
    loader = {
        "AnimeBGSamplePhoto": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "AnimeBGSampleVideo": {"class_type": "LoadVideo", "inputs": {"file": "film.mp4"}},
    }
    assert twin["1"] == loader[drawn_nodes.pop("1")["type"]]
    assert {k: n["type"] for k, n in drawn_nodes.items()} == {
        k: n["class_type"] for k, n in twin.items() if k != "1"
    }
    wires = {
        (str(w[3]), drawn_nodes[str(w[3])]["inputs"][w[4]]["name"]): [str(w[1]), w[2]]
        for w in drawn["links"]
    }
    asked = {
        (k, name): value
        for k, n in twin.items()
        for name, value in n["inputs"].items()
        if isinstance(value, list)
    }
    assert wires == asked
    for key, node in twin.items():
        if key == "1":
            continue
        values = [v for v in node["inputs"].values() if not isinstance(v, list)]
        assert drawn_nodes[key].get("widgets_values", [])[: len(values)] == values
        for name in CONTRACT.get(node["class_type"], {}).get("inputs", {}):
            spec = CONTRACT[node["class_type"]]["inputs"][name]
            assert name in node["inputs"] or not spec["required"]
            if "options" in spec and name in node["inputs"]:
                assert node["inputs"][name] in spec["options"]
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.width >= 400


def test_five_workflows():
    assert [path.stem for path in WORKFLOWS] == [
        "blend-and-colours",
        "four-styles",
        "only-the-background",
        "photo-to-anime",
        "video-to-anime",
    ]


# --- Films ---


@pytest.fixture
def film(tmp_path):
    """A short film with sound."""
    pytest.importorskip("av")
    from clips import Sound, make_clip

    rng = np.random.default_rng(0)
    still = rng.integers(0, 65536, (9, 24, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint16)
    frames = [still[:, k : k + 64] for k in range(10)]
    return make_clip(tmp_path / "in.mp4", frames, pixels="yuv444p", sound=Sound("aac"))


def test_a_film_is_painted_with_its_sound_and_the_part_that_the_host_means(nodes, model, film):
    from clips import packets, times_of
    from comfy_stand_ins import _VideoFromFile

    paint = nodes.AnimeBGApplyStyleToVideo.execute
    (whole,) = paint(model, _VideoFromFile(str(film)), steadiness=0.0)
    assert packets(Path(whole.get_stream_source()), "audio") == packets(film, "audio")
    assert times_of(Path(whole.get_stream_source())) == times_of(film)
    (part,) = paint(model, _VideoFromFile(str(film), start_time=0.12, duration=0.2), strength=0.5)
    assert len(times_of(Path(part.get_stream_source()))) == 5


def test_what_a_transparent_film_needs_of_save_video_is_said(nodes, model, host, tmp_path):
    pytest.importorskip("av")
    from clips import bars, make_clip
    from comfy_stand_ins import _VideoFromFile

    paint = nodes.AnimeBGApplyStyleToVideo.execute
    for alpha in (False, True):
        frames, pixels = [bars(24, 32, alpha=alpha)] * 2, "gbrap" if alpha else "gbrp"
        clip = make_clip(tmp_path / f"{alpha}.mkv", frames, pixels=pixels)
        for _ in range(2):  # painted, and found painted
            (made,) = paint(model, _VideoFromFile(str(clip)), steadiness=0.0)
            assert Path(made.get_stream_source()).suffix == (".mov" if alpha else ".mp4")
            assert ("choose the codec h264" in host.texts[-1][1]) == alpha


def test_a_batch_of_frames_is_painted_as_a_film_and_shows_them(nodes, model, host):
    pytest.importorskip("av")
    from pack.animebg_core.film.batch import paint_batch
    from pack.animebg_core.painter import Painter

    images = torch.rand(1, 20, 40, 3).repeat(3, 1, 1, 1)[:, :, :24]
    painted, info = nodes.AnimeBGApplyStyle.execute(model, images, batch="frames")
    assert torch.equal(painted, paint_batch(images, Painter(model.generator)))
    assert "24 x 20" in info and len(host.previews) >= 3
    each, _ = nodes.AnimeBGApplyStyle.execute(model, images)
    assert torch.equal(each, nodes.AnimeBGApplyStyle.execute(model, images, batch="images")[0])


def test_a_film_in_memory_is_painted_as_one_in_a_file_and_known_again(nodes, model, film):
    import io

    from clips import packets, times_of
    from comfy_stand_ins import _VideoFromComponents, _VideoFromFile

    def run(video):
        (made,) = nodes.AnimeBGApplyStyleToVideo.execute(model, video, steadiness=1.0)
        return Path(made.get_stream_source())

    expected = run(_VideoFromFile(str(film)))
    in_memory = run(_VideoFromFile(io.BytesIO(film.read_bytes())))
    assert packets(in_memory, "video") == packets(expected, "video")
    assert packets(in_memory, "audio") == packets(film, "audio")
    made = _VideoFromComponents(None)
    made.save_to = lambda path: Path(path).write_bytes(film.read_bytes())
    assert run(made) == in_memory  # the same bytes: the same film, painted before
    assert times_of(in_memory) == times_of(film)


def test_a_cancelled_film_goes_on_when_it_is_queued_again(nodes, model, film, host, monkeypatch):
    from comfy_stand_ins import _VideoFromFile

    monkeypatch.setattr("pack.animebg_core.film.work.SEGMENT", 4)
    paint, video = nodes.AnimeBGApplyStyleToVideo.execute, _VideoFromFile(str(film))
    tellers = sys.modules["pack.video_node"]._Teller
    told, call = [], tellers.__call__

    def cancelled(self, progress):
        told.append((progress.stage, progress.done, progress.kept))
        if progress.stage == "painting" and progress.done >= 7 and not progress.kept:
            raise KeyboardInterrupt
        call(self, progress)

    monkeypatch.setattr(tellers, "__call__", cancelled)
    with pytest.raises(KeyboardInterrupt):
        paint(model, video, steadiness=0.0)
    told.clear()
    (painted,) = paint(model, video, steadiness=0.0)
    assert max(kept for _, _, kept in told) == 4
    assert Path(painted.get_stream_source()).is_file()
    assert not list((host.models.parent / "output" / ".animebg").iterdir())
