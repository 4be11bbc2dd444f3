"""Is everybody where they were asked to be? Faces matched to requested places, then judged. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fpga_models.metrics.statistics import bootstrap_ci95

Floats = NDArray[np.float32]
GATE = 1.5  # a face further from its place than this many distances of the requested eyes is not there [ours]
ABSENT = -1


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Over all requested people of a set of pictures.

    Attributes:
        accuracy: share of places whose face resembles its own person more than any other requested one.
        own: mean cosine to the own person, 0 where no face was found.
        other: mean cosine to the other requested people, over the faces found; comparable with the floor.
        ci95: of the accuracy, redrawing whole pictures.
    """

    accuracy: float
    own: float
    other: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Position:
    """Share of places with a face, and mean keypoint distance over the distance of the eyes at those places."""

    hit_rate: float
    landmark_error: float


def match_places(requested: Floats, faces: Floats) -> NDArray[np.int64]:
    """Give each requested place the face that makes the sum of distances least (Hungarian), within the gate.

    Args:
        requested: (K, 5, 2) keypoints asked for, px.
        faces: (M, 5, 2) keypoints found, px.

    Returns:
        (K,) index into `faces`, or ABSENT.
    """
    matched = np.full(len(requested), ABSENT, np.int64)
    if len(requested) == 0 or len(faces) == 0:
        return matched
    apart = requested.mean(1)[:, None] - faces.mean(1)[None]  # (K, M, 2)
    distance = np.linalg.norm(apart, axis=2) / eye_distance(requested)[:, None]
    rows, columns = linear_sum_assignment(np.minimum(distance, 10 * GATE))
    near = distance[rows, columns] <= GATE
    matched[rows[near]] = columns[near]
    return matched


def eye_distance(kps5: Floats) -> Floats:
    """Return the distance of the eyes (N,) in px of keypoints (N, 5, 2), at least one pixel."""
    result: Floats = np.maximum(np.linalg.norm(kps5[:, 0] - kps5[:, 1], axis=1), 1.0)
    return result


def landmark_errors(requested: Floats, got: Floats) -> Floats:
    """Return the mean keypoint distance (N,) of (N, 5, 2) pairs in units of the requested eyes' distance."""
    result: Floats = np.linalg.norm(requested - got, axis=2).mean(1) / eye_distance(requested)
    return result


def assignment(faces: list[Floats], references: list[Floats]) -> Assignment:
    """Judge pictures: each `faces[i]` (K, D) at the places of `references[i]` (K, D); a zero row is an absent face."""
    right: list[float] = []
    own: list[float] = []
    other: list[float] = []
    pictures: list[int] = []
    for picture, (got, wanted) in enumerate(zip(faces, references, strict=True)):
        cosines = got @ wanted.T  # (K, K)
        present = got.any(1)
        right += (present & (cosines.argmax(1) == np.arange(len(wanted)))).tolist()
        own += np.diagonal(cosines).tolist()
        other += cosines[present][~np.eye(len(wanted), dtype=bool)[present]].tolist()
        pictures += [picture] * len(wanted)
    hits = np.array(right, np.float32)
    return Assignment(
        accuracy=float(hits.mean()),
        own=float(np.mean(own)),
        other=float(np.mean(other)) if other else 0.0,
        ci95=bootstrap_ci95(hits, np.array(pictures)),
    )
