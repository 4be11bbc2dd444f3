"""The face that stands at each requested place of a picture: detected by the product, embedded by the judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpga_models.faces import FacePack, align
from fpga_models.metrics.assignment import ABSENT, Position, landmark_errors, match_places
from fpga_models.metrics.evaluator import EvaluationEncoder

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedFaces:
    """Faces of one picture at its K requested places; rows of absent faces are zero.

    Attributes:
        judged: (K, D) embeddings of the evaluation encoder.
        product: (K, 512) embeddings of the product's own recogniser.
        kps5: (K, 5, 2) keypoints found, px, NaN where absent.
        errors: (K,) keypoint error over the distance of the eyes, NaN where absent.
    """

    judged: Floats
    product: Floats
    kps5: Floats
    errors: Floats

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which places (K,) hold a face."""
        return np.isfinite(self.errors)


def place_faces(picture: Image, requested: Floats, pack: FacePack, judge: EvaluationEncoder) -> PlacedFaces:
    """Detect the faces of an RGB picture and match them to requested keypoints (K, 5, 2) px."""
    faces = pack.detect(picture)
    found = np.array([face.kps5 for face in faces], np.float32).reshape(-1, 5, 2)
    matched = match_places(requested, found)
    places = np.flatnonzero(matched != ABSENT)
    embeddings = judge.embed_crops([align(picture, found[matched[place]]) for place in places])
    judged = np.zeros((len(requested), embeddings.shape[1]), np.float32)
    product = np.zeros((len(requested), 512), np.float32)
    points = np.full((len(requested), 5, 2), np.nan, np.float32)
    errors = np.full(len(requested), np.nan, np.float32)
    judged[places] = embeddings
    for place in places:
        product[place] = faces[matched[place]].embedding
    points[places] = found[matched[places]]
    errors[places] = landmark_errors(requested[places], found[matched[places]])
    return PlacedFaces(judged=judged, product=product, kps5=points, errors=errors)


def position(pictures: Sequence[PlacedFaces]) -> Position:
    """Summarise how well requested places were met over pictures."""
    errors = np.concatenate([faces.errors for faces in pictures])
    hit = np.isfinite(errors)
    return Position(hit_rate=float(hit.mean()), landmark_error=float(errors[hit].mean()) if hit.any() else 1.0)
