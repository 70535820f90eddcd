"""What ours is held against: functions from RGB [1, H, W, 3] in [0, 1] to the same.

Each factory takes the network's state under its published names, float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from animebg_core import Generator, RunPlan, stylize

from ._common import oracle

Run = Callable[[Tensor], Tensor]


def ours(generator: Generator, plan: RunPlan | None = None) -> Run:
    """`stylize` as the plan says."""
    return lambda image: stylize(image, generator, plan=plan)


def suite(state: Mapping[str, Tensor]) -> Run:
    """The suite's reference (tests/oracle.py): the published network with a leaner norm."""

    @torch.inference_mode()
    def run(image: Tensor) -> Tensor:
        return oracle.stylize(state, image, dtype=torch.float32)

    return run


def published(state: Mapping[str, Tensor]) -> Run:
    """The published implementation: its norm does every step on maps of the full size."""

    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        count = x.shape[2] * x.shape[3]
        flat = x.reshape(*x.shape[:2], count)
        mean = flat.mean(2)[:, :, None, None]
        variance = flat.var(2)[:, :, None, None].expand_as(x) * ((count - 1) / count)
        normal = (x - mean) / (variance + 1e-9).sqrt()
        return normal * scale[None, :, None, None] + shift[None, :, None, None]

    return _with_norm(state, norm)


def instance_norm(state: Mapping[str, Tensor]) -> Run:
    """The same with torch's own instance norm in place of the hand-written one."""

    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.instance_norm(x, weight=scale, bias=shift, eps=1e-9)

    return _with_norm(state, norm)


def _with_norm(state: Mapping[str, Tensor], norm: Callable[..., Tensor]) -> Run:
    whole = suite(state)

    def run(image: Tensor) -> Tensor:
        with mock.patch.object(oracle, "norm", norm):
            return whole(image)

    return run


def onnx_model(state: Mapping[str, Tensor]) -> bytes:
    """The network as ONNX, opset 17, BGR [1, 3, H, W] of any size.

    Norms are InstanceNormalization, which the runtimes fuse with what is around it. Biases that a
    norm takes away again are left out.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors = [], []
    names = (f"t{number}" for number in itertools.count())

    def constant(name: str, value: Tensor) -> str:
        tensors.append(numpy_helper.from_array(value.contiguous().numpy(), name))
        return name

    def add(kind: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [result := next(names)], **attributes))
        return result

    def conv(x: str, name: str, *, bias: bool = False, **attributes: object) -> str:
        inputs = [x, constant(f"{name}.weight", state[f"{name}.weight"])]
        if bias:
            inputs.append(constant(f"{name}.bias", state[f"{name}.bias"]))
        kind = "ConvTranspose" if name.startswith("deconv0") and "strides" in attributes else "Conv"
        return add(kind, *inputs, **attributes)

    def norm(x: str, name: str) -> str:
        scale = constant(f"{name}.scale", state[f"{name}.scale"])
        shift = constant(f"{name}.shift", state[f"{name}.shift"])
        return add("InstanceNormalization", x, scale, shift, epsilon=1e-9)

    def reflect(x: str, pad: int) -> str:
        return add("Pad", x, f"pad{pad}", mode="reflect")

    for pad in (1, 3):
        constant(f"pad{pad}", torch.tensor([0, 0, pad, pad] * 2))
    around = {"pads": [1, 1, 1, 1]}
    y = add("Relu", norm(conv(reflect("image", 3), "conv01_1"), "in01_1"))
    for number in ("02", "03"):
        # The first of a pair keeps its bias: the second pads it with zeros.
        y = conv(y, f"conv{number}_1", bias=True, strides=[2, 2], **around)
        y = add("Relu", norm(conv(y, f"conv{number}_2", **around), f"in{number}_1"))
    block = 4
    while f"conv{block:02}_1.weight" in state:
        z = norm(conv(reflect(y, 1), f"conv{block:02}_1"), f"in{block:02}_1")
        z = norm(conv(reflect(add("Relu", z), 1), f"conv{block:02}_2"), f"in{block:02}_2")
        y = add("Add", z, y)
        block += 1
    doubling = {"strides": [2, 2], "output_padding": [1, 1], **around}
    for number, after in (("01", max(12, block)), ("02", max(13, block + 1))):
        y = conv(y, f"deconv{number}_1", bias=True, **doubling)
        y = add("Relu", norm(conv(y, f"deconv{number}_2", **around), f"in{after}_1"))
    y = add("Tanh", conv(reflect(y, 3), "deconv03_1", bias=True))

    def value(name: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None])

    graph = helper.make_graph(nodes, "generator", [value("image")], [value(y)], tensors)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def onnxruntime(state: Mapping[str, Tensor]) -> Run:
    """ONNX Runtime on the CPU, as many threads as torch."""
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = library.InferenceSession(
        onnx_model(state), options, providers=["CPUExecutionProvider"]
    )

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": x.numpy()})[0])

    return _pictures(run)


def openvino(state: Mapping[str, Tensor]) -> Run:
    """OpenVINO on the CPU in float32, as many threads as torch, compiled for the first size."""
    import openvino as library

    core = library.Core()
    model = core.read_model(onnx_model(state))
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled: dict[tuple[int, ...], Callable[..., Mapping[int, object]]] = {}

    def run(x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        if shape not in compiled:
            model.reshape(list(shape))
            compiled[shape] = core.compile_model(model, "CPU", settings)
        return torch.from_numpy(compiled[shape](x.numpy())[0])

    return _pictures(run)


def _pictures(run: Run) -> Run:
    """From BGR [1, 3, H, W] in [-1, 1], H and W multiples of 4, to pictures."""

    def picture(image: Tensor) -> Tensor:
        y = run((image.flip(-1) * 2 - 1).permute(0, 3, 1, 2).contiguous())
        return ((y[:, :, : image.shape[1], : image.shape[2]] + 1) / 2).flip(1).permute(0, 2, 3, 1)

    return picture
