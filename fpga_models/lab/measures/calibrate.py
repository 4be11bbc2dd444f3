"""Measures the verdict thresholds of a preset: how alike the product's own recogniser finds generated faces.

    python -m fpga_models.lab.measures.calibrate --preset-dir DIR --seed 3 --count 120

Prints the `verdict` object of preset.json, for portraits as they are delivered, their small faces restored. Uses the
face pack of the product, as the score stage does, never the judge.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.diir import Restorer
from fpga_models.lab.measures.generation import finish, generate
from fpga_models.lab.measures.held_out import draw_trials
from fpga_models.lab.measures.trials import (
    GALLERY,
    GROUP_KINDS,
    Instruments,
    Outcome,
    draw_gallery,
    observe,
    single_trials,
    through_autoencoder,
)
from fpga_models.lab.synthetic.scene import drawn_fine
from fpga_models.metrics.eyes import eye_differences

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """What the thresholds may get wrong [ours].

    Attributes:
        false_accept: share of faces that would be accepted as a given other person.
        false_reject: share of faces placed and conditioned rightly that would be rejected outright as they are drawn;
            a restored one that is hardly better is for a person to look at.
    """

    false_accept: float = 0.01
    false_reject: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Cosine of a generated face to its identity: accepted from `accept`, for review from `review`, else rejected.

    The rates and means are those measured on `faces` finished faces; `review_rate` is the share between the two.
    """

    accept: float
    review: float
    false_accept_rate: float
    false_reject_rate: float
    review_rate: float
    own_mean: float
    other_mean: float
    faces: int
    seed: int


def thresholds(own: Floats, other: Floats, drawn: Floats, *, seed: int, wanted: ErrorRates | None = None) -> Thresholds:
    """Set thresholds from cosines of finished faces to the own person (N,), to others (M,), and of drawn ones (K,).

    `accept` is the least value that at most `false_accept` of the others reach; `review` the greatest that at most
    `false_reject` of the drawn ones miss, but never above `accept`.
    """
    wanted = wanted or ErrorRates()
    accept = float(np.quantile(other, 1 - wanted.false_accept, method="higher")) + 1e-3
    review = min(float(np.quantile(drawn, wanted.false_reject, method="lower")), accept)
    return Thresholds(
        accept=round(accept, 4),
        review=round(review, 4),
        false_accept_rate=float((other >= accept).mean()),
        false_reject_rate=float((own < review).mean()),
        review_rate=float(((own >= review) & (own < accept)).mean()),
        own_mean=float(own.mean()),
        other_mean=float(other.mean()),
        faces=len(own),
        seed=seed,
    )


def product_similarities(outcomes: Sequence[Outcome], identities: Floats) -> tuple[Floats, Floats]:
    """Return cosines to the own person and to everybody else, over the faces found.

    Args:
        outcomes: generated pictures with their faces.
        identities: (G, 512) conditioning embeddings of all held-out people; other people are taken from them.
    """
    own, other = [], []
    for outcome in outcomes:
        for trial, faces in zip(outcome.trials, outcome.faces, strict=True):
            for place in np.flatnonzero(faces.present):
                wanted = trial.references[place].face.embedding
                cosines = identities @ faces.product[place]
                own.append(float(wanted @ faces.product[place]))
                other.append(cosines[identities @ wanted < 0.9999])
    return np.array(own, np.float32), np.concatenate(other).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class EyeThreshold:
    """Difference of the eyes of one face from which a person should look; the rates are of real and finished faces."""

    eyes: float
    eyes_false_rate: float
    eyes_review_rate: float
    eyes_faces: int


def eye_threshold(expected: Floats, found: Floats, false_review: float = 0.01) -> EyeThreshold:
    """Set the line that this share of faces whose eyes are right passes.

    Args:
        expected: (N,) differences of real renders after the autoencoder.
        found: (M,) of finished faces.
        false_review: the share [ours].
    """
    line = round(float(np.quantile(expected, 1 - false_review, method="higher")), 2)
    return EyeThreshold(
        eyes=line,
        eyes_false_rate=float((expected > line).mean()),
        eyes_review_rate=float((found > line).mean()),
        eyes_faces=len(found),
    )


def eyes_of(outcomes: Sequence[Outcome]) -> Floats:
    """Return the differences of the eyes (N,) of all faces at their places that are large enough to tell."""
    found = [
        difference
        for outcome in outcomes
        for picture, faces in zip(outcome.pictures, outcome.faces, strict=True)
        for difference in eye_differences(picture, list(faces.kps5[faces.present]))
        if difference is not None
    ]
    return np.array(found, np.float32)


def calibrate(
    instruments: Instruments, pipeline: PortraitPipeline, *, seed: int, count: int, progress: Progress
) -> dict[str, float | int]:
    """Generate `count` portraits and a quarter as many groups of each size, and measure the thresholds."""
    side = min(pipeline.preset.sizes[0])
    task = progress.add_task("references", total=GALLERY)
    gallery = draw_gallery(instruments, seed, GALLERY, partial(progress.advance, task), fine=drawn_fine(side))
    sets = [single_trials(gallery, count, seed, side)]
    sets += [draw_trials(gallery.people, kind, max(count // 4, 1), seed, side) for kind in GROUP_KINDS]
    pictures = progress.add_task("pictures", total=sum(map(len, sets)))
    restorer = Restorer(pipeline, instruments.pack)
    before, after = [], []
    for trials in sets:
        drawn = generate(pipeline, trials, seed=seed)
        before.append(observe(instruments, trials, drawn))
        finished = finish(restorer, trials, drawn, seed=seed, advance=partial(progress.advance, pictures))
        after.append(observe(instruments, trials, finished))
    identities = np.stack([person.face.embedding for person in gallery.people])
    own, other = product_similarities(after, identities)
    as_drawn, _ = product_similarities(before, identities)
    real = through_autoencoder(pipeline, [trial.real.image for trial in sets[0]])
    expected = eyes_of([observe(instruments, sets[0], real)])
    return asdict(thresholds(own, other, as_drawn, seed=seed)) | asdict(eye_threshold(expected, eyes_of(after)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.lab.measures.calibrate", description=__doc__)
    parser.add_argument("--preset-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    with Progress(console=Console(stderr=True)) as progress:
        instruments = Instruments.load(options.preset_dir, threads=options.threads)
        pipeline = PortraitPipeline.from_pretrained(options.preset_dir)
        found = calibrate(instruments, pipeline, seed=options.seed, count=options.count, progress=progress)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
