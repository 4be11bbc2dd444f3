"""Noise times and the losses of MMF training. Pure."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fpga_models.core import ddim


def draw_timesteps(count: int, length: int, rng: np.random.Generator, logit_normal: float = 0.8) -> Tensor:
    """Timesteps (count,): this share of them logit-normal (the middle of the schedule), the rest uniform."""
    middle = 1 / (1 + np.exp(-rng.standard_normal(count)))
    times = np.where(rng.random(count) < logit_normal, middle, rng.random(count))
    return torch.from_numpy(np.minimum((times * length).astype(np.int64), length - 1))


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of the weighted mean squared error; weight (B, 1, h, w) is normalised per sample."""
    weight = weight / weight.mean(dim=(-1, -2), keepdim=True).clamp(min=1e-6)
    return (weight * (prediction.float() - target).square()).mean()


def region_mse(prediction: Tensor, target: Tensor, region: Tensor) -> Tensor:
    """Mean squared error inside a region (B, 1, h, w) of the whole batch."""
    squared = (prediction.float() - target).square().mean(dim=1, keepdim=True)
    return (squared * region).sum() / region.sum().clamp(min=1e-6)


def localisation_loss(shares: Tensor, regions: Tensor, known: Tensor) -> Tensor:
    """Attention of ID tokens outside their person's region minus the same inside, mean over the people [field].

    Args:
        shares: (B, N, K) share of each cell's attention that goes to each person's tokens, in [0, 1].
        regions: (B, K, height, width) in [0, 1], height * width = N.
        known: (B, K) people that count; at least one of them is wanted, without any the loss is 0.

    Returns:
        A number in [-1, 1]; -1 is perfect.
    """
    inside = regions.flatten(2).transpose(1, 2)  # (B, N, K)
    outside = 1 - inside
    there = (shares * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1e-6)  # (B, K)
    elsewhere = (shares * outside).sum(dim=1) / outside.sum(dim=1).clamp(min=1e-6)
    return ((elsewhere - there) * known).sum() / known.sum().clamp(min=1)


def clean_estimate(schedule: ddim.Schedule, noised: Tensor, output: Tensor, at: Tensor) -> Tensor:
    """The x0 that the network's output implies for noised latents (B, C, h, w) at timesteps (B,)."""
    return ddim.split(schedule, noised, schedule.scales_at(at, noised), output)[0]


def cosine_loss(got: Tensor, wanted: Tensor) -> Tensor:
    """1 - cosine of embeddings (N, E), mean over them; 0 for none."""
    return (1 - F.cosine_similarity(got, wanted, dim=-1)).sum() / max(len(got), 1)
