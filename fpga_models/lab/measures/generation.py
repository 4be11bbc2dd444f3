"""Trials through the pipeline: held-out people at requested places, in batches, with progress as a callback.

First as MMF draws them, then with their small faces drawn again by DIIR, as the product delivers them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.core.presets import Preset
from fpga_models.diir import Restorer, restore_small_faces
from fpga_models.lab.measures.held_out import Trial

Image = NDArray[np.uint8]
Adapt = Callable[[PortraitRequest], PortraitRequest]
BATCH = 32


def request_of(trial: Trial, preset: Preset, seed: int) -> PortraitRequest:
    """Turn a trial into what a client would ask for: prompt, places, embeddings, faces, and the preset's defaults."""
    height, width = trial.real.image.shape[:2]
    people = tuple(
        PersonSlot(embedding=reference.face.embedding, kps5=person.kps5, skeleton=person.skeleton, crop=reference.crop)
        for reference, person in zip(trial.references, trial.real.people, strict=True)
    )
    return PortraitRequest(
        prompt=trial.real.caption, people=people, width=width, height=height, seed=seed, **preset.defaults
    )


def generate(
    pipeline: PortraitPipeline,
    trials: Sequence[Trial],
    *,
    seed: int,
    masked: bool = True,
    adapt: Adapt = lambda request: request,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Image]:
    """Generate one picture per trial, trial i from seed + i.

    Args:
        masked: False lets every person act everywhere.
        adapt: changes each request, for ablations.
        advance: told how many each batch finished.
    """
    pictures: list[Image] = []
    for start in range(0, len(trials), BATCH):
        part = trials[start : start + BATCH]
        requests = [
            replace(adapt(request_of(trial, pipeline.preset, seed + start + offset)), masked=masked)
            for offset, trial in enumerate(part)
        ]
        pictures += [picture for picture in pipeline.generate(requests) if picture is not None]
        advance(len(part))
    return pictures


def finish(
    restorer: Restorer,
    trials: Sequence[Trial],
    pictures: Sequence[Image],
    *,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Image]:
    """Return generated pictures with their small faces restored, picture i with noise from seed + i."""
    finished: list[Image] = []
    for index, (trial, picture) in enumerate(zip(trials, pictures, strict=True)):
        people = request_of(trial, restorer.pipeline.preset, seed + index).people
        result = restore_small_faces(restorer, picture, people, seed=seed + index)
        finished.append(np.asarray(result.image, np.uint8) if result else picture)
        advance(1)
    return finished
