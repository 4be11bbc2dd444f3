"""Is everybody where they were asked to be? Faces matched to requested places, then judged. Pure."""

from collections.abc import Sequence
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
        ci95: of the accuracy, redrawing whole pictures; `own_ci95` of the own similarity.
    """

    accuracy: float
    own: float
    other: float
    ci95: tuple[float, float]
    own_ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaceScores:
    """Every requested place (N,) of a set of pictures; the same trials give the same order, so sets can be paired.

    Attributes:
        right: the face resembles its own person more than any other requested one.
        own: cosine to the own person, 0 where no face was found.
        other, worst: mean and largest cosine to the other requested people, NaN where no face was found or nobody
            else was requested.
        picture: which picture the place is in.
    """

    right: NDArray[np.bool_]
    own: Floats
    other: Floats
    worst: Floats
    picture: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Mean of the largest cosine to a wrong requested person, and how far the mean one lies above the floor."""

    largest: float
    above_floor: float
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


def score_places(faces: Sequence[Floats], references: Sequence[Floats]) -> PlaceScores:
    """Score pictures: each `faces[i]` (K, D) at the places of `references[i]` (K, D); a zero row is an absent face."""
    rows: list[tuple[bool, float, float, float, int]] = []
    for picture, (got, wanted) in enumerate(zip(faces, references, strict=True)):
        cosines = got @ wanted.T  # (K, K)
        for place in range(len(wanted)):
            present = bool(got[place].any())
            strangers = np.delete(cosines[place], place) if present and len(wanted) > 1 else np.full(1, np.nan)
            right = present and int(cosines[place].argmax()) == place
            own = float(cosines[place, place])
            rows.append((right, own, float(strangers.mean()), float(strangers.max()), picture))
    right_, own_, other, worst, pictures = zip(*rows, strict=True)
    return PlaceScores(
        right=np.array(right_),
        own=np.array(own_, np.float32),
        other=np.array(other, np.float32),
        worst=np.array(worst, np.float32),
        picture=np.array(pictures, np.int64),
    )


def assignment(scores: PlaceScores) -> Assignment:
    """Summarise the places of a set of pictures."""
    found = np.isfinite(scores.other)
    return Assignment(
        accuracy=float(scores.right.mean()),
        own=float(scores.own.mean()),
        other=float(scores.other[found].mean()) if found.any() else 0.0,
        ci95=bootstrap_ci95(scores.right, scores.picture),
        own_ci95=bootstrap_ci95(scores.own, scores.picture),
    )


def leakage(scores: PlaceScores, floor: float) -> Leakage:
    """Compare the resemblance to the other requested people with that of strangers, `floor`."""
    found = np.isfinite(scores.other)
    other, pictures = scores.other[found] - floor, scores.picture[found]
    return Leakage(
        largest=float(scores.worst[found].mean()) if found.any() else 0.0,
        above_floor=float(other.mean()) if found.any() else 0.0,
        ci95=bootstrap_ci95(other, pictures),
    )
