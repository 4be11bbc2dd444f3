"""Control images and region masks from keypoints: pure drawing, no network.

Skeletons are OpenPose-18 in their common colours, landmarks the five points in InstantID's. Two drawings: `published`
as the published ControlNets saw them, `ours` with even bars and the outline of the face as an ellipse. All coordinates
are pixels, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fpga_models.errors import PlacementError

Floats = NDArray[np.floating]
ControlMode = Literal["skeleton", "landmark", "both", "none"]
Drawing = Literal["ours", "published"]
CONTROL_MODES: tuple[ControlMode, ...] = ("skeleton", "landmark", "both", "none")

SUBPIXEL_BITS = 4
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
RED_TO_PINK = np.clip(  # 18 hues once around the wheel from red, as OpenPose colours joints and limbs
    [[abs(hue - 180) - 60, 120 - abs(hue - 120), 120 - abs(hue - 240)] for hue in range(0, 360, 20)], 0, 60
) * (255 / 60)
LANDMARK_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
FACE_BARS = tuple((point, 2, point) for point in (0, 1, 3, 4))
"""From, to, and number of the colour: every point to the nose."""
LANDMARK_SIZES, SKELETON_SIZES = (4 / 1024, 10 / 1024), (4 / 512, 4 / 512)
"""Half width of a bar in its middle and radius of a dot, over the picture's shorter side: InstantID's at its 1024 px,
OpenPose's at the 512 px of its ControlNet [field]."""
NOSE, NECK, RIGHT_EYE, LEFT_EYE = 0, 1, 14, 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """Keypoints of one person.

    Attributes:
        kps5: (5, 2) eye, eye, nose, mouth corner, mouth corner; image-left one first; or None.
        skeleton: (18, 3) x, y, visibility (0 hides the joint) in OpenPose order; or None.
    """

    kps5: Floats | None = None
    skeleton: Floats | None = None

    def face_points(self) -> Floats:
        """The five points, from the skeleton's nose and eyes if there are no landmarks.

        Raises:
            PlacementError: neither is there, or an array has another shape.
        """
        for name, array, shape in (("kps5", self.kps5, (5, 2)), ("skeleton", self.skeleton, (18, 3))):
            if array is not None and (array.shape != shape or not np.isfinite(array).all()):
                raise PlacementError(f"{name} must be finite numbers of shape {shape}, got shape {array.shape}.")
        if self.kps5 is not None:
            return self.kps5
        if self.skeleton is None:
            raise PlacementError("A person needs kps5, a skeleton or a mask to be placed; none was given.")
        return _points_from_skeleton(self.skeleton)


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    """A tilted ellipse: centre, half axes (across and along the face) in pixels, roll in radians."""

    x: float
    y: float
    across: float
    along: float
    roll: float


def control_image(
    people: Sequence[Marks], *, width: int, height: int, mode: ControlMode, drawing: Drawing = "ours"
) -> NDArray[np.float32]:
    """Draw the control image of `mode`, (3, height, width) in [0, 1]; black where nothing is known."""
    canvas = np.zeros((height, width, 3), np.uint8)
    if drawing == "published":
        for person in people:
            if mode in ("skeleton", "both") and person.skeleton is not None:
                _draw_published(canvas, person.skeleton, _limbs(), RED_TO_PINK, SKELETON_SIZES)
        for person in people:
            if mode in ("landmark", "both"):
                seen = np.concatenate([person.face_points(), np.ones((5, 1))], axis=1)
                _draw_published(canvas, seen, FACE_BARS, np.array(LANDMARK_COLOURS, float), LANDMARK_SIZES)
        return np.divide(canvas.transpose(2, 0, 1), 255, dtype=np.float32).copy()
    thickness = max(1, round(min(width, height) / 96))
    for person in people:
        if mode in ("skeleton", "both") and person.skeleton is not None:
            _draw_skeleton(canvas, person.skeleton, thickness)
    for person in people:
        if mode in ("landmark", "both"):
            _draw_landmarks(canvas, person.face_points(), thickness)
    return np.divide(canvas.transpose(2, 0, 1), 255, dtype=np.float32).copy()


def control_flags(mode: ControlMode) -> tuple[float, float]:
    """Modality flags: skeleton shown, landmarks shown."""
    return float(mode in ("skeleton", "both")), float(mode in ("landmark", "both"))


def face_ellipse(kps5: Floats) -> Ellipse:
    """The face (hairline to chin, ear to ear) that these five points belong to.

    Proportions of the common 112-pixel alignment template; the longer of eye distance and eye-to-mouth distance sets
    the scale, since turning the head shortens the one and nodding the other.
    """
    eyes, mouth = kps5[:2].mean(axis=0), kps5[3:].mean(axis=0)
    scale = max(float(np.linalg.norm(kps5[1] - kps5[0])) * 1.1, float(np.linalg.norm(mouth - eyes)), 1e-3)
    across, down = kps5[1] - kps5[0], mouth - eyes
    turned = across / (np.linalg.norm(across) + 1e-6) + np.array([down[1], -down[0]]) / (np.linalg.norm(down) + 1e-6)
    centre = eyes + down * 0.35
    return Ellipse(
        x=float(centre[0]),
        y=float(centre[1]),
        across=1.15 * scale,
        along=1.45 * scale,
        roll=float(np.arctan2(turned[1], turned[0])),
    )


def region_mask(
    kps5: Floats, *, width: int, height: int, dilation: float = 1.15, feather: float = 0.15
) -> NDArray[np.float32]:
    """Where a person acts: 1 inside the dilated face ellipse, falling to 0 over `feather` radii, (height, width)."""
    ellipse = face_ellipse(kps5)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    dx, dy = xs - ellipse.x, ys - ellipse.y
    cos, sin = np.cos(ellipse.roll), np.sin(ellipse.roll)
    radius = np.hypot((dx * cos + dy * sin) / ellipse.across, (dy * cos - dx * sin) / ellipse.along) / dilation
    mask: NDArray[np.float32] = np.clip((1 + feather - radius) / feather, 0, 1).astype(np.float32)
    return mask


def _points_from_skeleton(skeleton: Floats) -> Floats:
    """Five face points from nose and eyes: the mouth lies as far below the nose as the eyes lie above it."""
    if not skeleton[[NOSE, RIGHT_EYE, LEFT_EYE], 2].all():
        raise PlacementError("A skeleton places a face only if its nose and both eyes are visible.")
    nose, left, right = skeleton[NOSE, :2], skeleton[RIGHT_EYE, :2], skeleton[LEFT_EYE, :2]
    mouth = 2 * nose - (left + right) / 2
    half = (right - left) * 0.42
    return np.stack([left, right, nose, mouth - half, mouth + half])


def _draw_skeleton(canvas: NDArray[np.uint8], skeleton: Floats, thickness: int) -> None:
    for index, (start, end) in enumerate(LIMBS):
        if skeleton[start, 2] > 0 and skeleton[end, 2] > 0:
            colour = tuple(float(c) * 0.6 for c in RED_TO_PINK[index])
            _line(canvas, skeleton[start], skeleton[end], colour, thickness)
    for index, joint in enumerate(skeleton):
        if joint[2] > 0:
            _dot(canvas, joint, tuple(float(c) for c in RED_TO_PINK[index]), thickness)


def _draw_landmarks(canvas: NDArray[np.uint8], kps5: Floats, thickness: int) -> None:
    ellipse = face_ellipse(kps5)
    centre, axes = (_fixed(ellipse.x), _fixed(ellipse.y)), (_fixed(ellipse.across), _fixed(ellipse.along))
    roll = float(np.degrees(ellipse.roll))
    cv2.ellipse(canvas, centre, axes, roll, 0, 360, (255, 255, 255), thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    for point, colour in zip(kps5, LANDMARK_COLOURS, strict=True):
        _line(canvas, point, kps5[2], tuple(c * 0.6 for c in colour), thickness)
    for point, colour in zip(kps5, LANDMARK_COLOURS, strict=True):
        _dot(canvas, point, colour, thickness)


def _limbs() -> tuple[tuple[int, int, int], ...]:
    return tuple((start, end, index) for index, (start, end) in enumerate(LIMBS))


def _draw_published(
    canvas: NDArray[np.uint8],
    points: Floats,
    bars: Sequence[tuple[int, int, int]],
    colours: NDArray[np.floating],
    sizes: tuple[float, float],
) -> None:
    """Bars that taper to both ends, at six tenths of the colour, then full dots; points (n, 3) x, y, seen.

    In whole pixels and degrees, as the networks saw them in training [field].
    """
    half, radius = (max(1, round(size * min(canvas.shape[:2]))) for size in sizes)
    for start, end, colour in bars:
        if points[start, 2] > 0 and points[end, 2] > 0:
            (x0, y0), (x1, y1) = points[start, :2], points[end, :2]
            middle, axes = (int((x0 + x1) / 2), int((y0 + y1) / 2)), (int(np.hypot(x1 - x0, y1 - y0) / 2), half)
            outline = cv2.ellipse2Poly(middle, axes, int(np.degrees(np.arctan2(y1 - y0, x1 - x0))), 0, 360, 1)
            cv2.fillConvexPoly(canvas, outline, tuple(float(int(c * 0.6)) for c in colours[colour]))
    for (x, y, seen), colour_of in zip(points, colours, strict=True):
        if seen > 0:
            cv2.circle(canvas, (int(x), int(y)), radius, tuple(float(c) for c in colour_of), cv2.FILLED)


def _line(canvas: NDArray[np.uint8], start: Floats, end: Floats, colour: tuple[float, ...], thickness: int) -> None:
    points = (_fixed(start[0]), _fixed(start[1])), (_fixed(end[0]), _fixed(end[1]))
    cv2.line(canvas, *points, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _dot(canvas: NDArray[np.uint8], point: Floats, colour: tuple[float, ...], thickness: int) -> None:
    centre = _fixed(point[0]), _fixed(point[1])
    cv2.circle(canvas, centre, _fixed(0.9 * thickness), colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed(value: float) -> int:
    return round(float(value) * (1 << SUBPIXEL_BITS))
