"""Training of the trait classifier on rendered, aligned crops of faces that are large enough to show their traits.

Real renders only, of people that no evaluation shows; misaligned, blurred and dimmed as in the encoders' training, so
that it reads what is there and not how sharp it is.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fpga_models.lab.measures.traits import ANSWERS, TRAITS, decide, labels
from fpga_models.lab.mini.faces.augment import augment
from fpga_models.lab.mini.faces.encoders import Crops, to_tensor
from fpga_models.lab.mini.faces.loop import Schedule, train
from fpga_models.lab.mini.faces.networks import ResidualBlock, conv_bn
from fpga_models.lab.synthetic.dataset import open_crops

SMALLEST_FACE = 36.0  # px; the measurement reads faces over 48 px, training a little smaller ones too
BATCH = 128


class TraitNet(nn.Module):
    """Aligned RGB crop (B, 3, 112, 112) in [-1, 1] to scores (B, ANSWERS), the answers of all traits side by side."""

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 96)) -> None:
        super().__init__()
        low, middle, high = widths
        self.stem = conv_bn(12, low)
        self.body = nn.Sequential(
            ResidualBlock(low, low),
            ResidualBlock(low, middle, stride=2),
            ResidualBlock(middle, middle),
            ResidualBlock(middle, high, stride=2),
        )
        self.pool = nn.Sequential(nn.Conv2d(high, high, 7, groups=high, bias=False), nn.BatchNorm2d(high), nn.ReLU())
        self.answer = nn.Linear(high, ANSWERS)

    def forward(self, x: Tensor) -> Tensor:
        """Score crops."""
        return self.score(F.avg_pool2d(x, 2))

    def score(self, halved: Tensor) -> Tensor:
        """Score crops that are halved already, (B, 3, 56, 56)."""
        x = self.body(F.relu(self.stem(F.pixel_unshuffle(halved, 2))))  # (B, C, 7, 7)
        scores: Tensor = self.answer(self.pool(x).flatten(1))
        return scores


def large_crops(folder: Path, smallest: float) -> tuple[Crops, NDArray[np.int64]]:
    """Halved crops (N, 56, 56, 3) of faces of at least `smallest` px and their people's traits (N, T)."""
    crops, people = open_crops(folder)
    chosen = np.flatnonzero(np.load(folder / "crop_face_px.npy") >= smallest)
    halves = np.empty((len(chosen), 56, 56, 3), np.uint8)
    for start in range(0, len(chosen), 512):
        part = np.asarray(crops[chosen[start : start + 512]]).reshape(-1, 56, 2, 56, 2, 3)
        halves[start : start + 512] = (part.mean((2, 4), dtype=np.float32) + 0.5).astype(np.uint8)
    return halves, labels(people[chosen].tolist())


def trait_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """Mean cross entropy over traits; scores (B, ANSWERS), truth (B, T) int64."""
    parts = torch.split(scores, [len(answers) for answers in TRAITS.values()], dim=1)
    return torch.stack([F.cross_entropy(part, truth[:, row]) for row, part in enumerate(parts)]).mean()


def train_traits(crops: Crops, truth: NDArray[np.int64], path: Path, schedule: Schedule) -> TraitNet:
    """Train on halved crops (N, 56, 56, 3) with their traits (N, T) and return the network in evaluation mode."""
    torch.manual_seed(schedule.seed)
    network = TraitNet()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU

    def loss_of(generator: np.random.Generator, share: float) -> Tensor:
        chosen = generator.integers(0, len(crops), BATCH)
        batch = augment(to_tensor(crops[chosen]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            scores = network.score(batch)
        return trait_loss(scores.float(), torch.from_numpy(truth[chosen]))

    train({"traits": network}, loss_of, schedule, path)
    network.eval()
    return network


@torch.inference_mode()
def accuracies(network: TraitNet, crops: Crops, truth: NDArray[np.int64]) -> dict[str, float]:
    """Share of right answers by trait on halved crops (N, 56, 56, 3) as rendered."""
    scores = [network.score(to_tensor(crops[start : start + 256])).numpy() for start in range(0, len(crops), 256)]
    right = (decide(np.concatenate(scores)) == truth).mean(0)
    return {name: round(float(share), 4) for name, share in zip(TRAITS, right, strict=True)}
