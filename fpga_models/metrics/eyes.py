"""How much the two eyes of a face differ: malformed or unlike eyes are what people send pictures back for.

In ArcFace's frame the band around one eye is laid over the mirrored band around the other, moved by a few pixels to
where they agree best; what is left is the mean difference in CIELAB, about 2 to 7 for drawn faces whose eyes are right
and 7 to 17 where one was exchanged [ours]. Glasses belong to the band: a smeared frame counts too.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from insightface.utils.face_align import arcface_dst
from numpy.typing import NDArray

from fpga_models.core.alignment import CROP_SIDE, align

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
SMALLEST_EYES = 14.0
"""Distance of the eyes in px; in smaller faces an eye is three pixels."""
HALF_WIDTH, HALF_HEIGHT = 13, 10
MOVED = 3


def eye_difference(crop: Image) -> float:
    """Mean CIELAB difference of the eyes of an aligned RGB crop (112, 112, 3), one of them mirrored; 0 is none."""
    lab = cv2.GaussianBlur(cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 1.0)
    left, right = np.round(arcface_dst[:2]).astype(int)
    here = _band(lab, left[0], left[1])
    mirrored = lab[:, ::-1]
    across = CROP_SIDE - 1 - int(right[0])
    moves = range(-MOVED, MOVED + 1)
    return min(float(np.abs(here - _band(mirrored, across + dx, right[1] + dy)).mean()) for dx in moves for dy in moves)


def _band(lab: Floats, x: int, y: int) -> Floats:
    return lab[y - HALF_HEIGHT : y + HALF_HEIGHT + 1, x - HALF_WIDTH : x + HALF_WIDTH + 1]


def eye_differences(image: Image, faces: Sequence[Floats]) -> list[float | None]:
    """The difference for each face with these landmarks (5, 2) px of an RGB picture; None where eyes are too small."""
    return [
        eye_difference(align(image, kps5)) if np.linalg.norm(kps5[1] - kps5[0]) >= SMALLEST_EYES else None
        for kps5 in faces
    ]
