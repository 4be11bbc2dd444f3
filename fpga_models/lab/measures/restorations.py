"""Trials of DIIR: small faces of held-out people, edited picture by picture, and what the judge says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from fpga_models.diir import DiirResult, DiirSettings, Reference, Restorer
from fpga_models.lab.measures.held_out import Trial, draw_trials
from fpga_models.lab.measures.trials import Advance, Gallery, Image, Outcome
from fpga_models.metrics.identity import similarities
from fpga_models.metrics.restoration import Background, Floats, background

SMALL_KINDS = ("full_body", "group_2", "group_3", "group_4")
PEOPLE_PER_SCENE = 4


def mixed_trials(gallery: Gallery, kinds: Sequence[str], count: int, seed: int, side: int) -> list[Trial]:
    """Draw `count` scenes, every kind in equal parts."""
    shares = [count // len(kinds) + (index < count % len(kinds)) for index in range(len(kinds))]
    return [
        trial
        for kind, share in zip(kinds, shares, strict=True)
        for trial in draw_trials(gallery.people, kind, share, seed, side)
    ]


def references_of(trial: Trial) -> list[Reference]:
    """The people of a trial at their requested places, as the product knows them."""
    return [
        Reference(embedding=person.face.embedding, kps5=points, crop=person.crop)
        for person, points in zip(trial.references, trial.kps5, strict=True)
    ]


def restore_all(
    restorer: Restorer,
    trials: Sequence[Trial],
    pictures: Sequence[Image],
    settings: DiirSettings,
    *,
    seed: int,
    advance: Advance,
) -> list[DiirResult]:
    """Restore the people of each trial at their places, picture i with noise from `seed` + i."""
    results = []
    for index, (trial, picture) in enumerate(zip(trials, pictures, strict=True)):
        results.append(restorer.restore(picture, references_of(trial), settings=settings, seed=seed + index))
        advance(1)
    return results


def ungated(settings: DiirSettings) -> DiirSettings:
    """The same knobs with every edit kept and none retried, so that a part can be judged without the gate's help."""
    return replace(settings, min_gain=-2.0, max_landmark_shift=1e6, retries=0)


def images(results: Sequence[DiirResult]) -> list[Image]:
    """The edited pictures, of 8-bit RGB input."""
    return [cast("Image", result.image) for result in results]


def own_cosines(gallery: Gallery, outcome: Outcome) -> Floats:
    """Of every requested face to its own reference, by the judge; 0 where no face stands."""
    rows = [row for trial in outcome.trials for row in gallery.rows(trial)]
    return similarities(np.concatenate([faces.judged for faces in outcome.faces]), gallery.judged[rows])


def picture_of_each_face(trials: Sequence[Trial]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of the picture (N,) that each requested face stands in."""
    return np.repeat(np.arange(len(trials)), [len(trial.references) for trial in trials])


def backgrounds(pictures: Sequence[Image], results: Sequence[DiirResult]) -> Background:
    """Compare all pictures with what became of them: changed pixels summed, largest change, mean PSNR and SSIM."""
    found = [background(one, result.image, result.mask) for one, result in zip(pictures, results, strict=True)]
    ratios = [one.psnr for one in found if one.psnr is not None]
    return Background(
        changed_pixels=sum(one.changed_pixels for one in found),
        max_change=max(one.max_change for one in found),
        psnr=float(np.mean(ratios)) if ratios else None,
        ssim=float(np.mean([one.ssim for one in found])),
    )


def outcome_counts(results: Sequence[DiirResult]) -> Mapping[str, int]:
    """How many faces came out how."""
    outcomes = [str(face.outcome) for result in results for face in result.faces]
    return {name: outcomes.count(name) for name in sorted(set(outcomes))}


def mask_picture(result: DiirResult) -> Image:
    """Where a picture may differ, as a grey RGB picture for a sheet."""
    return np.repeat(np.round(result.mask * 255).astype(np.uint8)[..., None], 3, axis=2)


def mean_error(outcome: Outcome) -> float:
    """Mean keypoint error over the faces found, in distances of the requested eyes; 1 where none was found."""
    errors = np.concatenate([faces.errors for faces in outcome.faces])
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else 1.0
