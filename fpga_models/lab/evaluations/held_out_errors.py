"""A preset on the held-out people of a data set: does the prediction inside their faces use who they are?

Mean squared error of the v-prediction in the face regions with the right, no and a wrong identity [ours]; scenes, times
and noise are the same for every preset, so versions can be compared on one data set. It needs no rendered ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.samples.data import open_training_data
from fpga_models.mmf.start import open_start
from fpga_models.mmf.validation import face_errors
from fpga_models.mmf.workbench import check_fit, split


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Errors with the own, no and a wrong identity; `gain` is what knowing the person takes off, a share in [0, 1]."""

    own_id: float
    no_id: float
    wrong_id: float
    gain: float
    scenes: int


def measure(preset: Path, data: Path, *, count: int, device: str = "cpu") -> HeldOut:
    """Measure a finished preset on at most `count` held-out scenes of a training folder.

    Raises:
        DataError: the folder cannot be read, or was made for another preset.
        WeightsError, PresetError: the preset is not sound.
    """
    pipeline = open_start(preset, device)
    found = open_training_data(data, pipeline.tokenizer)
    check_fit(found, pipeline)
    batch, _ = split(found, data, pipeline)
    some = batch.rows(torch.arange(min(count, len(batch))))
    trainee = Trainee(pipeline.denoiser, pipeline.text_encoder)
    errors = face_errors(trainee, pipeline.schedule, some, bfloat16=False)
    gain = 1 - errors["own_id"] / errors["no_id"] if errors["no_id"] else 0.0
    return HeldOut(**errors, gain=round(gain, 4), scenes=len(some))
