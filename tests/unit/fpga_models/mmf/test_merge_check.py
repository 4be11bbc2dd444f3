from __future__ import annotations

import torch

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.merge_check import merged_difference
from fpga_models.mmf.samples.data import TrainingData
from fpga_models.mmf.validation import validation_batch


def test_branch_and_merged_form_of_a_trained_modal_network_predict_the_same(
    mini: PortraitPipeline, data: TrainingData
) -> None:
    rep = RepControlNet(mini.denoiser.unet)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in rep.modal.parameters():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.1 * float(value.abs().mean()))
    trainee, batch = Trainee(mini.denoiser, mini.text_encoder, rep), validation_batch(data, 2)

    assert 0 < merged_difference(trainee, mini.schedule, batch) < 1e-4

    live = rep.live_state()
    rep.live_state = lambda: {key: 1.01 * value for key, value in live.items()}  # type: ignore[method-assign]  # a fault
    assert merged_difference(trainee, mini.schedule, batch) > 1e-3
