"""Exported networks give, run by ONNX Runtime, what `stylize` gives."""

import oracle
import pytest
import torch

from animebg_core import OptionError, load_generator, stylize
from animebg_core.cli import main
from animebg_core.network import onnx as exported

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", params=["published", "lite"])
def style(request, tmp_path_factory):
    """A checkpoint file, its generator and its state dict."""
    small = request.param == "lite"
    state = (
        oracle.random_lite_state((8, 16, 12), 2) if small else oracle.random_state((8, 16, 32), 2)
    )
    path = tmp_path_factory.mktemp(request.param) / "style.pth"
    torch.save(state, path)
    return path, load_generator(path), state


def _session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _run(session, image):
    """[B, H, W, 3] through a model of NCHW."""
    (painted,) = session.run(["painted"], {"image": image.permute(0, 3, 1, 2).numpy()})
    return torch.from_numpy(painted).permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def session(style, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "style.onnx"
    exported.export(style[1], path)
    return _session(path)


@pytest.mark.parametrize(
    ("batch", "height", "width"), [(1, 64, 64), (1, 33, 50), (2, 45, 38), (3, 5, 7)]
)
def test_any_size_and_batch_give_the_painting_at_its_size(style, session, batch, height, width):
    image = torch.rand(batch, height, width, 3)
    # ONNX Runtime's variance in one pass; seen: 5e-6.
    assert (_run(session, image) - stylize(image, style[1])).abs().max() < 1e-4


def test_the_networks_format_is_the_oracles(style, tmp_path):
    exported.export(style[1], tmp_path / "network.onnx", form="network")
    session = _session(tmp_path / "network.onnx")
    image = torch.rand(1, 3, 33, 46) * 2 - 1
    (painted,) = session.run(None, {"image": image.numpy()})
    expected = oracle.run(style[2], image.double())
    assert painted.shape == tuple(expected.shape)
    assert (torch.from_numpy(painted) - expected).abs().max() < 1e-4


def test_half_precision_halves_the_file_and_stays_close(style, tmp_path):
    path, generator, _ = style
    assert main(["export", str(path), str(tmp_path / "full.onnx")]) == 0
    half = tmp_path / "half.onnx"
    assert main(["export", str(path), str(half), "--precision", "fp16"]) == 0
    assert half.stat().st_size < 0.7 * (tmp_path / "full.onnx").stat().st_size
    image = torch.rand(1, 32, 48, 3)
    difference = (_run(_session(half), image) - stylize(image, generator)).square().mean().sqrt()
    # 11 bits of mantissa through some ten layers of a random network; seen: 0.001.
    assert difference < 0.005


def test_the_command_writes_what_the_function_writes(style, tmp_path, capsys):
    path, generator, _ = style
    assert main(["export", str(path), str(tmp_path / "a.onnx")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.onnx")
    exported.export(generator, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert main(["export", str(path), str(tmp_path / "a.onnx")]) == 2
    assert "exists" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(style, tmp_path, capsys):
    path, _, _ = style
    target = tmp_path / "none" / "net.onnx"
    assert main(["export", str(path), str(target)]) == 1
    told = capsys.readouterr().err
    assert told == f"animebg: error: {target} cannot be written: No such file or directory\n"


def test_other_precisions_are_refused(style, tmp_path):
    with pytest.raises(OptionError, match="fp32 or fp16"):
        exported.export(style[1], tmp_path / "a.onnx", precision=torch.bfloat16)
    assert not list(tmp_path.iterdir())
