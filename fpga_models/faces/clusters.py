"""Brings faces of the same person together, and says which of them are good enough to serve as references. Pure [ours].

Average linkage over cosines (scipy), cut where two faces resemble each other no more than two people do. Only faces
fit to be references take part; the others are paired with the people found, like any face with any reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

MOST = 6000
"""So many of the best faces are brought together: their distances take 144 MB."""
BEST = 5
"""So many of a person's best faces make their reference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """One person: indices of their best faces, best first, and their mean embedding (E,) of unit length."""

    best: tuple[int, ...]
    vector: NDArray[np.float32]


def quality(side: float, score: float, sharpness: float) -> float:
    """How fit a face is to be a reference: larger, surer and sharper is better.

    Args:
        side: shorter side of its box, px.
        score: of the detector, in [0, 1].
        sharpness: variance of the Laplacian of the aligned face.
    """
    return float(np.log2(max(side, 1.0)) * score * np.log1p(max(sharpness, 0.0)))


def find_people(
    vectors: NDArray[np.float32],
    qualities: Sequence[float],
    photos: Sequence[str],
    *,
    likeness: float,
    least_photos: int = 2,
) -> list[Cluster]:
    """Bring faces together; people are sorted by their number of photos, largest first.

    Args:
        vectors: (N, E) unit-length embeddings.
        qualities: (N) see `quality`.
        photos: (N) which photo each face is from; two faces of one photo are never one person's.
        likeness: least mean cosine within one person.
        least_photos: somebody seen in fewer photos has no reference but the face itself, and is left out.
    """
    if len(vectors) < 2:
        return []
    kept = np.argsort(-np.asarray(qualities), kind="stable")[:MOST]
    distances = 1 - np.clip(vectors[kept] @ vectors[kept].T, -1, 1).astype(np.float64)
    numbers = {photo: number for number, photo in enumerate(dict.fromkeys(photos))}
    where = np.array([numbers[photos[index]] for index in kept])
    distances[where[:, None] == where[None, :]] = 2.0
    np.fill_diagonal(distances, 0.0)
    labels = fcluster(linkage(squareform(distances, checks=False), "average"), 1 - likeness, "distance")
    found: list[tuple[int, Cluster]] = []
    for label in np.unique(labels):
        members = [int(index) for index in kept[labels == label]]  # best first, as `kept` is
        count = len({photos[index] for index in members})
        if count >= least_photos:
            best = tuple(members[:BEST])
            mean = vectors[list(best)].mean(axis=0)
            vector = (mean / np.linalg.norm(mean)).astype(np.float32)
            found.append((count, Cluster(best=best, vector=vector)))
    return [cluster for _, cluster in sorted(found, key=lambda one: (-one[0], one[1].best))]


def one_person(vectors: NDArray[np.float32], *, likeness: float) -> list[int]:
    """Indices of the faces (N, E) that do not go with the largest group of the others; empty where all are one person.

    Args:
        vectors: unit-length embeddings.
        likeness: least mean cosine within one person.
    """
    if len(vectors) < 2:
        return []
    distances = 1 - np.clip(vectors @ vectors.T, -1, 1).astype(np.float64)
    np.fill_diagonal(distances, 0.0)
    labels = fcluster(linkage(squareform(distances, checks=False), "average"), 1 - likeness, "distance")
    largest = int(np.bincount(labels).argmax())
    return [index for index, label in enumerate(labels) if label != largest]
