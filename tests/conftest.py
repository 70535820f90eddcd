"""What every test gets: a seed, and on request a small network or the shared real ones."""

import os
import random
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from safetensors.torch import save_file

from animebg_core.engine.device import Device
from animebg_core.engine.kernels import choose
from animebg_core.engine.schedule import schedule

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def seeded():
    """Nothing depends on what ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A small random network of the design, as a .safetensors file."""
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    save_file(oracle.random_state(), path)
    return path


@pytest.fixture(scope="session", params=["published", "lite"])
def network(request, checkpoint, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A small random network of either design: a .safetensors file, and the reference's state."""
    if request.param == "published":
        return checkpoint, oracle.random_state()
    path = tmp_path_factory.mktemp("network") / "lite.safetensors"
    save_file(oracle.random_lite_state(), path)
    return path, oracle.random_lite_state()


@pytest.fixture(scope="session")
def library_bytes():
    """What plans count, beside the tensors, for those who make a network's convolutions."""

    def found(generator, height, width, level):
        kernels = choose(generator, Device.of(generator))
        steps = [s for sweep in schedule(generator, height, width, level) for s in sweep.steps]
        return max(kernels[s.stage.name, s.index].footprint(s, 1, 4).library for s in steps)

    return found


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real networks, goldens and photos; only for tests marked `weights`."""
    folder = _shared()
    assert folder is not None, "a test that uses `shared` is to be marked `weights`"
    return folder


def _shared() -> Path | None:
    folder = Path(os.environ.get("ANIMEBG_SHARED") or ROOT.parent / "shared")
    return folder if (folder / "weights").is_dir() and (folder / "golden").is_dir() else None


def pytest_collection_modifyitems(items):
    """Tests of the real networks are skipped where those are not."""
    if _shared() is None:
        skip = pytest.mark.skip(reason="no real networks here: set ANIMEBG_SHARED")
        for item in items:
            if item.get_closest_marker("weights"):
                item.add_marker(skip)
