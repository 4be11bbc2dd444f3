"""Is an edited face better than what was there? More like its person, and still in its place [ours]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpga_models.diir.picture import Floats, Image
from fpga_models.diir.settings import DiirSettings
from fpga_models.faces import FacePack
from fpga_models.metrics.assignment import ABSENT, landmark_errors, match_places

Refusal = Literal["similarity_did_not_rise", "landmarks_moved", "face_lost"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`refusal` is None where the edit may stay; similarities are cosines, the shift is in distances of the eyes."""

    refusal: Refusal | None
    before: float
    after: float
    landmark_shift: float


def judge(
    pack: FacePack, before: Image, after: Image, kps5: Floats, reference: Floats, settings: DiirSettings
) -> Verdict:
    """Compare the face of a crop before and after its edit, both (n, n, 3) at the same size.

    Args:
        pack: detector and recogniser.
        before, after: the crop as it stands in the picture; not what the networks put out.
        kps5: (5, 2) of the face in the crop, used where the detector misses it in `before`.
        reference: (E,) unit length, of the person it should be.
        settings: min_gain and max_landmark_shift.
    """
    seen = _find(pack, before, kps5)
    start = np.asarray(kps5, np.float32) if seen is None else seen
    end = _find(pack, after, start)
    was = float(pack.embed(before, start) @ reference)
    if end is None:
        return Verdict(refusal="face_lost", before=was, after=0.0, landmark_shift=float("inf"))
    now = float(pack.embed(after, end) @ reference)
    shift = float(landmark_errors(start[None], end[None])[0])
    refusal: Refusal | None = None
    if shift > settings.max_landmark_shift:
        refusal = "landmarks_moved"
    elif now <= was + settings.min_gain:
        refusal = "similarity_did_not_rise"
    return Verdict(refusal=refusal, before=was, after=now, landmark_shift=shift)


def _find(pack: FacePack, crop: Image, kps5: Floats) -> Floats | None:
    """Landmarks of the face that stands where `kps5` says, None where there is none."""
    found = np.array([face.kps5 for face in pack.detect(crop)], np.float32).reshape(-1, 5, 2)
    index = int(match_places(np.asarray(kps5, np.float32)[None], found)[0])
    return None if index == ABSENT else found[index]
