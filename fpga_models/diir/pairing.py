"""Who is who: which reference each face of a picture belongs to. Pure [ours].

In this order: the caller's map; references with a known place, by distance; the others by likeness, as one assignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fpga_models.diir.picture import Floats
from fpga_models.diir.settings import DiirSettings
from fpga_models.errors import PlacementError, RequestError
from fpga_models.faces import Face
from fpga_models.metrics.assignment import ABSENT, match_places


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """One person as the caller knows them.

    Attributes:
        embedding: (E,) face embedding by the pack that also looks at the picture; any length, used at unit length.
        kps5: (5, 2) px, where this person's face is in the picture, if that is known (a generated group's layout).
        crop: (112, 112, 3) uint8 RGB, a sharp aligned face of theirs, for the local tokens; or None.
    """

    embedding: NDArray[np.floating]
    kps5: NDArray[np.floating] | None = None
    crop: NDArray[np.uint8] | None = None


def pair(
    faces: Sequence[Face],
    references: Sequence[Reference],
    settings: DiirSettings,
    mapping: Mapping[int, int] | None = None,
) -> dict[int, int]:
    """Reference index by face index; faces that belong to nobody are left out.

    Args:
        faces: of the picture, from left to right.
        references: at unit length.
        settings: pairing, min_likeness, margin.
        mapping: the caller's own choice, face index to reference index; nothing else is looked at then.

    Raises:
        RequestError: the map names a face or reference that is not there, or a map is needed and there is none.
    """
    if mapping is not None:
        return _checked(mapping, len(faces), len(references))
    pairs = by_place(faces, references)
    free_faces = [i for i in range(len(faces)) if i not in pairs]
    free = [j for j, reference in enumerate(references) if reference.kps5 is None]
    if not free_faces or not free:
        return pairs
    if settings.pairing == "map":
        if len(faces) == len(references) == 1:
            return {0: 0}
        raise RequestError(
            f"{len(faces)} faces and {len(references)} references: a map from faces to references is wanted, "
            "since a swap cannot go by likeness."
        )
    cosines = np.stack([faces[i].embedding for i in free_faces]) @ np.stack([references[j].embedding for j in free]).T
    likely = by_likeness(cosines, settings.min_likeness, settings.margin)
    return pairs | {free_faces[row]: free[column] for row, column in likely.items()}


def by_place(faces: Sequence[Face], references: Sequence[Reference]) -> dict[int, int]:
    """Pairs of the references whose place is known."""
    placed = [j for j, reference in enumerate(references) if reference.kps5 is not None]
    if not placed or not faces:
        return {}
    wanted = np.stack([points_of(references[j]) for j in placed]).astype(np.float32)
    matched = match_places(wanted, np.stack([face.kps5 for face in faces]))
    return {int(i): j for i, j in zip(matched, placed, strict=True) if i != ABSENT}


def by_likeness(cosines: Floats, least: float, margin: float) -> dict[int, int]:
    """Assign rows (faces) to columns (references) so that the sum of cosines is greatest; keep what is beyond doubt.

    A pair stays if its cosine reaches `least` and leads by `margin` over the face's other references and over the
    faces that got no reference.
    """
    rows, columns = linear_sum_assignment(-cosines)
    idle = np.setdiff1d(np.arange(len(cosines)), rows)
    kept = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        rivals = np.concatenate([np.delete(cosines[row], column), cosines[idle, column]])
        if cosines[row, column] >= least and (rivals < cosines[row, column] - margin).all():
            kept[row] = column
    return kept


def points_of(reference: Reference) -> Floats:
    """The known place of a reference, (5, 2).

    Raises:
        PlacementError: it has none, or one of another shape.
    """
    points = reference.kps5
    if points is None or points.shape != (5, 2) or not np.isfinite(points).all():
        got = None if points is None else points.shape
        raise PlacementError(f"kps5 of a reference must be finite numbers of shape (5, 2), got {got}.")
    return points


def _checked(mapping: Mapping[int, int], faces: int, references: int) -> dict[int, int]:
    for face, reference in mapping.items():
        if not (0 <= face < faces and 0 <= reference < references):
            raise RequestError(
                f"The map sends face {face} to reference {reference}; there are {faces} and {references}."
            )
    return dict(mapping)
