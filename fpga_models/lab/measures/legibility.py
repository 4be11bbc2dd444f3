"""Can the traits of a generated face be read? A classifier's accuracy beside what it reaches on real faces. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpga_models.lab.measures.traits import TRAITS, Labels
from fpga_models.metrics.statistics import bootstrap_ratio_ci95

LEGIBLE = 48.0
"""Faces whose box is at least this many px on its longer side are read; smaller ones do not show their traits."""


@dataclass(frozen=True, kw_only=True)
class TraitAccuracy:
    """Share of right answers on generated and on real faces, by guessing, and the first over the second.

    Attributes:
        floor: the answer that is most frequent among these people, given for everybody.
    """

    generated: float
    real: float
    floor: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Legibility:
    """Accuracy on generated faces over that on real ones.

    Attributes:
        share: over all traits together; `ci95` of it, redrawing faces.
        glasses: of glasses and their shape alone.
        faces: how many were read.
        traits: every trait by itself.
    """

    share: float
    glasses: float
    ci95: tuple[float, float]
    faces: int
    traits: dict[str, TraitAccuracy]


def legibility(generated: Labels, real: Labels, truth: Labels) -> Legibility:
    """Compare what is read off generated and real faces with the truth, each (N, T); a lost face reads -1."""
    hits, reachable = generated == truth, real == truth
    traits = {name: _accuracy(hits[:, row], reachable[:, row], truth[:, row]) for row, name in enumerate(TRAITS)}
    return Legibility(
        share=_share(hits, reachable),
        glasses=traits["glasses"].share,
        ci95=bootstrap_ratio_ci95(hits.mean(1), reachable.mean(1)),
        faces=len(truth),
        traits=traits,
    )


def _accuracy(hits: NDArray[np.bool_], reachable: NDArray[np.bool_], truth: Labels) -> TraitAccuracy:
    return TraitAccuracy(
        generated=float(hits.mean()) if len(hits) else 0.0,
        real=float(reachable.mean()) if len(hits) else 0.0,
        floor=float(np.bincount(truth).max() / len(truth)) if len(truth) else 0.0,
        share=_share(hits, reachable),
    )


def _share(hits: NDArray[np.bool_], reachable: NDArray[np.bool_]) -> float:
    return float(hits.sum() / reachable.sum()) if reachable.any() else 0.0
