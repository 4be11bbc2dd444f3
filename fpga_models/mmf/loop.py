"""The training loop: batch in, one optimizer step, progress out as data.

Noise, times, drops and modes of step n depend only on (seed, n, process): a resumed run continues bit for bit on a CPU.
The caller decides which parameters learn, the learning rate of every step, and when to stop, to validate and to save.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextModel

from fpga_models.core import ddim
from fpga_models.core.bases.network import People
from fpga_models.core.denoiser import Condition, Denoiser
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.errors import DivergedError
from fpga_models.mmf import checkpoint, parallel
from fpga_models.mmf.localisation import AttentionProbe
from fpga_models.mmf.losses import clean_estimate, draw_timesteps, weighted_mse
from fpga_models.mmf.optimizer import MuonAdamW, OptimizerConfig
from fpga_models.mmf.samples.batch import Augmentation, TrainingBatch, augment

CleanLoss = Callable[[Tensor, TrainingBatch], Tensor]
"""Loss of clean latents (B, C, h, w) estimated for these samples."""
DRAFT_STEPS = 8
"""Of a whole draft; the last, from which the clean estimate is taken, is drawn from the second half."""


class Trainee(nn.Module):
    """Everything a run may train: denoiser, text encoder, and the modal network if there is one.

    Parameter names begin with `denoiser.unet.`, `denoiser.id_adapter.`, `denoiser.hint.`, `text_encoder.`, `modal.`.
    """

    def __init__(self, denoiser: Denoiser, text_encoder: CLIPTextModel, rep: RepControlNet | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text_encoder = text_encoder
        self.rep = rep
        if rep:
            self.modal = rep.modal

    def learn(self, beginnings: tuple[str, ...]) -> None:
        """Let the parameters whose names begin so learn, and no others."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(beginnings))

    def prepare(self, batch: TrainingBatch) -> Condition:
        """The condition of a batch; text states are computed unless the batch brings them."""
        people = People(
            embeddings=batch.embeddings,
            masks=batch.masks,
            scales=torch.ones(batch.masks.shape[:2], device=batch.masks.device),
            crops=batch.crops,
            local_keep=batch.local_keep,
        )
        text = batch.text if batch.text.is_floating_point() else self.text_encoder(batch.text).last_hidden_state
        return self.denoiser.prepare(text=text, people=people, control=batch.control, flags=batch.flags)

    def forward(self, noised: Tensor, timesteps: Tensor, batch: TrainingBatch) -> Tensor:
        """The prediction (B, C, h, w) for a batch's condition."""
        return self.predict(noised, timesteps, self.prepare(batch))

    def predict(self, noised: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The prediction for a condition, through base and modal network together if there is one."""
        live = {f"unet.{key}": value for key, value in self.rep.live_state().items()} if self.rep else {}
        prediction: Tensor = functional_call(self.denoiser, live, (noised, timesteps, condition))
        return prediction


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Weights of the losses.

    Attributes:
        identity: of the recogniser's loss on clean estimates below timestep `identity_below` * T [field: PuLID's idea].
        drafted: of the same loss on pictures that the network itself drafts from noise, `drafts` of each batch: what an
            estimate from a noised photograph shows of a person was in the photograph, what a draft shows came from the
            embedding [field: PuLID's few-step branch, with ReFL's one step of gradient].
        eyes: of the difference in the band of eyes and brows on clean estimates below timestep `eyes_below` * T: a
            pupil is a trifle in latents, and the first thing people look at [field: GHOST's eye loss].
    """

    face_weight: float = 2.0
    localisation: float = 0.0
    identity: float = 0.0
    identity_below: float = 0.3
    drafted: float = 0.0
    drafts: Annotated[int, Field(ge=1)] = 12
    eyes: float = 0.0
    eyes_below: float = 0.7


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Numbers of a run that do not change while it runs.

    Attributes:
        accumulate: parts a batch is sent through the network in; the update is that of the whole batch.
        rate_factors: by the beginning of a parameter's name, what its learning rate is multiplied with.
    """

    seed: int
    batch_size: int = 32
    accumulate: int = 1
    losses: Losses = field(default_factory=Losses)
    average_decay: float = 0.998
    disturbance: Augmentation = field(default_factory=Augmentation)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    bfloat16: bool = True


class Trainer:
    """State of a run: networks, optimizer, moving average and the number of the next step."""

    def __init__(
        self,
        trainee: Trainee,
        schedule: ddim.Schedule,
        config: LoopConfig,
        empty_text: Tensor,
        identity_loss: CleanLoss | None = None,
        eye_loss: CleanLoss | None = None,
    ) -> None:
        self.trainee = trainee
        self.schedule = schedule
        self.config = config
        self.empty_text = empty_text
        self.identity_loss = identity_loss
        self.eye_loss = eye_loss
        self.step = 0
        self.optimizer = MuonAdamW(trainee.named_parameters(), config.optimizer, config.rate_factors)
        self.ema = {name: p.detach().clone() for name, p in self.optimizer.parameters.items()}
        self._probe = AttentionProbe(trainee.denoiser.unet, trainee.denoiser.id_adapter)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.trainee.parameters()).device

    def rng(self) -> np.random.Generator:
        """The generator of this process's coming step; the data set draws its batch from it first."""
        return np.random.default_rng([self.config.seed, self.step, parallel.rank()])

    def train_step(self, batch: TrainingBatch, rng: np.random.Generator, rate: float) -> dict[str, float]:
        """One update; returns the losses and the gradient norm.

        Raises:
            DivergedError: a loss or the gradient is not finite; weights and moving average are as before the step.
        """
        self.trainee.train()
        local = self.trainee.denoiser.id_adapter.local
        tokens = local.config.tokens if local else 0
        batch = augment(batch, self.config.disturbance, rng, self.empty_text, tokens)
        at = draw_timesteps(len(batch), self.schedule.length, rng)
        noise = torch.from_numpy(rng.standard_normal(batch.latents.shape, dtype=np.float32))
        metrics: dict[str, float] = {}
        for part in torch.arange(len(batch)).chunk(self.config.accumulate):
            losses = self._losses(batch.rows(part).to(self.device), noise[part].to(self.device), at[part], rng)
            share = len(part) / len(batch)
            torch.autograd.backward(share * torch.stack(list(losses.values())).sum())
            for name, value in losses.items():
                metrics[name] = metrics.get(name, 0.0) + share * float(value.detach())
        if not all(math.isfinite(value) for value in metrics.values()):
            raise DivergedError(f"Step {self.step + 1}: losses {metrics}, finite ones were wanted.")
        norm = self.optimizer.step(rate)
        self.step += 1
        self._update_ema()
        return metrics | {"grad_norm": norm}

    def _losses(self, batch: TrainingBatch, noise: Tensor, at: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Weighted losses of one part of a batch, by name."""
        weights = self.config.losses
        noised = ddim.add_noise(self.schedule, batch.latents, noise, at)
        wanted = ddim.target(self.schedule, batch.latents, noise, at)
        probe = self._probe if weights.localisation else nullcontext()
        with probe, torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            prediction = self.trainee(noised, at.to(self.device), batch)
        losses = {"loss": weighted_mse(prediction, wanted, batch.loss_weight(weights.face_weight))}
        if weights.localisation:
            known = (batch.embeddings.abs().amax(dim=-1) > 0) & (batch.regions.amax(dim=(-1, -2)) > 0)
            losses["localisation"] = weights.localisation * self._probe.loss(batch.regions, known)
        seen = (
            ("identity", weights.identity, weights.identity_below, self.identity_loss),
            ("eyes", weights.eyes, weights.eyes_below, self.eye_loss),
        )
        for name, weight, below, loss in seen:
            late = torch.nonzero(at < below * self.schedule.length)[:, 0]
            if weight and loss and len(late):
                clean = clean_estimate(self.schedule, noised[late], prediction[late].float(), at[late])
                losses[name] = weight * loss(clean, batch.rows(late))
        few = torch.nonzero(batch.embeddings.abs().amax(dim=(1, 2)) > 0)[: weights.drafts, 0]
        if weights.drafted and self.identity_loss and len(few):
            drafted = self._drafted(batch.rows(few), noise[few], int(rng.integers(DRAFT_STEPS // 2, DRAFT_STEPS)))
            losses["drafted"] = weights.drafted * self.identity_loss(drafted, batch.rows(few))
        return losses

    def _drafted(self, batch: TrainingBatch, noise: Tensor, steps: int) -> Tensor:
        """Clean latents estimated after so many steps down from noise; gradients flow through the last estimate."""

        def predict(latents: Tensor, timestep: int) -> Tensor:
            at = torch.full((len(latents),), timestep, device=latents.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
                return self.trainee.predict(latents, at, condition).float()

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            condition = self.trainee.prepare(batch)
        pairs = ddim.trajectory(self.schedule, DRAFT_STEPS)
        latents = ddim.sample(self.schedule, noise, predict, pairs[:steps])
        last = torch.full((len(latents),), pairs[steps][0])
        return clean_estimate(self.schedule, latents, predict(latents, pairs[steps][0]), last)

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.config.average_decay, (1 + self.optimizer.steps) / (10 + self.optimizer.steps))
        learning: list[Tensor] = list(self.optimizer.parameters.values())
        torch._foreach_lerp_(list(self.ema.values()), learning, 1 - decay)

    @contextmanager
    def with_ema(self) -> Iterator[Trainee]:
        """The networks with the moving average in place of the weights, in evaluation mode."""
        learning = self.optimizer.parameters
        weights = {name: p.detach().clone() for name, p in learning.items()}
        try:
            self._put(self.ema)
            yield self.trainee.eval()
        finally:
            self._put(weights)

    def adopt_ema(self) -> None:
        """Make the moving average the weights: the end of a stage."""
        self._put(self.ema)

    def exchange(self) -> None:
        """Average weights, moving average and optimizer state with the other processes."""
        state = [*self.optimizer.parameters.values(), *self.ema.values(), *self.optimizer.state.values()]
        parallel.average_([tensor.detach() for tensor in state])

    def save(self, directory: Path, facts: Mapping[str, Any]) -> Path:
        """Write a checkpoint; `facts` are the caller's own and come back from `resume`."""
        parts = {"weights": self._own(), "average": self.ema, "optimiser": self.optimizer.state}
        return checkpoint.save(directory, self.step, parts, {"updates": self.optimizer.steps} | dict(facts))

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start from these weights, moving average included, with a fresh optimizer."""
        self.trainee.load_state_dict(weights)
        with torch.no_grad():
            for name, p in self.optimizer.parameters.items():
                self.ema[name].copy_(p)

    def resume(self, folder: Path) -> dict[str, Any]:
        """Continue from a checkpoint; returns the caller's facts."""
        parts, facts = checkpoint.load(folder)
        self._put(parts["weights"])
        with torch.no_grad():
            for name, value in parts["average"].items():
                self.ema[name].copy_(value)
            self.step = int(facts["step"])
            self.optimizer.load(parts["optimiser"], int(facts.get("updates", self.step)))
        return facts

    def _own(self) -> dict[str, Tensor]:
        """Weights that a checkpoint needs: all of them, or without the frozen base if there is a modal network."""
        base = ("denoiser.unet.", "text_encoder.") if self.trainee.rep else ()
        return {name: p for name, p in self.trainee.named_parameters() if not name.startswith(base)}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in weights.items():
            self.trainee.get_parameter(name).copy_(value)
