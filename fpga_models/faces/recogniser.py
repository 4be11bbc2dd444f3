"""An ONNX recogniser as a torch module, so that gradients flow through it: the operators of residual face networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from fpga_models.errors import WeightsError

Operator = Callable[[list[Tensor], dict[str, Any]], Tensor]


class OnnxRecogniser(nn.Module):
    """Runs the graph of a recogniser: aligned crops (N, 3, 112, 112) in [-1, 1] to unit-length embeddings (N, E)."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            WeightsError: the graph has an operator that is not known here.
        """
        super().__init__()
        graph = onnx.load(str(path)).graph
        unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys() - {"Constant"})
        if unknown:
            raise WeightsError(f"{path.name} uses {', '.join(unknown)}: {', '.join(sorted(OPERATORS))} are known.")
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._names: dict[str, str] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, tensor)
        self._nodes = []
        for node in graph.node:
            options = {option.name: onnx.helper.get_attribute_value(option) for option in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], options["value"])
            else:
                self._nodes.append((OPERATORS[node.op_type], list(node.input), node.output[0], options))

    def forward(self, crops: Tensor) -> Tensor:
        """Embed crops."""
        values = {name: self.get_buffer(buffer) for name, buffer in self._names.items()} | {self._input: crops}
        for operator, inputs, output, options in self._nodes:
            values[output] = operator([values[name] for name in inputs], options)
        return F.normalize(values[self._output], dim=-1)

    def _keep(self, name: str, tensor: onnx.TensorProto) -> None:
        self._names[name] = f"value_{len(self._names)}"
        self.register_buffer(self._names[name], torch.from_numpy(numpy_helper.to_array(tensor).copy()))


def _conv(inputs: list[Tensor], options: dict[str, Any]) -> Tensor:
    top, left, _bottom, _right = options.get("pads", (0, 0, 0, 0))
    strides, groups = options.get("strides", (1, 1)), options.get("group", 1)
    bias = inputs[2] if len(inputs) > 2 else None
    return F.conv2d(inputs[0], inputs[1], bias, stride=tuple(strides), padding=(top, left), groups=groups)


def _batch_norm(inputs: list[Tensor], options: dict[str, Any]) -> Tensor:
    x, weight, bias, mean, variance = inputs
    return F.batch_norm(x, mean, variance, weight, bias, eps=options.get("epsilon", 1e-5))


def _gemm(inputs: list[Tensor], options: dict[str, Any]) -> Tensor:
    x, weight = inputs[0], inputs[1].T if options.get("transB") else inputs[1]
    return x @ weight + (inputs[2] if len(inputs) > 2 else 0)


OPERATORS: dict[str, Operator] = {
    "Add": lambda i, _: i[0] + i[1],
    "AveragePool": lambda i, o: F.avg_pool2d(i[0], tuple(o["kernel_shape"]), tuple(o["strides"])),
    "BatchNormalization": _batch_norm,
    "Cast": lambda i, _: i[0].float() if i[0].is_floating_point() else i[0],
    "Conv": _conv,
    "Flatten": lambda i, o: i[0].flatten(o.get("axis", 1)),
    "Gemm": _gemm,
    "MatMul": lambda i, _: i[0] @ i[1],
    "PRelu": lambda i, _: F.prelu(i[0], i[1].flatten()),
    "Relu": lambda i, _: F.relu(i[0]),
    "Reshape": lambda i, _: i[0].reshape([n if n else i[0].shape[k] for k, n in enumerate(i[1].tolist())]),
    "Transpose": lambda i, o: i[0].permute(*o["perm"]),
}
