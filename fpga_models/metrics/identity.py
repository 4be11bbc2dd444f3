"""Is it the same person? Face similarity with floor and ceiling, and retrieval among strangers. Pure, on embeddings.

Embeddings are rows (N, D), L2-normalised, by an encoder that training never used. A face that was not found is a row
of zeros: it counts as similarity 0 and as a miss.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpga_models.metrics.statistics import bootstrap_ci95, share_of_way

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FaceSim:
    """Mean similarity between two bounds: `floor` different people, `ceiling` two real pictures of one person."""

    mean: float
    floor: float
    ceiling: float
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Top1:
    """Share of faces whose nearest neighbour in the gallery is their own person."""

    generated: float
    real: float
    share: float


def similarities(first: Floats, second: Floats) -> Floats:
    """Return the cosine of each pair of rows (N, D), (N, D)."""
    result: Floats = (first * second).sum(1)
    return result


def found(embeddings: Floats) -> NDArray[np.bool_]:
    """Return which rows (N, D) hold a face."""
    return np.asarray(embeddings.any(1))


def face_sim(generated: Floats, real: Floats, references: Floats) -> FaceSim:
    """Compare generated and real faces with references of the same people, row by row (N, D).

    The floor is the mean over all real faces against the references of the other people.
    """
    own = similarities(generated, references)
    real, bounding = real[found(real)], references[found(real)]
    cosines = real @ references.T  # (n, N)
    strangers = ~np.isclose(bounding @ references.T, 1.0, atol=1e-5)
    mean, floor = float(own.mean()), float(cosines[strangers].mean())
    ceiling = float(similarities(real, bounding).mean())
    share = share_of_way(mean, floor, ceiling)
    return FaceSim(mean=mean, floor=floor, ceiling=ceiling, share=share, ci95=bootstrap_ci95(own))


def top1(generated: Floats, real: Floats, gallery: Floats, own: NDArray[np.int64]) -> Top1:
    """Retrieve each face (N, D) in a gallery (G, D) of one reference per person; `own` (N,) is the right row."""
    rates = [_hit_rate(faces, gallery, own) for faces in (generated, real)]
    return Top1(generated=rates[0], real=rates[1], share=share_of_way(rates[0], 0.0, rates[1]))


def _hit_rate(faces: Floats, gallery: Floats, own: NDArray[np.int64]) -> float:
    nearest = (faces @ gallery.T).argmax(1)
    return float((found(faces) & (nearest == own)).mean())
