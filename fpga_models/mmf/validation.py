"""What a run has learned so far: errors inside held-out faces with the right, no and a wrong identity, and pictures.

Scenes, noise and times are the same every time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpga_models.core import ddim
from fpga_models.core.autoencoder import Autoencoder
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.losses import region_mse
from fpga_models.mmf.samples.batch import TrainingBatch
from fpga_models.mmf.samples.data import TrainingData, draw_embeddings, gather

SHARES_OF_TIME = (0.15, 0.35, 0.55, 0.75)
SAMPLING_STEPS = 12
VALIDATION_SCENES = 256


def held_out_scenes(total: int) -> int:
    """How many of so many scenes, the last ones, training leaves out."""
    return min(VALIDATION_SCENES, max(1, total // 10))


def validation_batch(data: TrainingData, count: int) -> TrainingBatch:
    """The last `count` scenes, landmarks shown; training leaves these scenes out."""
    chosen = np.arange(len(data.latents) - count, len(data.latents))
    embeddings = draw_embeddings(data, chosen, np.random.default_rng(0))
    return gather(data, chosen, ["landmark"] * count, embeddings)


@torch.no_grad()
def face_errors(trainee: Trainee, schedule: ddim.Schedule, batch: TrainingBatch, bfloat16: bool) -> dict[str, float]:
    """Mean squared error of the prediction in the face regions with own, no and wrong identity."""
    trainee.eval()
    device = next(trainee.parameters()).device
    size = len(batch.latents)
    times = torch.tensor([int(share * schedule.length) for share in SHARES_OF_TIME])
    at = times.repeat(size // len(times) + 1)[:size]
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    noised = ddim.add_noise(schedule, batch.latents, noise, at)
    wanted = ddim.target(schedule, batch.latents, noise, at)
    region = batch.regions.amax(dim=1, keepdim=True)
    conditions = {
        "own_id": batch.embeddings,
        "no_id": torch.zeros_like(batch.embeddings),
        "wrong_id": batch.embeddings.roll(1, dims=0),
    }
    errors = {}
    for name, embeddings in conditions.items():
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            prediction = trainee(noised.to(device), at.to(device), replace(batch, embeddings=embeddings).to(device))
        errors[name] = round(float(region_mse(prediction.cpu(), wanted, region)), 4)
    return errors


@torch.no_grad()
def sample_sheet(
    trainee: Trainee, schedule: ddim.Schedule, vae: Autoencoder, batch: TrainingBatch
) -> NDArray[np.uint8]:
    """What the held-out scenes look like (top) and what is drawn for their conditions (below), one column each."""
    device = next(trainee.parameters()).device
    batch = batch.to(device)
    condition = trainee.eval().prepare(batch)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0)).to(device)

    def predict(latents: Tensor, timestep: int) -> Tensor:
        return trainee.predict(latents, torch.full((len(latents),), timestep, device=device), condition)

    drawn = ddim.sample(schedule, noise, predict, ddim.trajectory(schedule, SAMPLING_STEPS))
    rows = [vae.decode(latents / vae.config.scaling_factor).sample for latents in (batch.latents, drawn)]
    pixels = (torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2).clamp(-1, 1) * 127.5 + 127.5).round()
    sheet: NDArray[np.uint8] = pixels.to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return sheet
