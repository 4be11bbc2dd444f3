"""Noise times and the diffusion loss of MMF training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def draw_timesteps(count: int, length: int, rng: np.random.Generator, logit_normal: float = 0.8) -> Tensor:
    """Timesteps (count,): this share of them logit-normal (the middle of the schedule), the rest uniform."""
    middle = 1 / (1 + np.exp(-rng.standard_normal(count)))
    times = np.where(rng.random(count) < logit_normal, middle, rng.random(count))
    return torch.from_numpy(np.minimum((times * length).astype(np.int64), length - 1))


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of the weighted mean squared error; weight (B, 1, h, w) is normalised per sample."""
    weight = weight / weight.mean(dim=(-1, -2), keepdim=True)
    return (weight * (prediction.float() - target).square()).mean()


def region_mse(prediction: Tensor, target: Tensor, region: Tensor) -> Tensor:
    """Mean squared error inside a region (B, 1, h, w) of the whole batch."""
    squared = (prediction.float() - target).square().mean(dim=1, keepdim=True)
    return (squared * region).sum() / region.sum().clamp(min=1e-6)
