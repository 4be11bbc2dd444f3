"""DDIM as plain functions, eta 0: sampling goes down the noise levels, inversion climbs them (Song et al. 2021).

    x0 = (z_t - sqrt(1-abar_t) eps) / sqrt(abar_t),    z_s = sqrt(abar_s) x0 + sqrt(1-abar_s) eps

Inversion undoes exactly what sampling would do with the same network output. Knows a table of noise levels and nothing
of networks. Timestep -1 means the clean end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from fpga_models.errors import RequestError

Predictor = Callable[[Tensor, int], Tensor]
"""Network output in the schedule's prediction type for latents (B, C, h, w) at a timestep."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Noise levels of a diffusers scheduler config.

    Attributes:
        alphas_cumprod: (T,) abar by training timestep.
        final: abar at the clean end (timestep -1).
        prediction_type: epsilon or v_prediction.
        spacing, offset: how training timesteps are thinned out, as in diffusers.
    """

    alphas_cumprod: Tensor
    final: float
    prediction_type: Literal["epsilon", "v_prediction"]
    spacing: Literal["leading", "trailing", "linspace"]
    offset: int

    @classmethod
    def of(cls, scheduler: DDIMScheduler) -> Schedule:
        """Read the table and the switches of a diffusers scheduler."""
        if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise RequestError(f"Prediction type {scheduler.config.prediction_type}: epsilon or v_prediction wanted.")
        return cls(
            alphas_cumprod=scheduler.alphas_cumprod.double(),
            final=float(scheduler.final_alpha_cumprod),
            prediction_type=scheduler.config.prediction_type,
            spacing=scheduler.config.timestep_spacing,
            offset=scheduler.config.steps_offset,
        )

    @property
    def length(self) -> int:
        """Number of training timesteps T."""
        return len(self.alphas_cumprod)

    def level(self, timestep: int) -> float:
        """abar at a timestep; the clean end below 0."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final


def timesteps(schedule: Schedule, steps: int) -> list[int]:
    """Descending timesteps of a run with `steps` steps, spaced as diffusers spaces them.

    Raises:
        RequestError: steps outside 1..T.
    """
    total = schedule.length
    if not 1 <= steps <= total:
        raise RequestError(f"{steps} steps: 1 to {total} wanted.")
    if schedule.spacing == "trailing":
        return [int(t) for t in np.round(np.arange(total, 0, -total / steps)).astype(int) - 1]
    if schedule.spacing == "linspace":
        return [int(t) for t in np.linspace(0, total - 1, steps).round()[::-1].astype(int)]
    return [int(t) + schedule.offset for t in (np.arange(steps) * (total // steps)).round()[::-1].astype(int)]


def trajectory(schedule: Schedule, steps: int) -> list[tuple[int, int]]:
    """(from, to) pairs of a sampling run; the last one goes to the clean end.

    As in diffusers, one step spans T // steps training timesteps.
    """
    return [(t, t - schedule.length // steps) for t in timesteps(schedule, steps)]


def split(schedule: Schedule, latents: Tensor, level: float, output: Tensor) -> tuple[Tensor, Tensor]:
    """(x0, eps) that a network output says about latents at noise level `level` (their abar)."""
    signal, noise = level**0.5, (1 - level) ** 0.5
    if schedule.prediction_type == "epsilon":
        return (latents - noise * output) / signal, output
    return signal * latents - noise * output, signal * output + noise * latents


def step(schedule: Schedule, latents: Tensor, output: Tensor, *, start: int, end: int) -> Tensor:
    """Latents at timestep `end` from latents at `start` and the network output for them; either direction."""
    x0, eps = split(schedule, latents, schedule.level(start), output)
    level = schedule.level(end)
    there: Tensor = level**0.5 * x0 + (1 - level) ** 0.5 * eps
    return there


def unstep(schedule: Schedule, latents: Tensor, output: Tensor, *, start: int, end: int) -> Tensor:
    """Latents at timestep `start` from which `step` with the same output leads to these latents at `end`.

    With epsilon this is `step` the other way round. With v it is not: the output belongs to the level of `start`, so
    z_start = (z_end - (sin_e cos_s - cos_e sin_s) v) / (cos_e cos_s + sin_e sin_s), cos = sqrt(abar) of each [ours].
    """
    if schedule.prediction_type == "epsilon":
        return step(schedule, latents, output, start=end, end=start)
    cos_s, sin_s = schedule.level(start) ** 0.5, (1 - schedule.level(start)) ** 0.5
    cos_e, sin_e = schedule.level(end) ** 0.5, (1 - schedule.level(end)) ** 0.5
    there: Tensor = (latents - (sin_e * cos_s - cos_e * sin_s) * output) / (cos_e * cos_s + sin_e * sin_s)
    return there


@torch.no_grad()
def sample(schedule: Schedule, latents: Tensor, predict: Predictor, pairs: list[tuple[int, int]]) -> Tensor:
    """Follow `pairs` down from noise to the clean end."""
    for start, end in pairs:
        latents = step(schedule, latents, predict(latents, start), start=start, end=end)
    return latents


@torch.no_grad()
def invert(schedule: Schedule, latents: Tensor, predict: Predictor, pairs: list[tuple[int, int]]) -> list[Tensor]:
    """Climb the same pairs from the clean end up; returns every latent, clean one first.

    The network is asked at the later timestep, as the sampling step that will undo this one does.
    """
    path = [latents]
    for start, end in reversed(pairs):
        path.append(unstep(schedule, path[-1], predict(path[-1], start), start=start, end=end))
    return path


def add_noise(schedule: Schedule, latents: Tensor, noise: Tensor, at: Tensor) -> Tensor:
    """z_t = sqrt(abar_t) z_0 + sqrt(1-abar_t) eps for timesteps (B,)."""
    level = schedule.alphas_cumprod[at].to(latents)[:, None, None, None]
    return level.sqrt() * latents + (1 - level).sqrt() * noise


def target(schedule: Schedule, latents: Tensor, noise: Tensor, at: Tensor) -> Tensor:
    """What the network should put out for these latents, noise and timesteps (B,)."""
    if schedule.prediction_type == "epsilon":
        return noise
    level = schedule.alphas_cumprod[at].to(latents)[:, None, None, None]
    return level.sqrt() * noise - (1 - level).sqrt() * latents
