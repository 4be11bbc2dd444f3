"""Is it the same person? Face similarity with floor and ceiling, and retrieval among strangers. Pure, on embeddings.

Embeddings are rows (N, D), L2-normalised, by an encoder that training never used. A face that was not found is a row
of zeros: it counts as similarity 0 and as a miss.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpga_models.metrics.statistics import bootstrap_ci95, bootstrap_ratio_ci95, share_of_way

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
    """Share of faces whose nearest neighbour in the gallery is their own person.

    Attributes:
        floor: by chance.
        share: generated over real; `ci95` of it, redrawing people.
    """

    generated: float
    real: float
    floor: float
    share: float
    ci95: tuple[float, float]


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
    mean = float(own.mean())
    floor = float(cosines[strangers].mean()) if strangers.any() else 0.0
    ceiling = float(similarities(real, bounding).mean()) if len(real) else 0.0
    share = share_of_way(mean, floor, ceiling)
    return FaceSim(mean=mean, floor=floor, ceiling=ceiling, share=share, ci95=bootstrap_ci95(own))


def top1(
    generated: Floats,
    real: Floats,
    gallery: Floats,
    own: NDArray[np.int64],
    real_own: NDArray[np.int64] | None = None,
) -> Top1:
    """Retrieve each face (N, D) in a gallery (G, D) of one reference per person; `own` (N,) is the right row.

    `real_own` is the right row of the real faces where they show other people.
    """
    hits = _hits(generated, gallery, own)
    reachable = _hits(real, gallery, own if real_own is None else real_own)
    return Top1(
        generated=float(hits.mean()),
        real=float(reachable.mean()),
        floor=1 / len(gallery),
        share=share_of_way(float(hits.mean()), 0.0, float(reachable.mean())),
        ci95=bootstrap_ratio_ci95(hits, reachable),
    )


def _hits(faces: Floats, gallery: Floats, own: NDArray[np.int64]) -> NDArray[np.bool_]:
    nearest = (faces @ gallery.T).argmax(1)
    return np.asarray(found(faces) & (nearest == own))
