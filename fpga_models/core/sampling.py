"""Samplers of a preset beside DDIM: Euler, DPM++ 2M and LCM by diffusers' own schedulers.

They draw; restoring keeps DDIM's exact pair of inversion and sampling, which these do not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler
from torch import Tensor

from fpga_models.errors import PresetError

SAMPLERS = {"euler": EulerDiscreteScheduler, "dpm++2m": DPMSolverMultistepScheduler, "lcm": LCMScheduler}
DDIM = "ddim"
NOISE_STRIDE = 7_919
"""What a request's own later noise is seeded with, beside its seed: never that of the picture's start [ours]."""


class Sampler:
    """One run of a stock scheduler over a batch; noise that it adds comes from one generator a request."""

    def __init__(self, name: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        if name not in SAMPLERS:
            raise PresetError(f"sampler {name!r}: one of {', '.join((DDIM, *SAMPLERS))} wanted.")
        self._scheduler = SAMPLERS[name].from_config(dict(config), **options)

    def start(self, noise: Tensor, steps: int, seeds: Sequence[int]) -> Tensor:
        """Lay the steps out and return the first latents of unit noise (B, C, h, w)."""
        self._scheduler.set_timesteps(steps, device=noise.device)
        self._generators = [torch.Generator("cpu").manual_seed(seed + NOISE_STRIDE) for seed in seeds]
        first: Tensor = noise * self._scheduler.init_noise_sigma
        return first

    def timesteps(self) -> Iterator[Tensor]:
        """The timesteps of the run, from noise to picture; each a scalar, of fractions where the scheduler has them."""
        yield from self._scheduler.timesteps

    def asked(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """What the network is shown of latents (B, C, h, w) at a timestep ()."""
        scaled: Tensor = self._scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(self, latents: Tensor, output: Tensor, timestep: Tensor) -> Tensor:
        """Latents (B, C, h, w) after one step with the network's output of the same shape; float32."""
        options = {} if isinstance(self._scheduler, DPMSolverMultistepScheduler) else {"generator": self._generators}
        there: Tensor = self._scheduler.step(output, timestep, latents, return_dict=False, **options)[0]
        return there
