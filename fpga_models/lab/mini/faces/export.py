"""Trained networks to ONNX files with fp16 weights, and the folder of them that `FacePack.load` reads."""

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fpga_models.core.weights import file_sha256

OPSET = 17
STORED_AS_HALF = 256  # elements: smaller tensors (shapes, scalars, biases) stay as they are
LICENCE = "Apache-2.0"


def export_encoder(encoder: nn.Module, path: Path) -> None:
    """Write a recogniser: input (batch, 3, 112, 112) float32, output (batch, 512) float32."""
    example = torch.zeros(1, 3, 112, 112)
    _export(encoder, example, path, ["embedding"], {"input": {0: "batch"}, "embedding": {0: "batch"}})


def export_classifier(classifier: nn.Module, path: Path) -> None:
    """Write a classifier of crops: input (batch, 3, 112, 112) float32, output (batch, answers) float32."""
    example = torch.zeros(1, 3, 112, 112)
    _export(classifier, example, path, ["scores"], {"input": {0: "batch"}, "scores": {0: "batch"}})


def export_detector(detector: nn.Module, path: Path) -> None:
    """Write the detector: input (1, 3, height, width) float32, nine outputs as insightface decodes them."""
    names = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in (8, 16, 32)]
    axes = {"input": {2: "height", 3: "width"}} | {name: {0: f"cells_{name}"} for name in names}
    _export(detector, torch.zeros(1, 3, 256, 256), path, names, axes)


def export_pose(network: nn.Module, path: Path, *, side: int) -> None:
    """Write a pose network: input (people, 4, side, side) float32, points (people, 18, 2) and seen (people, 18)."""
    names = ["points", "seen"]
    _export(network, torch.zeros(1, 4, side, side), path, names, {name: {0: "people"} for name in ("input", *names)})


def write_pack_settings(directory: Path, *, det_size: int, det_thresh: float) -> None:
    """Write `pack.json` beside the ONNX files: detector settings, licence and the sha256 of each file."""
    files = {file.name: file_sha256(file) for file in sorted(directory.glob("*.onnx"))}
    settings = {"det_size": det_size, "det_thresh": det_thresh, "licence": LICENCE, "sha256": files}
    (directory / "pack.json").write_text(json.dumps(settings, indent=2) + "\n")


def _export(
    network: nn.Module, example: torch.Tensor, path: Path, outputs: list[str], axes: dict[str, dict[int, str]]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    network = network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stubs lack this form
    torch.onnx.export(  # the TorchScript exporter: the newer one needs a package that nothing else here uses
        network,
        (example,),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["input"],
        output_names=outputs,
        dynamic_axes=axes,
    )
    model = onnx.load(str(path))
    store_half(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def store_half(model: onnx.ModelProto) -> None:
    """Store the large float32 weights as float16, each behind a Cast that the runtime folds when it loads."""
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < STORED_AS_HALF:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"widen_{name}", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
