"""Faces as five points and as boxes, and how one is made from the other. Pixels in, pixels out.

The proportions of a frontal face in its box are ours, measured on the synthetic portraits of the mini preset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Point = tuple[float, float]
Points = tuple[Point, ...]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

FACE: tuple[complex, ...] = (0.27 + 0.35j, 0.73 + 0.35j, 0.5 + 0.57j, 0.36 + 0.8j, 0.64 + 0.8j)
"""Eyes, nose and mouth corners in a unit box from hairline to chin, image-left first."""
CORNERS: tuple[complex, ...] = (0j, 1 + 0j, 1j, 1 + 1j)
NOSE, RIGHT_EYE, LEFT_EYE = 0, 14, 15
"""Joints of OpenPose-18; the person's right eye is the one at the image's left."""


def _fit(source: Sequence[complex], target: Sequence[complex]) -> tuple[complex, complex]:
    """Return a, b of the similarity a * z + b that takes source to target with the least squares."""
    n = len(source)
    middle, goal = sum(source) / n, sum(target) / n
    spread = sum(abs(z - middle) ** 2 for z in source)
    a = sum((z - middle).conjugate() * (w - goal) for z, w in zip(source, target, strict=True)) / spread
    return a, goal - a * middle


def _points(values: Iterable[complex]) -> Points:
    return tuple((z.real, z.imag) for z in values)


def box_of_face(kps5: Points) -> Box:
    """Return the upright box around the face that these five points belong to."""
    a, b = _fit(FACE, [complex(x, y) for x, y in kps5])
    corners = [a * z + b for z in CORNERS]
    xs, ys = [z.real for z in corners], [z.imag for z in corners]
    return min(xs), min(ys), max(xs), max(ys)


def face_of_box(box: Box) -> Points:
    """Return the five points of a frontal face that fills the box."""
    x0, y0, x1, y1 = box
    return tuple((x0 + z.real * (x1 - x0), y0 + z.imag * (y1 - y0)) for z in FACE)


def face_of_skeleton(skeleton: Sequence[tuple[float, float, float]]) -> Points | None:
    """Return the five points that fit nose and eyes of a skeleton, or None where one of them is hidden."""
    seen = [skeleton[joint] for joint in (RIGHT_EYE, LEFT_EYE, NOSE)]
    if any(joint[2] <= 0 for joint in seen):
        return None
    a, b = _fit(FACE[:3], [complex(x, y) for x, y, _ in seen])
    return _points(a * z + b for z in FACE)


def eyes_to_mouth_turn(kps5: Points) -> float:
    """Return the cross product of eye line and eyes-to-mouth line: positive for a face that is not mirrored."""
    (lx, ly), (rx, ry), _, (ax, ay), (bx, by) = kps5
    across = rx - lx, ry - ly
    down = (ax + bx - lx - rx) / 2, (ay + by - ly - ry) / 2
    return across[0] * down[1] - across[1] * down[0]


def overlap(a: Box, b: Box) -> float:
    """Return the shared area as a fraction of the smaller box, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / smaller if smaller > 0 else 0.0
