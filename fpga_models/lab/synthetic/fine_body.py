"""The same body with what 256 pixels show: folds and lit cloth, seams, cuffs and hands. Geometry is body.py's."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fpga_models.lab.synthetic.body import CLOTH_COLOURS, Body
from fpga_models.lab.synthetic.canvas import Image, Points, darker, disc, ellipse, lighter, mix, path, polygon
from fpga_models.lab.synthetic.identity import Colour
from fpga_models.lab.synthetic.scene import Person
from fpga_models.lab.synthetic.soft import clipped, curve, rim, soft

FINGERS = (-0.42, -0.14, 0.14, 0.42)  # radians beside the direction of the forearm
FOLDS = (
    ((0.86, 2.15), (0.55, 2.6), (0.5, 3.2)),
    ((-0.9, 2.2), (-0.62, 2.75), (-0.66, 3.4)),
    ((0.3, 3.1), (0.2, 3.6), (0.36, 4.05)),
)


class FineBody(Body):
    """One body, drawn fine, with light from `light_angle`; see Body for coordinates."""

    def __init__(self, person: Person, skin: Colour, side: int, light_angle: float) -> None:
        super().__init__(person, skin, side)
        self._lit = np.array([np.cos(light_angle), np.sin(light_angle)], np.float32)

    def draw(self, image: Image) -> None:
        """Shadow on the ground, legs, torso, arms and hands."""
        if self._centre[1] + 7.5 * self.unit < image.shape[0]:
            x, y = self.pixels([(0.0, 7.46)])[0].tolist()
            shade = ellipse((x - 0.3 * self.unit * float(self._lit[0]), y), 1.3 * self.unit, 0.22 * self.unit)
            soft(image, shade, (30, 24, 44), strength=0.45, blur=0.18 * self.unit)
        super().draw(image)

    def _legs(self, image: Image) -> None:
        colour = CLOTH_COLOURS[self.person.trousers]
        super()._legs(image)
        for side in ("left", "right"):
            hip, knee, ankle = self._at(f"{side}_hip", f"{side}_knee", f"{side}_ankle")
            inward = np.array([0.3 * self.unit * (1 if side == "left" else -1), 0])
            lit = 0.12 * self.unit * np.array([self._lit[0], 0.0])
            path(image, [hip + inward + lit, knee + lit, ankle + lit], lighter(colour, 0.14), 0.12 * self.unit)
            for share in (-0.1, 0.08):
                fold = knee + np.array([0.0, share * self.unit])
                path(
                    image,
                    [fold - np.array((0.22 * self.unit, 0.04 * self.unit)), fold + np.array((0.16 * self.unit, 0.0))],
                    darker(colour, 0.26),
                    0.04 * self.unit,
                )
            sole = ankle + np.array([0.0, 0.31]) * self.unit
            outward = np.array([-0.2 if side == "left" else 0.2, 0.0]) * self.unit
            path(image, [sole, sole + outward], (222, 216, 208), 0.09 * self.unit)

    def _torso(self, image: Image) -> None:
        outline = self.pixels(self.torso())
        unit, cloth = self.unit, self.cloth
        polygon(image, outline, cloth)
        if self.person.garment == "sweater":
            clipped(image, outline, self._knitting)
        for line in FOLDS:
            start, bend, end = self.pixels(line)
            fold = curve(start, bend, end)
            band = np.concatenate([fold, fold[::-1] + np.array([0.13, 0.0], np.float32) * unit])
            soft(image, band, darker(cloth, 0.5), strength=0.5, blur=0.1 * unit, within=outline)
        rim(image, outline, darker(cloth, 0.55), towards=0.45 * unit * self._lit, strength=0.75, blur=0.4 * unit)
        chest = self.pixels(ellipse((0.4 * float(self._lit[0]), 2.1), 0.5, 0.36))
        soft(image, chest, lighter(cloth, 0.3), strength=0.45, blur=0.3 * unit, within=outline)

    def _knitting(self, image: Image) -> None:
        for x in np.arange(-1.3, 1.31, 0.13):
            path(image, self.pixels([(x, 1.4), (x, 4.1)]), darker(self.cloth, 0.1), 0.035 * self.unit)
        hem = self.pixels([(-1.1, 3.86), (1.1, 3.86)])
        path(image, hem, darker(self.cloth, 0.3), 0.05 * self.unit)

    def _arm(self, image: Image, side: str) -> None:
        joints = self._at(f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist")
        inward = np.array([0.12 * self.unit * (1 if side == "left" else -1), 0.12 * self.unit])
        line = np.array([joints[0] + inward, joints[1], joints[2]])
        bare = self.person.garment == "t-shirt"
        self._hand(image, joints[1], joints[2], side)
        width, edge = 0.5 * self.unit, darker(self.cloth, 0.42)
        if bare:
            self._limb(image, line, 0.34 * self.unit, self.skin, darker(self.skin, 0.34))
            line = np.array([line[0], line[0] + 0.62 * (line[1] - line[0])])
        self._limb(image, line, width, self.cloth, edge)
        if bare:
            return
        elbow, wrist = joints[1], joints[2]
        across = _across(elbow, wrist) * 0.14 * self.unit
        fold = darker(self.cloth, 0.26)
        path(image, curve(elbow - across, elbow + 0.08 * (wrist - elbow), elbow + 0.4 * across), fold, 0.04 * self.unit)
        cuff = wrist + 0.02 * (elbow - wrist)
        across = _across(elbow, wrist) * 0.24 * self.unit
        colour = lighter(self.cloth, 0.3) if self.person.garment == "shirt" else darker(self.cloth, 0.22)
        path(image, [cuff - across, cuff + across], colour, 0.14 * self.unit)

    def _limb(self, image: Image, line: npt.NDArray[np.float32], width: float, colour: Colour, edge: Colour) -> None:
        """A sleeve or bare arm: dark edge, body, and a lit side."""
        path(image, line, edge, width + max(0.08 * self.unit, 1))
        path(image, line, mix(colour, edge, 0.28), width)
        path(image, line + 0.05 * self.unit * self._lit, colour, 0.72 * width)
        path(image, line + 0.12 * self.unit * self._lit, lighter(colour, 0.14), 0.26 * width)

    def _hand(self, image: Image, elbow: Points, wrist: Points, side: str) -> None:
        """Palm, four fingers and a thumb, in line with the forearm."""
        unit, skin = self.unit, darker(self.skin, 0.04)
        edge = darker(mix(self.skin, (188, 70, 60), 0.2), 0.36)
        along = (wrist - elbow) / max(float(np.linalg.norm(wrist - elbow)), 1e-6)
        turn = float(np.arctan2(along[1], along[0]))
        palm = wrist + 0.2 * unit * along
        ways = [turn + angle for angle in FINGERS]
        thumb = turn + (1.15 if side == "left" else -1.15) * (1 if along[1] > 0 else -1)
        tips = [palm + 0.36 * unit * np.array([np.cos(a), np.sin(a)]) for a in ways]
        tips.append(palm + 0.3 * unit * np.array([np.cos(thumb), np.sin(thumb)]))
        for colour, more in ((edge, 0.05), (skin, 0.0)):
            for tip in tips:
                path(image, [palm, tip], colour, (0.115 + more) * unit)
            disc(image, palm, (0.21 + 0.5 * more) * unit, colour)
        for first, second in pairwise(tips[:4]):
            path(image, [palm + 0.45 * ((first + second) / 2 - palm), (first + second) / 2], edge, 0.03 * unit)

    def draw_neck(self, image: Image) -> None:
        """Neck, its shadow and the collar."""
        super().draw_neck(image)
        unit, cloth = self.unit, self.cloth
        if self.person.garment != "sweater":
            throat = self.pixels([(-0.34, 0.6), (0.34, 0.6), (0.36, 1.2), (0.0, 1.5), (-0.36, 1.2)])
            soft(image, throat, darker(mix(self.skin, (188, 70, 60), 0.2), 0.5), strength=0.4, blur=0.2 * unit)
        if self.person.garment == "shirt":
            for y in (2.2, 2.75, 3.3):
                x, at = self.pixels([(0.0, y)])[0].tolist()
                disc(image, (x, at), 0.03 * unit, darker(cloth, 0.2))
            pocket = self.pixels([(0.32, 2.35), (0.72, 2.35), (0.72, 2.78), (0.52, 2.88), (0.32, 2.78)])
            path(image, pocket, darker(cloth, 0.32), 0.035 * unit, closed=True)
        elif self.person.garment == "jacket":
            for s in (-1, 1):
                seam = self.pixels([(s * 0.4, 1.3), (s * 0.72, 1.46), (s * 0.7, 2.1), (s * 0.22, 3.0)])
                path(image, seam, darker(cloth, 0.5), 0.035 * unit)
            for y in (3.2, 3.55):
                disc(image, self.pixels([(0.4, y)])[0], 0.06 * unit, darker(cloth, 0.55))
            tie = self.pixels([(-0.09, 1.72), (0.09, 1.72), (0.13, 2.7), (0.0, 2.9), (-0.13, 2.7)])
            polygon(image, tie, mix(cloth, (120, 30, 44), 0.6))
            path(image, tie[:2], darker(cloth, 0.5), 0.05 * unit)
        elif self.person.garment == "t-shirt":
            curved = [(-0.42, 1.5), (-0.24, 1.66), (0.0, 1.76), (0.24, 1.66), (0.42, 1.5)]
            path(image, self.pixels(curved), lighter(cloth, 0.25), 0.05 * unit)


def _across(start: Points, end: Points) -> npt.NDArray[np.float32]:
    """Unit vector at a right angle to the way from start to end."""
    x, y = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
    return np.array([-y, x], np.float32)
