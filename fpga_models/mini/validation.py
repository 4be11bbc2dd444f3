"""Does the generator use the identity? v-MSE inside the faces with the right, no and a wrong one, fixed noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fpga_models import ddim
from fpga_models.mmf.batch import TrainingBatch
from fpga_models.mmf.data import TrainingData, draw_embeddings, gather
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.losses import region_mse

CONTROL_TIMES = (150, 350, 550, 750)


def validation_batch(data: TrainingData, count: int) -> TrainingBatch:
    """The last `count` scenes, landmarks shown; training leaves these scenes out."""
    chosen = np.arange(len(data.latents) - count, len(data.latents))
    embeddings = draw_embeddings(data, chosen, np.random.default_rng(0))
    return gather(data, chosen, ["landmark"] * count, embeddings)


@torch.no_grad()
def face_errors(trainee: Trainee, schedule: ddim.Schedule, batch: TrainingBatch, bfloat16: bool) -> dict[str, float]:
    """v-MSE in the face regions with own, no and wrong identity."""
    trainee.eval()
    size = len(batch.latents)
    at = torch.tensor(CONTROL_TIMES).repeat(size // len(CONTROL_TIMES) + 1)[:size]
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    noised = ddim.add_noise(schedule, batch.latents, noise, at)
    wanted = ddim.target(schedule, batch.latents, noise, at)
    region = batch.masks.amax(dim=1, keepdim=True)
    conditions = {
        "own_id": batch.embeddings,
        "no_id": torch.zeros_like(batch.embeddings),
        "wrong_id": batch.embeddings.roll(1, dims=0),
    }
    errors = {}
    for name, embeddings in conditions.items():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            prediction = trainee(noised, at, replace(batch, embeddings=embeddings))
        errors[name] = round(float(region_mse(prediction, wanted, region)), 4)
    return errors
