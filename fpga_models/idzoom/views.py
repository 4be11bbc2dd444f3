"""Zoomed multi-crops: which squares of a picture become training samples. Pure.

Crops of one person at several zooms are the most useful augmentation for small faces [field]; sizes are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fpga_models.idzoom.records import Floats, View

FACE_SHARES = (0.5, 0.22)
"""Height of the face over the side of a zoomed square: a close portrait, a half body."""
LARGEST_STRETCH = 2.0
"""A crop is never enlarged more than this to reach the preset's size."""
SMALLEST_GAIN = 0.8
"""A zoom must be smaller than this share of the whole square, or it shows nothing new."""


def squares(width: int, height: int, boxes: Sequence[Floats], *, side: int, max_people: int) -> tuple[View, ...]:
    """The squares of a picture to train on: the whole first, then zooms on each person.

    Args:
        width, height: of the picture in px.
        boxes: faces (4,), left, top, right, bottom.
        side: of the preset's pictures in px.
        max_people: squares that show more people than this are left out.
    """
    whole = _whole(width, height, boxes)
    found = [whole] if whole[2] * LARGEST_STRETCH >= side else []
    for box in boxes:
        for share in FACE_SHARES:
            wanted = max(round(float(box[3] - box[1]) / share), round(side / LARGEST_STRETCH))
            if wanted < SMALLEST_GAIN * whole[2]:
                found.append(_around(box, wanted, width, height))
    views = []
    for left, top, length in dict.fromkeys(found):
        people = tuple(i for i, box in enumerate(boxes) if _holds(left, top, length, box))
        cut = any(_touches(left, top, length, box) for i, box in enumerate(boxes) if i not in people)
        if 1 <= len(people) <= max_people and not cut:
            views.append(View(left=left, top=top, side=length, people=people))
    return tuple(views)


def _whole(width: int, height: int, boxes: Sequence[Floats]) -> tuple[int, int, int]:
    """The largest square, placed over the middle of all faces."""
    side = min(width, height)
    centre = np.mean([(box[:2] + box[2:]) / 2 for box in boxes], axis=0)
    left = int(np.clip(round(float(centre[0]) - side / 2), 0, width - side))
    top = int(np.clip(round(float(centre[1]) - side / 2), 0, height - side))
    return left, top, side


def _around(box: Floats, side: int, width: int, height: int) -> tuple[int, int, int]:
    """A square inside the picture with the face in the middle, a little above it when the square is much larger."""
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    face = float(box[3] - box[1])
    down = 0.2 * max(0.0, side - 2 * face)
    left = int(np.clip(round(x - side / 2), 0, width - side))
    top = int(np.clip(round(y - side / 2 + down), 0, height - side))
    return left, top, side


def _holds(left: int, top: int, side: int, box: Floats) -> bool:
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    return _inside_share(left, top, side, box) > 0.8 and left <= x < left + side and top <= y < top + side


def _touches(left: int, top: int, side: int, box: Floats) -> bool:
    """Whether half a face or more of somebody else is in the square: it would be a person without an identity."""
    return _inside_share(left, top, side, box) > 0.5


def _inside_share(left: int, top: int, side: int, box: Floats) -> float:
    across = min(float(box[2]), left + side) - max(float(box[0]), left)
    along = min(float(box[3]), top + side) - max(float(box[1]), top)
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return max(across, 0.0) * max(along, 0.0) / max(area, 1e-6)
