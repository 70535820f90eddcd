"""A network as an ONNX file, for runtimes other than torch: written from its table of stages.

The whole picture at once, statistics inside, any height, width (from `Design.min_side` up) and
batch. Norms are the runtimes' own InstanceNormalization; ONNX Runtime and OpenVINO take its
variance in one pass, which is some 1e-4 off in [-1, 1] where torch's two passes are 1e-5 off.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError, WeightsError
from ..files.whole import whole_file
from .design import NORM_EPS, Conv, Stage
from .generator import ConvWeights, Generator

Format = Literal["image", "network"]

_OPSET, _IR_VERSION = 17, 9  # of 2022 and 2023: what runtimes of today all read


def export(
    generator: Generator,
    path: Path,
    *,
    form: Format = "image",
    precision: torch.dtype = torch.float32,
) -> None:
    """Write a network as ONNX: input `image`, output `painted`, float32 [N, 3, H, W].

    Args:
        generator: the network, on any device, in any dtype.
        path: the file, which is whole or absent.
        form: "image" takes and gives RGB in [0, 1] of one size; "network" takes and gives BGR in
            [-1, 1], the output's sides rounded up to `Design.multiple`.
        precision: float32, or float16 for half the bytes: weights and maps; norms stay in float32.

    Raises:
        OptionError: the package `onnx` is not installed, or another precision was asked for.
        WeightsError: the file cannot be written.
    """
    if precision not in (torch.float32, torch.float16):
        raise OptionError(f"ONNX is written in fp32 or fp16, not {precision}")
    try:
        import onnx
    except ModuleNotFoundError:
        raise OptionError(
            "writing ONNX needs the package onnx: pip install 'animebg[onnx]'"
        ) from None
    library: Any = onnx
    model = _Graph(library, precision).model(generator, form)
    library.checker.check_model(model, full_check=True)
    try:
        with whole_file(path) as file:
            file.write(model.SerializeToString())
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}") from error


class _Graph:
    """The nodes and constants of one model, as they are added; values are known by name."""

    def __init__(self, library: Any, precision: torch.dtype) -> None:
        self._library, self._precision = library, precision
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._names = (f"value{number}" for number in itertools.count())

    def model(self, generator: Generator, form: Format) -> Any:
        """The whole of it."""
        helper: Any = self._library.helper
        x = self._picture("image") if form == "image" else "image"
        # As `pipeline` reads a picture: less its mean colour, which the first norm takes away.
        mean = self.add("ReduceMean", x, axes=[2, 3], keepdims=1)
        x = self._cast(self.add("Sub", x, mean), self._precision)
        made: dict[str, str] = {}
        for stage in generator.stages:
            x = made[stage.name] = self._stage(generator, stage, x, made)
        x = self.add("Tanh", self._cast(x, torch.float32))
        if form == "image":
            x = self._cut(self._painted(x), "image")
        self._nodes.append(helper.make_node("Identity", [x], ["painted"]))

        kind = self._library.TensorProto.FLOAT

        def value(name: str, *size: str) -> Any:
            return helper.make_tensor_value_info(name, kind, ["batch", 3, *size])

        sides = ("height", "width")
        after = sides if form == "image" else ("painted_height", "painted_width")
        graph = helper.make_graph(
            self._nodes,
            "animebg",
            [value("image", *sides)],
            [value("painted", *after)],
            list(self._constants.values()),
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(
            graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="animebg"
        )

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        """A node; the name of what it makes."""
        made = next(self._names)
        node = self._library.helper.make_node(kind, inputs, [made], **attributes)
        self._nodes.append(node)
        return made

    def constant(self, name: str, value: Tensor) -> str:
        """A tensor that the model holds."""
        if name not in self._constants:
            array = np.ascontiguousarray(value.detach().cpu().numpy())
            self._constants[name] = self._library.numpy_helper.from_array(array, name)
        return name

    def _stage(self, generator: Generator, stage: Stage, x: str, made: dict[str, str]) -> str:
        weights = generator.weights(stage)
        for index, conv in enumerate(stage.convs):
            last = index + 1 == len(stage.convs)
            # The norm behind it would take the bias away again.
            bias = not (stage.norm and last)
            x = self._conv(f"{stage.name}.{index}", conv, weights.conv(index), x, bias=bias)
        if stage.adds:
            x = self._cut(x, made[stage.adds])
        if stage.norm:
            scale = self.constant(f"{stage.name}.scale", weights.scale.float())
            shift = self.constant(f"{stage.name}.shift", weights.shift.float())
            x = self._cast(x, torch.float32)
            x = self.add("InstanceNormalization", x, scale, shift, epsilon=NORM_EPS)
            x = self._cast(x, self._precision)
        if stage.adds:
            x = self.add("Add", x, made[stage.adds])
        return self.add("Relu", x) if stage.relu else x

    def _conv(self, name: str, conv: Conv, weights: ConvWeights, x: str, *, bias: bool) -> str:
        inputs = [self.constant(f"{name}.weight", weights.weight.to(self._precision))]
        if bias:
            inputs.append(self.constant(f"{name}.bias", weights.bias.to(self._precision)))
        pad, strides = (conv.kernel - 1) // 2, [conv.stride] * 2
        if conv.transposed:
            return self.add(
                "ConvTranspose", x, *inputs, strides=strides, pads=[1] * 4, output_padding=[1, 1]
            )
        if conv.padding == "reflect":
            around = self.constant(f"pad{pad}", torch.tensor([0, 0, pad, pad] * 2))
            x, pad = self.add("Pad", x, around, mode="reflect"), 0
        x = self.add("Conv", x, *inputs, strides=strides, pads=[pad] * 4)
        return self.add("DepthToSpace", x, blocksize=2, mode="CRD") if conv.shuffled else x

    def _cast(self, x: str, dtype: torch.dtype) -> str:
        if self._precision == torch.float32:
            return x
        kinds = self._library.TensorProto
        return self.add("Cast", x, to=kinds.FLOAT if dtype == torch.float32 else kinds.FLOAT16)

    def _cut(self, x: str, like: str) -> str:
        """The upper left of `x`, as large as `like`."""
        sides = self.add("Shape", like, start=2, end=4)
        starts = self.constant("corner", torch.tensor([0, 0]))
        return self.add("Slice", x, starts, sides, self.constant("sides", torch.tensor([2, 3])))

    def _reversed(self, x: str) -> str:
        return self.add("Gather", x, self.constant("bgr", torch.tensor([2, 1, 0])), axis=1)

    def _picture(self, x: str) -> str:
        """RGB in [0, 1] to BGR in [-1, 1]."""
        x = self.add("Mul", self._reversed(x), self.constant("two", torch.tensor(2.0)))
        return self.add("Sub", x, self.constant("one", torch.tensor(1.0)))

    def _painted(self, x: str) -> str:
        """BGR in [-1, 1] to RGB in [0, 1]."""
        x = self.add("Add", self._reversed(x), self.constant("one", torch.tensor(1.0)))
        return self.add("Mul", x, self.constant("half", torch.tensor(0.5)))
