"""Teaches a trained encoder A what a person would name of a face: eye colour, brows, beard, glasses, hair.

Trained to tell people apart alone, it keeps of eye colour and brows only what it needs for that, and the generator can
draw no more than the embedding says.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from fpga_models.lab.measures.traits import ANSWERS
from fpga_models.lab.mini.faces.augment import augment
from fpga_models.lab.mini.faces.encoders import CosFaceConfig, Crops, cosface_loss, to_tensor
from fpga_models.lab.mini.faces.loop import Schedule, train
from fpga_models.lab.mini.faces.networks import EMBEDDING_WIDTH, EncoderA
from fpga_models.lab.mini.faces.traits import trait_loss

BATCH = 128
TRAIT_WEIGHT = 3.0
READABLE = EMBEDDING_WIDTH**0.5
"""Entries of order one: what the reader of traits and the generator's projector get."""


def open_encoder_a(path: Path) -> EncoderA:
    """Encoder A from its ONNX file, where the norms of the convolutions are folded into weights and biases."""
    graph = onnx.load(str(path)).graph
    values = {
        tensor.name.removesuffix("_half"): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in graph.initializer
    }
    encoder = EncoderA()
    state = {key: torch.zeros_like(value) for key, value in encoder.state_dict().items()}
    for node in graph.node:
        if node.op_type == "Conv":
            conv = ".".join(part for part in node.output[0].split("/") if "." in part)
            norm = conv.removesuffix("0") + "1"
            state[f"{conv}.weight"], state[f"{norm}.bias"] = values[node.input[1]], values[node.input[2]]
            state[f"{norm}.weight"], state[f"{norm}.running_var"] = (torch.ones_like(values[node.input[2]]),) * 2
        elif node.op_type == "MatMul":
            state["project.weight"] = values[node.input[1]].T
    state |= {name: value for name, value in values.items() if name.startswith("norm.")}
    encoder.load_state_dict(state)
    return encoder.eval()


@torch.inference_mode()
def mean_embeddings(encoder: EncoderA, crops: Crops, views: int = 2) -> Tensor:
    """Mean of the first views of each person, (P, 512); crops halved, (P, V, 56, 56, 3)."""
    return torch.cat(
        [
            F.normalize(encoder.embed(to_tensor(part.reshape(-1, 56, 56, 3)))).view(len(part), views, -1).mean(1)
            for part in np.array_split(crops[:, :views], len(crops) // BATCH + 1)
        ]
    )


def teach_traits(
    encoder: EncoderA,
    crops: Crops,
    traits: NDArray[np.int64],
    path: Path,
    schedule: Schedule,
    config: CosFaceConfig | None = None,
) -> EncoderA:
    """Train encoder A on with CosFace's loss, and so that traits are read linearly off its unit-length embeddings.

    The norms keep their statistics.

    Args:
        crops: halved, (P, V, 56, 56, 3), of the people that the encoder was trained on.
        traits: (P, T) their answers to `metrics.traits.TRAITS`.
    """
    config = config or CosFaceConfig()
    torch.manual_seed(schedule.seed)
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
    head, reader = nn.Linear(EMBEDDING_WIDTH, len(crops), bias=False), nn.Linear(EMBEDDING_WIDTH, ANSWERS)
    with torch.no_grad():
        head.weight.copy_(mean_embeddings(encoder, crops))

    def loss_of(generator: np.random.Generator, share: float) -> Tensor:
        encoder.eval()
        people = generator.integers(0, len(crops), config.batch)
        views = generator.integers(0, crops.shape[1], config.batch)
        batch = augment(to_tensor(crops[people, views]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder.embed(batch)
        embeddings = F.normalize(embeddings.float())
        told = trait_loss(reader(READABLE * embeddings), torch.from_numpy(traits[people]))
        who = cosface_loss(embeddings, head.weight, torch.from_numpy(people), scale=config.scale, margin=config.margin)
        return who + TRAIT_WEIGHT * told

    train({"encoder": encoder, "head": head, "reader": reader}, loss_of, schedule, path)
    return encoder
