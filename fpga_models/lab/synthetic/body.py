"""Draws clothes, arms and legs of one person and tells the skeleton (OpenPose-18).

Body coordinates share the unit and the centre of the head, without its turn: the shoulders are near y = 1.6.
"""

import numpy as np
import numpy.typing as npt

from fpga_models.lab.synthetic.canvas import Image, Points, darker, disc, lighter, mix, path, polygon
from fpga_models.lab.synthetic.identity import Colour
from fpga_models.lab.synthetic.scene import Person

CLOTH_COLOURS: dict[str, Colour] = {
    "red": (206, 48, 52),
    "orange": (240, 138, 44),
    "yellow": (246, 208, 70),
    "green": (66, 150, 78),
    "teal": (36, 150, 150),
    "blue": (52, 98, 196),
    "purple": (124, 74, 170),
    "pink": (240, 144, 176),
    "brown": (128, 84, 52),
    "black": (42, 42, 50),
    "gray": (134, 140, 150),
    "white": (240, 240, 236),
}
SHOULDER, HIP = (1.12, 1.72), (0.68, 3.9)
KNEE_Y, ANKLE_Y = 5.65, 7.3
# elbow and wrist of the image-left arm relative to its shoulder; the other arm is mirrored
ARM_SHAPES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "down": ((-0.28, 1.25), (-0.22, 2.45)),
    "hips": ((-0.78, 1.0), (0.22, 1.95)),
    "waving": ((-0.85, 0.55), (-1.0, -0.85)),
    "crossed": ((-0.16, 1.2), (1.1, 1.0)),
    "behind": ((-0.3, 1.2), (0.15, 2.2)),
}


class Body:
    """One person's body below the chin on a canvas of `side` pixels."""

    def __init__(self, person: Person, skin: Colour, side: int) -> None:
        self.person, self.skin = person, skin
        self.unit = person.pose.unit * side
        self._centre = np.array([person.pose.x, person.pose.y]) * side
        self.cloth = CLOTH_COLOURS[person.clothes]
        self.joints = self._joints()

    def pixels(self, points: npt.ArrayLike) -> Points:
        """Body coordinates (N, 2) to pixels; the body leans about the neck and the neck follows the head's roll."""
        p = np.asarray(points, dtype=np.float64)
        x = p[:, 0] - (p[:, 1] - 1.4) * self.person.pose.lean
        x = x - 1.25 * np.sin(self.person.pose.roll) * np.clip(p[:, 1], 0, 1)
        result: Points = (np.stack([x, p[:, 1]], 1) * self.unit + self._centre).astype(np.float32)
        return result

    def _joints(self) -> dict[str, tuple[float, float]]:
        joints: dict[str, tuple[float, float]] = {"neck": (0.0, 1.5)}
        for side, name in ((-1, "left"), (1, "right")):
            shape = ARM_SHAPES[self.person.pose.arms[0 if side < 0 else 1]]
            shoulder = (side * SHOULDER[0], SHOULDER[1])
            joints[f"{name}_shoulder"] = shoulder
            for joint, (dx, dy) in zip(("elbow", "wrist"), shape, strict=True):
                joints[f"{name}_{joint}"] = (shoulder[0] - side * dx, shoulder[1] + dy)
            joints[f"{name}_hip"] = (side * HIP[0], HIP[1])
            joints[f"{name}_knee"] = (side * (0.5 * HIP[0] + 0.5 * self.person.pose.stance), KNEE_Y)
            joints[f"{name}_ankle"] = (side * self.person.pose.stance, ANKLE_Y)
        return joints

    def _at(self, *names: str) -> Points:
        return self.pixels([self.joints[name] for name in names])

    def draw(self, image: Image) -> None:
        """Legs, torso, arms and hands."""
        behind = [s for s, arm in zip(("left", "right"), self.person.pose.arms, strict=True) if arm == "behind"]
        if self._centre[1] + 3.6 * self.unit < image.shape[0]:
            self._legs(image)
        for side in behind:
            self._arm(image, side)
        self._torso(image)
        for side in ("left", "right"):
            if side not in behind:
                self._arm(image, side)

    def _legs(self, image: Image) -> None:
        colour = CLOTH_COLOURS[self.person.trousers]
        for side in ("left", "right"):
            hip, knee, ankle = self._at(f"{side}_hip", f"{side}_knee", f"{side}_ankle")
            inward = np.array([0.3 * self.unit * (1 if side == "left" else -1), 0])
            path(image, [hip + inward, knee, ankle], darker(colour, 0.12), 0.62 * self.unit)
            path(image, [hip + inward * 1.3, knee + inward * 0.2], colour, 0.4 * self.unit)
            shoe = ankle + np.array([0.0, 0.16]) * self.unit
            outward = np.array([-0.2 if side == "left" else 0.2, 0.0]) * self.unit
            path(image, [shoe, shoe + outward], (56, 40, 40), 0.36 * self.unit)

    def torso(self) -> list[tuple[float, float]]:
        """Outline of the torso in body coordinates."""
        right = [
            (0.3, 1.34),
            (0.72, 1.44),
            (1.12, 1.56),
            (1.34, 1.86),
            (1.2, 2.2),
            (0.98, 2.7),
            (0.94, 3.5),
            (1.0, 4.05),
        ]
        return [*right, *((-x, y) for x, y in reversed(right))]

    def _torso(self, image: Image) -> None:
        polygon(image, self.pixels(self.torso()), self.cloth)
        shade = [(0.5, 4.05), (0.62, 2.6), (0.86, 2.1), (1.2, 2.2), (0.98, 2.7), (0.94, 3.5), (1.0, 4.05)]
        polygon(image, self.pixels(shade), darker(self.cloth, 0.16))

    def _arm(self, image: Image, side: str) -> None:
        joints = self._at(f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist")
        inward = np.array([0.12 * self.unit * (1 if side == "left" else -1), 0.12 * self.unit])
        line = np.array([joints[0] + inward, joints[1], joints[2]])
        disc(image, joints[2], 0.24 * self.unit, darker(self.skin, 0.08))
        width = 0.5 * self.unit
        edge = darker(self.cloth, 0.35)
        bare = self.person.garment == "t-shirt"
        if bare:
            path(image, line, darker(self.skin, 0.08), 0.34 * self.unit)
            line = np.array([line[0], line[0] + 0.62 * (line[1] - line[0])])
        path(image, line, edge, width + max(0.08 * self.unit, 1))
        path(image, line, mix(self.cloth, edge, 0.1), width)

    def draw_neck(self, image: Image) -> None:
        """Neck, its shadow and the collar; hair behind the head is drawn before this."""
        shade = darker(self.skin, 0.24)
        garment, cloth = self.person.garment, self.cloth
        neck = [(-0.34, 0.55), (0.34, 0.55), (0.36, 1.32), (0.5, 1.46), (0.0, 1.78), (-0.5, 1.46), (-0.36, 1.32)]
        polygon(image, self.pixels(neck), mix(self.skin, shade, 0.45))
        polygon(image, self.pixels([(-0.34, 0.6), (0.34, 0.6), (0.35, 1.16), (0.0, 1.3), (-0.35, 1.16)]), shade)
        line = max(0.07 * self.unit, 1)
        if garment == "shirt":
            for s in (-1, 1):
                collar = [(s * 0.36, 1.2), (s * 0.62, 1.5), (s * 0.34, 1.92), (0.0, 1.74)]
                polygon(image, self.pixels(collar), lighter(cloth, 0.28))
                path(image, self.pixels(collar[1:]), darker(cloth, 0.35), line)
            path(image, self.pixels([(0.0, 1.8), (0.0, 4.05)]), darker(cloth, 0.3), line)
            for y in (2.2, 2.75, 3.3):
                disc(image, self.pixels([(0.0, y)])[0], 0.07 * self.unit, lighter(cloth, 0.6))
        elif garment == "sweater":
            roll = [(-0.46, 1.12), (0.46, 1.12), (0.54, 1.5), (0.3, 1.66), (-0.3, 1.66), (-0.54, 1.5)]
            polygon(image, self.pixels(roll), darker(cloth, 0.14))
            for y in (2.35, 2.65):
                path(image, self.pixels([(-0.86, y), (0.86, y)]), lighter(cloth, 0.45), 0.13 * self.unit)
        elif garment == "jacket":
            inner: Colour = (244, 244, 240) if self.person.clothes != "white" else (120, 130, 150)
            opening = [(-0.36, 1.3), (0.36, 1.3), (0.5, 1.5), (0.24, 4.05), (-0.24, 4.05), (-0.5, 1.5)]
            polygon(image, self.pixels(opening), inner)
            polygon(image, self.pixels([(-0.36, 1.28), (0.36, 1.28), (0.0, 1.72)]), mix(self.skin, shade, 0.45))
            for s in (-1, 1):
                lapel = [(s * 0.4, 1.3), (s * 0.72, 1.46), (s * 0.7, 2.1), (s * 0.22, 3.0)]
                polygon(image, self.pixels(lapel), darker(cloth, 0.25))
        else:
            curve = [(-0.5, 1.46), (-0.3, 1.68), (0.0, 1.8), (0.3, 1.68), (0.5, 1.46)]
            path(image, self.pixels(curve), darker(cloth, 0.3), 1.6 * line)

    def skeleton(self, nose: npt.ArrayLike, eyes: Points, ears: Points, side: int) -> Points:
        """OpenPose-18 keypoints (18, 3): x, y in pixels and 1 where the point lies in the picture, else 0.

        OpenPose's right is the person's right, the image's left.
        """
        body = self._at(
            "neck",
            *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
            *("left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle"),
        )
        points = np.concatenate([np.asarray(nose).reshape(1, 2), body, eyes, ears]).astype(np.float32)
        inside = np.all((points >= 0) & (points < side), axis=1)
        return np.concatenate([points, inside[:, None].astype(np.float32)], 1)
