"""DDIM as plain functions, eta 0: sampling goes down the noise levels, inversion climbs them (Song et al. 2021).

    x0 = (z_t - sqrt(1-abar_t) eps) / sqrt(abar_t),    z_s = sqrt(abar_s) x0 + sqrt(1-abar_s) eps

and flow matching as Euler steps of its ODE (Lipman et al. 2022): z_t = (1-sigma) x0 + sigma eps, v = eps - x0. Both are
z = signal x0 + noise eps, so one set of functions serves both.

Inversion undoes exactly what sampling would do with the same network output. Knows a table of noise levels and nothing
of networks. Timestep -1 means the clean end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from fpga_models.errors import RequestError

Predictor = Callable[[Tensor, int], Tensor]
"""Network output in the schedule's prediction type for latents (B, C, h, w) at a timestep."""


Prediction = Literal["epsilon", "v_prediction", "flow"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Noise levels of a diffusers scheduler config.

    Attributes:
        signals, noises: (T,) float64, shares of clean latents and noise by training timestep.
        final: both at the clean end (timestep -1).
        prediction_type: what the network puts out: noise, the velocity of diffusion, or that of a flow.
        spacing, offset: how training timesteps are thinned out, as in diffusers.
    """

    signals: Tensor
    noises: Tensor
    final: tuple[float, float]
    prediction_type: Prediction
    spacing: Literal["leading", "trailing", "linspace"]
    offset: int

    @classmethod
    def of(cls, scheduler: DDIMScheduler | FlowMatchEulerDiscreteScheduler) -> Schedule:
        """Read the table and the switches of a diffusers scheduler.

        Raises:
            RequestError: another prediction type, or a flow whose shift depends on the picture's size.
        """
        config = scheduler.config
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            if config.use_dynamic_shifting:
                raise RequestError("A flow schedule with one shift for all sizes is wanted (use_dynamic_shifting).")
            even = torch.arange(1, config.num_train_timesteps + 1, dtype=torch.float64) / config.num_train_timesteps
            noises = config.shift * even / (1 + (config.shift - 1) * even)
            return cls(
                signals=1 - noises, noises=noises, final=(1.0, 0.0), prediction_type="flow", spacing="trailing",
                offset=0,
            )  # fmt: skip
        if config.prediction_type not in ("epsilon", "v_prediction"):
            raise RequestError(f"Prediction type {config.prediction_type}: epsilon or v_prediction wanted.")
        levels, final = scheduler.alphas_cumprod.double(), float(scheduler.final_alpha_cumprod)
        return cls(
            signals=levels.sqrt(),
            noises=(1 - levels).sqrt(),
            final=(final**0.5, (1 - final) ** 0.5),
            prediction_type=config.prediction_type,
            spacing=config.timestep_spacing,
            offset=config.steps_offset,
        )

    @property
    def length(self) -> int:
        """Number of training timesteps T."""
        return len(self.signals)

    def scales(self, timestep: int) -> tuple[float, float]:
        """(signal, noise) at a timestep; those of the clean end below 0."""
        return (float(self.signals[timestep]), float(self.noises[timestep])) if timestep >= 0 else self.final

    def scales_at(self, at: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The same for timesteps (B,), each (B, 1, 1, 1), on the device and in the number format of `like`."""
        signal, noise = (table[at.cpu()].to(like)[:, None, None, None] for table in (self.signals, self.noises))
        return signal, noise


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

    As in diffusers, one step of diffusion spans T // steps training timesteps, and one of a flow ends where the next
    begins.
    """
    starts = timesteps(schedule, steps)
    if schedule.prediction_type == "flow":
        return list(pairwise([*starts, -1]))
    return [(t, t - schedule.length // steps) for t in starts]


Scales = tuple[float, float] | tuple[Tensor, Tensor]


def split(schedule: Schedule, latents: Tensor, scales: Scales, output: Tensor) -> tuple[Tensor, Tensor]:
    """(x0, eps) that a network output says about latents whose (signal, noise) is `scales`."""
    signal, noise = scales
    if schedule.prediction_type == "epsilon":
        return (latents - noise * output) / signal, output
    if schedule.prediction_type == "flow":
        return latents - noise * output, latents + signal * output
    return signal * latents - noise * output, signal * output + noise * latents


def step(schedule: Schedule, latents: Tensor, output: Tensor, *, start: int, end: int) -> Tensor:
    """Latents at timestep `end` from latents at `start` and the network output for them; either direction."""
    x0, eps = split(schedule, latents, schedule.scales(start), output)
    signal, noise = schedule.scales(end)
    there: Tensor = signal * x0 + noise * eps
    return there


def unstep(schedule: Schedule, latents: Tensor, output: Tensor, *, start: int, end: int) -> Tensor:
    """Latents at timestep `start` from which `step` with the same output leads to these latents at `end`.

    With noise or a flow's velocity this is `step` the other way round. With diffusion's v it is not: the output belongs
    to the level of `start`, so
    z_start = (z_end - (sin_e cos_s - cos_e sin_s) v) / (cos_e cos_s + sin_e sin_s), (cos, sin) = scales of each [ours].
    """
    if schedule.prediction_type != "v_prediction":
        return step(schedule, latents, output, start=end, end=start)
    (cos_s, sin_s), (cos_e, sin_e) = schedule.scales(start), schedule.scales(end)
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
    """z_t = signal z_0 + noise eps for timesteps (B,)."""
    signal, share = schedule.scales_at(at, latents)
    return signal * latents + share * noise


def target(schedule: Schedule, latents: Tensor, noise: Tensor, at: Tensor) -> Tensor:
    """What the network should put out for these latents, noise and timesteps (B,)."""
    if schedule.prediction_type == "epsilon":
        return noise
    if schedule.prediction_type == "flow":
        return noise - latents
    signal, share = schedule.scales_at(at, latents)
    return signal * noise - share * latents
