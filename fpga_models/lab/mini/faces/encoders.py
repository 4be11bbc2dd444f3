"""Training of encoder A (CosFace) and encoder B (supervised contrastive) on rendered, aligned crops.

The two see different identities: A the first half of the people, B the second. What one never saw is the other's
held-out set.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fpga_models.lab.mini.faces.augment import augment
from fpga_models.lab.mini.faces.loop import Schedule, train
from fpga_models.lab.mini.faces.networks import EMBEDDING_WIDTH, EncoderA, EncoderB

Crops = NDArray[np.uint8]
AnyEncoder = EncoderA | EncoderB


@dataclass(frozen=True, kw_only=True)
class CosFaceConfig:
    """CosFace's scale and margin (Wang et al. 2018, eq. 4); the margin grows over `ramp` of the run."""

    scale: float = 24.0
    margin: float = 0.3
    ramp: float = 0.3
    batch: int = 192


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2): temperature and batch layout."""

    temperature: float = 0.1
    people: int = 64
    views: int = 3


def split_of(part: str, people: int) -> range:
    """The people, of so many, that encoder A or encoder B is trained on."""
    return range(people // 2) if part == "encoder_a" else range(people // 2, people)


def halve(crops: Crops) -> Crops:
    """Average 2x2 pixels of crops (N, V, 112, 112, 3), once, so that a batch is cheap to draw."""
    halves = np.empty((*crops.shape[:2], 56, 56, 3), np.uint8)
    for index in range(len(crops)):
        blocks = np.asarray(crops[index]).reshape(-1, 56, 2, 56, 2, 3)
        halves[index] = (blocks.mean((2, 4), dtype=np.float32) + 0.5).astype(np.uint8)
    return halves


def to_tensor(crops: Crops) -> Tensor:
    """Turn uint8 RGB (B, H, W, 3) into float (B, 3, H, W) in [-1, 1], channels last in memory."""
    return (torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() - 127.5) / 127.5


def cosface_loss(embeddings: Tensor, centres: Tensor, people: Tensor, *, scale: float, margin: float) -> Tensor:
    """Return CosFace's cross entropy; embeddings (B, D), centres (P, D), people (B,) int64."""
    cosines = F.normalize(embeddings) @ F.normalize(centres).T  # (B, P)
    target = F.one_hot(people, len(centres))
    return F.cross_entropy(scale * (cosines - margin * target), people)


def contrastive_loss(embeddings: Tensor, people: Tensor, *, temperature: float) -> Tensor:
    """Return the supervised contrastive loss; embeddings (B, D), people (B,), each person at least twice."""
    unit = F.normalize(embeddings)
    itself = torch.eye(len(unit), dtype=torch.bool)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    same = (people[:, None] == people[None, :]) & ~itself
    log_share = torch.log_softmax(logits, 1).masked_fill(~same, 0.0)
    return -(log_share.sum(1) / same.sum(1)).mean()


def train_encoder_a(crops: Crops, path: Path, schedule: Schedule, config: CosFaceConfig | None = None) -> EncoderA:
    """Train encoder A on halved crops (P, V, 56, 56, 3) of P people and return it in evaluation mode."""
    config = config or CosFaceConfig()
    torch.manual_seed(schedule.seed)
    encoder = EncoderA()
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
    head = nn.Linear(EMBEDDING_WIDTH, len(crops), bias=False)

    def loss_of(generator: np.random.Generator, share: float) -> Tensor:
        people = generator.integers(0, len(crops), config.batch)
        views = generator.integers(0, crops.shape[1], config.batch)
        batch = augment(to_tensor(crops[people, views]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder.embed(batch)
        margin = config.margin * min(share / config.ramp, 1.0)
        return cosface_loss(
            embeddings.float(), head.weight, torch.from_numpy(people), scale=config.scale, margin=margin
        )

    train({"encoder": encoder, "head": head}, loss_of, schedule, path)
    encoder.eval()
    return encoder


def train_encoder_b(crops: Crops, path: Path, schedule: Schedule, config: ContrastiveConfig | None = None) -> EncoderB:
    """Train encoder B on halved crops (P, V, 56, 56, 3) of P other people."""
    config = config or ContrastiveConfig()
    torch.manual_seed(schedule.seed)
    encoder = EncoderB()
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU

    def loss_of(generator: np.random.Generator, share: float) -> Tensor:
        chosen = generator.choice(len(crops), min(config.people, len(crops)), replace=False)
        people = np.repeat(chosen, config.views)
        views = np.concatenate([generator.permutation(crops.shape[1])[: config.views] for _ in chosen])
        order = generator.permutation(len(people))  # the degradations come in runs: spread each person over them
        people, views = people[order], views[order]
        batch = augment(to_tensor(crops[people, views]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder.embed(batch)
        return contrastive_loss(embeddings.float(), torch.from_numpy(people), temperature=config.temperature)

    train({"encoder": encoder}, loss_of, schedule, path)
    encoder.eval()
    return encoder
