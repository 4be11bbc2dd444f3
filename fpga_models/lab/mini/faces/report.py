"""How well an encoder tells unseen people apart: the figures printed after training. Pure, on embeddings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Embeddings = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """Verification and retrieval of one gallery and one probe view per person."""

    auc: float
    top1: float
    same: float
    different: float
    people: int


def recognition(gallery: Embeddings, probes: Embeddings) -> Recognition:
    """Compare each probe with each gallery face; row i of both (P, D) is person i, rows L2-normalised."""
    cosines = probes @ gallery.T
    people = len(cosines)
    own = np.diagonal(cosines)
    others = cosines[~np.eye(people, dtype=bool)]
    return Recognition(
        auc=_auc(own, others),
        top1=float((cosines.argmax(1) == np.arange(people)).mean()),
        same=float(own.mean()),
        different=float(others.mean()),
        people=people,
    )


def _auc(positives: Embeddings, negatives: Embeddings) -> float:
    """Return the probability that a positive exceeds a negative (Mann-Whitney)."""
    ranks = rankdata(np.concatenate([positives, negatives]))[: len(positives)]
    wins = ranks.sum() - len(positives) * (len(positives) + 1) / 2
    return float(wins / (len(positives) * len(negatives)))
