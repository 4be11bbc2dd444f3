"""The training loop: batch in, one optimiser step, progress out as data.

Noise, times, drops and modes of step n depend only on (seed, n, process): a resumed run continues bit for bit on a CPU.
The caller decides the learning rate of every step and when to stop, to validate and to save.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from fpga_models import ddim
from fpga_models.denoiser import Denoiser, People
from fpga_models.mmf import checkpoint, parallel
from fpga_models.mmf.batch import Disturbance, TrainingBatch, disturb
from fpga_models.mmf.losses import draw_timesteps, weighted_mse
from fpga_models.mmf.optimiser import MuonAdamW, OptimiserConfig


class Trainee(nn.Module):
    """Everything that is trained together: denoiser and, for the mini preset, the text encoder."""

    def __init__(self, denoiser: Denoiser, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text_encoder = text_encoder

    def forward(self, noised: Tensor, timesteps: Tensor, batch: TrainingBatch) -> Tensor:
        """The prediction (B, C, h, w) for a batch's condition."""
        people = People(embeddings=batch.embeddings, masks=batch.masks, scales=torch.ones(batch.masks.shape[:2]))
        condition = self.denoiser.prepare(
            text=self.text_encoder(batch.text).last_hidden_state,
            people=people,
            control=batch.control,
            flags=batch.flags,
        )
        prediction: Tensor = self.denoiser(noised, timesteps, condition)
        return prediction


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Numbers of a run that do not change while it runs."""

    seed: int
    batch_size: int = 32
    face_weight: float = 2.0
    average_decay: float = 0.998
    disturbance: Disturbance = field(default_factory=Disturbance)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    bfloat16: bool = True


class Trainer:
    """State of a run: networks, optimiser, moving average and the number of the next step."""

    def __init__(self, trainee: Trainee, schedule: ddim.Schedule, config: LoopConfig, empty_text: Tensor) -> None:
        self.trainee = trainee
        self.schedule = schedule
        self.config = config
        self.empty_text = empty_text
        self.step = 0
        self.optimiser = MuonAdamW(trainee.named_parameters(), config.optimiser)
        self.average = {name: p.detach().clone() for name, p in trainee.named_parameters()}

    def rng(self) -> np.random.Generator:
        """The generator of this process's coming step; the data set draws its batch from it first."""
        return np.random.default_rng([self.config.seed, self.step, parallel.rank()])

    def train_step(self, batch: TrainingBatch, rng: np.random.Generator, rate: float) -> dict[str, float]:
        """One update; returns loss and gradient norm."""
        self.trainee.train()
        batch = disturb(batch, self.config.disturbance, rng, self.empty_text)
        at = draw_timesteps(len(batch.latents), self.schedule.length, rng)
        noise = torch.from_numpy(rng.standard_normal(batch.latents.shape, dtype=np.float32))
        noised = ddim.add_noise(self.schedule, batch.latents, noise, at)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            prediction = self.trainee(noised, at, batch)
        wanted = ddim.target(self.schedule, batch.latents, noise, at)
        loss = weighted_mse(prediction, wanted, batch.face_weight(self.config.face_weight))
        torch.autograd.backward(loss)
        norm = self.optimiser.step(rate)
        self.step += 1
        self._update_average()
        return {"loss": float(loss.detach()), "grad_norm": norm}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), list(self.trainee.parameters()), 1 - decay)

    def exchange(self) -> None:
        """Average weights, moving average and optimiser state with the other processes."""
        state = [*self.trainee.parameters(), *self.average.values(), *self.optimiser.state.values()]
        parallel.average_([tensor.detach() for tensor in state])

    def save(self, directory: Path, facts: Mapping[str, Any]) -> Path:
        """Write a checkpoint; `facts` are the caller's own and come back from `resume`."""
        parts = {
            "weights": self.trainee.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state,
        }
        return checkpoint.save(directory, self.step, parts, facts)

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start from these weights, moving average included, with a fresh optimiser."""
        self.trainee.load_state_dict(weights)
        with torch.no_grad():
            for name, p in self.trainee.named_parameters():
                self.average[name].copy_(p)

    def resume(self, folder: Path) -> dict[str, Any]:
        """Continue from a checkpoint; returns the caller's facts."""
        parts, facts = checkpoint.load(folder)
        self.trainee.load_state_dict(parts["weights"])
        with torch.no_grad():
            for name, value in parts["average"].items():
                self.average[name].copy_(value)
            for name, value in parts["optimiser"].items():
                self.optimiser.state[name].copy_(value)
        self.step = self.optimiser.steps = int(facts["step"])
        return facts
