"""Are the branch form and the merged form of a trained modal network one and the same map? [paper: they are]"""

from __future__ import annotations

import torch

from fpga_models.core import ddim
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.samples.batch import TrainingBatch

SCENES = 4
SHARE_OF_TIME = 0.5


@torch.no_grad()
def merged_difference(trainee: Trainee, schedule: ddim.Schedule, batch: TrainingBatch) -> float:
    """Largest difference between the predictions of both forms on a few scenes, as a share of the largest value.

    In float32; what is left is the order of additions.
    """
    if trainee.rep is None:
        return 0.0
    device = next(trainee.parameters()).device
    some = batch.rows(torch.arange(min(SCENES, len(batch)))).to(device)
    noise = torch.randn(some.latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
    at = torch.full((len(some),), int(SHARE_OF_TIME * schedule.length), device=device)
    noised = ddim.add_noise(schedule, some.latents, noise, at)
    condition = trainee.eval().prepare(some)
    merged = trainee.predict(noised, at, condition)
    trainee.rep.inject()
    try:
        branch = trainee.denoiser(noised, at, condition)
    finally:
        trainee.rep.eject()
    return float((merged - branch).abs().max() / branch.abs().max())
