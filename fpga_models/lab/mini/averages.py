"""Averages of the weights chosen after the fact [field: post-hoc EMA, Karras et al. 2024, and LAWA, Kaddour 2022].

A run keeps its moving average in half precision at every save. The mean of the newest n of them is an average over a
span that nobody had to know beforehand; the best n is the one with the smallest error inside held-out faces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fpga_models.core import ddim
from fpga_models.lab.mini.networks import build_scheduler
from fpga_models.lab.mini.tokenizer import build_tokenizer
from fpga_models.lab.synthetic import VOCABULARY
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.samples.data import open_training_data
from fpga_models.mmf.validation import face_errors, held_out_scenes, validation_batch

FOLDER = "averages"
SPANS = (1, 2, 4, 8, 16)
KEPT = max(SPANS)


def keep(run: Path, step: int, average: Mapping[str, Tensor]) -> None:
    """Write the moving average of this step beside the checkpoints; the oldest beyond the longest span goes."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().half().contiguous() for name, value in average.items()}, folder / f"{step}.safetensors"
    )
    for path in kept(run)[:-KEPT]:
        path.unlink()


def kept(run: Path) -> list[Path]:
    """Files of the kept averages, oldest first."""
    return sorted((run / FOLDER).glob("*.safetensors"), key=lambda path: int(path.stem))


def mean_of(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Mean of these averages, in float32."""
    states = [load_file(path) for path in paths]
    return {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}


def adopt_best(trainee: Trainee, run: Path, data: Path) -> dict[int, float]:
    """Give the trainee the best mean of the newest averages; returns the error inside faces by their number."""
    folder = open_training_data(data, build_tokenizer(VOCABULARY))
    held_out = validation_batch(folder, held_out_scenes(len(folder.latents)))
    schedule, paths = ddim.Schedule.of(build_scheduler()), kept(run)
    errors: dict[int, float] = {}
    for span in [n for n in SPANS if n <= len(paths)]:
        trainee.load_state_dict(mean_of(paths[-span:]), strict=False)
        errors[span] = face_errors(trainee, schedule, held_out, bfloat16=True)["own_id"]
    if errors:
        trainee.load_state_dict(mean_of(paths[-min(errors, key=lambda span: errors[span]) :]), strict=False)
    return errors
