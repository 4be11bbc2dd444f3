"""Draws one head and tells where its parts are: features slide on a cylinder with yaw and pitch.

Coordinates of a face: the head's centre is (0, 0), the chin about (0, 1), the crown (0, -0.95), x to the image's right.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fpga_models.lab.synthetic.canvas import Image, Points, darker, disc, ellipse, fixed, lighter, mix, path, polygon
from fpga_models.lab.synthetic.identity import EYE_COLOURS, HAIR_COLOURS, Colour, Identity, is_dark
from fpga_models.lab.synthetic.scene import Pose

EYE_WHITE: Colour = (250, 250, 248)
LINE: Colour = (34, 20, 22)
LENS_HALF_HEIGHT = 0.25
_ANGLES = np.linspace(0, 2 * np.pi, 49)[:-1]


Line = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Lips:
    """Eleven points across the mouth: x, and y of the seam, of the outer edges, and how far it is open."""

    x: Line
    seam: Line
    gap: Line
    top: Line
    bottom: Line


@dataclass(frozen=True, kw_only=True)
class Eye:
    """One eye: centre, half width and height, eleven points across of both lids, where it looks, the iris' radius."""

    cx: float
    cy: float
    half: float
    tall: float
    x: Line
    top: Line
    bottom: Line
    gaze: tuple[float, float]
    radius: float


class Head:
    """One head on a canvas of `side` pixels: the transform from face coordinates to pixels, and the drawing."""

    def __init__(self, identity: Identity, pose: Pose, side: int) -> None:
        self.who, self.pose = identity, pose
        self.unit = pose.unit * side
        self.radius = identity.face_width * 1.12
        cos, sin = np.cos(pose.roll), np.sin(pose.roll)
        self._turn = np.array([[cos, sin], [-sin, cos]], dtype=np.float64) * self.unit
        self._centre = np.array([pose.x, pose.y], dtype=np.float64) * side
        self.hair: Colour = HAIR_COLOURS[identity.hair_colour]

    def rigid(self, points: npt.ArrayLike) -> Points:
        """Face coordinates (N, 2) to pixels, turned and scaled only: outlines."""
        result: Points = (np.asarray(points, dtype=np.float64) @ self._turn + self._centre).astype(np.float32)
        return result

    def surface(self, points: npt.ArrayLike) -> Points:
        """Face coordinates (N, 2) to pixels through the turned cylinder: features."""
        p = np.asarray(points, dtype=np.float64)
        depth = np.sqrt(np.clip(self.radius**2 - p[:, 0] ** 2, 0, None))
        x = p[:, 0] * np.cos(self.pose.yaw) + 0.8 * depth * np.sin(self.pose.yaw)
        x = np.where(p[:, 1] > 0.3, np.clip(x, -0.9 * self._half_width(p[:, 1]), 0.9 * self._half_width(p[:, 1])), x)
        y = p[:, 1] + 0.32 * np.sin(self.pose.pitch) * (1 - 0.55 * p[:, 1] ** 2)
        return self.rigid(np.stack([x, y], 1))

    def outline(self, grow: float = 1.0) -> Points:
        """Outline of the head without hair and ears, (48, 2) in face coordinates."""
        who = self.who
        cos, sin = np.cos(_ANGLES), np.sin(_ANGLES)
        power = np.where(sin > 0, who.jaw, 0.9)
        x = who.face_width * np.sign(cos) * np.abs(cos) ** power * (1 - who.taper * np.clip(sin, 0, 1))
        y = np.where(sin > 0, who.chin_length, 0.95) * sin
        result: Points = (np.stack([x, y], 1) * grow).astype(np.float32)
        return result

    def _half_width(self, y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Half the width of the head's outline at these heights (below the centre)."""
        sin = np.clip(y / self.who.chin_length, 0, 0.98)
        width = self.who.face_width * (1 - sin**2) ** (self.who.jaw / 2) * (1 - self.who.taper * sin)
        result: npt.NDArray[np.float64] = width
        return result

    @property
    def eyes(self) -> Points:
        """Centres of the image-left and image-right eye in face coordinates."""
        return np.array(
            [[-self.who.eye_spacing, self.who.eye_height], [self.who.eye_spacing, self.who.eye_height]], np.float32
        )

    @property
    def mouth_corners(self) -> Points:
        """Image-left and image-right corner of the mouth in face coordinates."""
        half = self.who.mouth_width * (1 + 0.16 * self.pose.smile)
        y = self.who.mouth_height - 0.07 * self.pose.smile
        return np.array([[-half, y], [half, y]], np.float32)

    @property
    def nose_tip(self) -> tuple[float, float]:
        """Tip of the nose in face coordinates."""
        return 0.0, self.who.eye_height + self.who.nose_length

    def keypoints(self) -> Points:
        """Eyes, nose, mouth corners in pixels, (5, 2), image-left before image-right."""
        x, y = self.nose_tip
        tip = [(x + 0.12 * np.sin(self.pose.yaw), y)]
        return self.surface(np.concatenate([self.eyes, tip, self.mouth_corners]))

    def ears(self) -> Points:
        """Centres of the image-left and image-right ear in pixels."""
        hidden = 0.45 * np.array([max(-self.pose.yaw, 0), -max(self.pose.yaw, 0)])
        x = np.array([-1.0, 1.0]) * self.who.face_width + hidden
        return self.rigid(np.stack([x, np.full(2, 0.1)], 1))

    # --- hair -------------------------------------------------------------------------------------------------

    def hair_outline(self) -> Points | None:
        """Hair that lies over the head, outer edge and hairline, in face coordinates; None for a bald head."""
        style = self.who.hair_style
        if style == "bald":
            return None
        low = {"bob": 0.1, "long": 0.12, "bun": 0.02, "curly": 0.12}.get(style, 0.0)
        angle = np.linspace(np.pi - low, 2 * np.pi + low, 37)
        grow = np.full(37, 1.06 + 0.12 * self.who.hair_volume)
        if style == "curly":
            grow = grow + 0.07 + 0.055 * np.abs(np.sin(angle * 6.5))
        elif style == "spiky":
            lift = 0.3 * np.clip(-np.sin(angle), 0, 1) ** 2
            grow = grow + lift * (0.35 + 0.65 * np.abs(((angle * 3.6) % 1.0) - 0.5) * 2)
        elif style == "side part":
            side = -1.0 if self.who.hair_flip else 1.0
            grow = grow + 0.08 * np.clip(-np.sin(angle), 0, 1) * (1 + side * np.cos(angle))
        outer = np.stack([self.who.face_width * np.cos(angle) * grow, 0.95 * np.sin(angle) * grow], 1)
        result: Points = np.concatenate([outer, self._hairline()]).astype(np.float32)
        return result

    def _hairline(self) -> Points:
        w = self.who.face_width
        shapes: dict[str, list[tuple[float, float]]] = {
            "short": [
                (0.96, -0.12),
                (0.84, -0.42),
                (0.5, -0.6),
                (0, -0.64),
                (-0.5, -0.6),
                (-0.84, -0.42),
                (-0.96, -0.12),
            ],
            "side part": [
                (0.96, -0.1),
                (0.86, -0.36),
                (0.3, -0.42),
                (-0.3, -0.62),
                (-0.45, -0.78),
                (-0.8, -0.5),
                (-0.96, -0.1),
            ],
            "curly": [
                (0.95, 0.1),
                (0.86, -0.3),
                (0.6, -0.52),
                (0.3, -0.46),
                (0, -0.55),
                (-0.3, -0.46),
                (-0.6, -0.52),
                (-0.86, -0.3),
                (-0.95, 0.1),
            ],
            "spiky": [
                (0.96, -0.15),
                (0.8, -0.5),
                (0.55, -0.44),
                (0.35, -0.62),
                (0.1, -0.46),
                (-0.1, -0.62),
                (-0.35, -0.46),
                (-0.55, -0.62),
                (-0.8, -0.45),
                (-0.96, -0.15),
            ],
            "bob": [(0.96, 0.3), (0.84, -0.3), (0.8, -0.42), (0, -0.38), (-0.8, -0.42), (-0.84, -0.3), (-0.96, 0.3)],
            "long": [
                (0.96, 0.3),
                (0.82, -0.2),
                (0.5, -0.6),
                (0.05, -0.8),
                (-0.05, -0.8),
                (-0.5, -0.6),
                (-0.82, -0.2),
                (-0.96, 0.3),
            ],
            "bun": [
                (0.96, -0.05),
                (0.86, -0.4),
                (0.5, -0.66),
                (0, -0.72),
                (-0.5, -0.66),
                (-0.86, -0.4),
                (-0.96, -0.05),
            ],
        }
        points = np.array(shapes[self.who.hair_style]) * [w, 1.0]
        if self.who.hair_flip:
            points = points[::-1] * [-1.0, 1.0]
        inner = np.abs(points[:, 0]) < 0.75 * w
        shift = self.radius * np.sin(self.pose.yaw) * 0.7 * np.sqrt(np.clip(1 - (points[:, 0] / w) ** 2, 0, 1))
        points[:, 0] += np.where(inner, shift, 0.5 * shift)
        points[:, 1] += np.where(inner, 0.18 * np.sin(self.pose.pitch), 0.0)
        return points.astype(np.float32)

    def hair_behind(self) -> Points | None:
        """Hair that falls behind the head, in face coordinates; None for short styles."""
        w, more = self.who.face_width, 0.08 * self.who.hair_volume
        shapes: dict[str, list[tuple[float, float]]] = {
            "bob": [
                (-w * 0.7, -0.6),
                (-w - 0.06 - more, -0.25),
                (-w - 0.16 - more, 0.3),
                (-w - 0.17 - more, 0.72),
                (-w - 0.06, 0.9),
                (-w + 0.2, 0.96),
            ],
            "long": [
                (-w * 0.7, -0.6),
                (-w - 0.06 - more, -0.25),
                (-w - 0.15 - more, 0.5),
                (-w - 0.24 - more, 1.5),
                (-w - 0.1, 1.95),
                (-0.3, 1.8),
            ],
            "curly": [
                (-w * 0.7, -0.6),
                (-w - 0.12 - more, -0.35),
                (-w - 0.22 - more, 0.05),
                (-w - 0.14 - more, 0.42),
                (-w + 0.15, 0.5),
            ],
        }
        if self.who.hair_style not in shapes:
            return None
        left = np.array(shapes[self.who.hair_style])
        result: Points = np.concatenate([left, left[::-1] * [-1.0, 1.0]]).astype(np.float32)
        return result

    def draw_hair_behind(self, image: Image) -> None:
        """Hair behind neck and head."""
        behind = self.hair_behind()
        if behind is not None:
            polygon(image, self.rigid(behind), darker(self.hair, 0.28))
        if self.who.hair_style == "bun":
            disc(image, self.rigid([self._bun()])[0], 0.36 * self.unit, darker(self.hair, 0.12))

    def _bun(self) -> tuple[float, float]:
        return -0.25 * np.sin(self.pose.yaw), -1.2 - 0.06 * self.who.hair_volume

    # --- the face ---------------------------------------------------------------------------------------------

    def draw(self, image: Image, light_angle: float) -> None:
        """Ears, face and hair over them, lit from `light_angle`."""
        self._skin(image, np.array([np.cos(light_angle), np.sin(light_angle)]))
        self._cheeks(image)
        if self.who.beard == "full":
            self._full_beard(image)
        self._nose(image)
        self._mouth(image)
        for side in (-1, 1):
            self._eye(image, side)
        self._hair_over(image, light_angle)
        for side in (-1, 1):
            self._brow(image, side)
        if self.who.glasses != "none":
            self._glasses(image)

    def _skin(self, image: Image, light: npt.NDArray[np.float64]) -> None:
        skin, shade = self.who.skin, darker(self.who.skin, 0.2)
        for ear in self.ears():
            disc(image, ear, self.who.ear_size * self.unit, shade)
        polygon(image, self.rigid(self.outline()), shade)
        polygon(image, self.rigid(self.outline(0.95) + 0.06 * light), skin)

    def _cheeks(self, image: Image) -> None:
        who = self.who
        blush = mix(who.skin, (226, 84, 84), 0.16)
        for side in (-1, 1):
            centre = (side * (who.eye_spacing + 0.08), who.eye_height + 0.36)
            polygon(image, self.surface(ellipse(centre, 0.15, 0.1)), blush)
            if who.freckles:
                for dx, dy in ((-0.09, 0.0), (0.02, -0.05), (0.1, 0.03), (0.01, 0.06)):
                    spot = self.surface([(centre[0] + dx, centre[1] - 0.06 + dy)])[0]
                    disc(image, spot, 0.024 * self.unit, darker(mix(who.skin, (150, 70, 20), 0.4), 0.1))
        if who.mole:
            disc(image, self.surface([who.mole])[0], 0.04 * self.unit, darker(who.skin, 0.68))

    def _nose(self, image: Image) -> None:
        x, y = self.nose_tip
        wide, top = self.who.nose_width, self.who.eye_height + 0.06
        lean = 0.12 * np.sin(self.pose.yaw)
        tip = x + lean
        shade = darker(self.who.skin, 0.24)
        side = 1.0 if self.pose.yaw >= 0 else -1.0
        bridge = [
            (x + side * 0.02, top),
            (tip + side * 0.075, y - 0.06),
            (tip + side * wide, y + 0.03),
            (tip, y + 0.07),
        ]
        polygon(image, self.surface([*bridge, (tip - side * wide, y + 0.03), (tip, y - 0.01)]), shade)
        polygon(image, self.surface(ellipse((tip, y - 0.02), wide * 0.62, 0.06)), lighter(self.who.skin, 0.22))

    def lips(self) -> Lips:
        """The mouth's lines in face coordinates."""
        who, pose = self.who, self.pose
        left, right = self.mouth_corners
        t = np.linspace(-1, 1, 11)
        bow = 1 - t**2
        corner = left[1]
        seam = corner + (who.mouth_height - corner) * bow + 0.05 * pose.smile * bow
        gap = 0.2 * pose.mouth_open * bow
        lip = who.lip_thickness
        top = seam - lip * bow * (1 - 0.25 * np.exp(-((t / 0.18) ** 2))) - gap * 0.15
        return Lips(x=t * right[0], seam=seam, gap=gap, top=top, bottom=seam + 1.15 * lip * bow + gap)

    def lip_colour(self) -> Colour:
        """Colour of the lips."""
        who = self.who
        return mix(mix(who.skin, (190, 48, 62), 0.25 + 0.5 * who.lip_redness), (120, 20, 40), 0.12)

    def goatee(self) -> Points:
        """Outline of a goatee in face coordinates."""
        who, middle = self.who, self.who.mouth_height
        return np.array(
            [
                (-0.2, middle + 0.1),
                (0.2, middle + 0.1),
                (0.17, who.chin_length + 0.02),
                (0, who.chin_length + 0.12),
                (-0.17, who.chin_length + 0.02),
            ]
        )

    def _mouth(self, image: Image) -> None:
        who, pose = self.who, self.pose
        lips, colour = self.lips(), self.lip_colour()
        x, seam, gap = lips.x, lips.seam, lips.gap
        if who.beard in ("moustache", "full"):
            self._moustache(image)
        if who.beard == "goatee":
            polygon(image, self.surface(self.goatee()), self.beard_colour())
        polygon(image, self.surface(ribbon(x, lips.top, lips.bottom)), colour)
        if pose.mouth_open > 0.12:
            inner_top, inner_bottom = seam - 0.15 * gap, seam + gap * 0.95
            polygon(image, self.surface(ribbon(0.9 * x, inner_top, inner_bottom)), (96, 20, 30))
            polygon(image, self.surface(ribbon(0.8 * x, inner_top, inner_top + 0.42 * gap)), EYE_WHITE)
        else:
            path(image, self.surface(np.stack([x, seam], 1)), darker(colour, 0.55), 0.03 * self.unit)

    def beard_colour(self) -> Colour:
        """Colour of the beard."""
        return mix(darker(self.hair, 0.1), self.who.skin, 0.08)

    def moustache(self) -> Points:
        """Outline of a moustache in face coordinates."""
        y, half = self.who.mouth_height - self.who.lip_thickness - 0.02, self.who.mouth_width * 1.12
        drop = 0.08 - 0.08 * self.pose.smile
        return np.array(
            [
                (-half, y + drop),
                (-half * 0.55, y - 0.09),
                (0, y - 0.08),
                (half * 0.55, y - 0.09),
                (half, y + drop),
                (half * 0.5, y + 0.045),
                (0, y + 0.01),
                (-half * 0.5, y + 0.045),
            ]
        )

    def full_beard(self) -> Points:
        """Outline of a full beard in pixels."""
        w, y = self.who.face_width, self.who.mouth_height
        lower = self.outline(1.03)[(np.pi > _ANGLES) & (_ANGLES > 0.0)]
        inner = [
            (-w * 0.8, 0.2),
            (-w * 0.62, y - 0.2),
            (-0.25, y - 0.14),
            (0.25, y - 0.14),
            (w * 0.62, y - 0.2),
            (w * 0.8, 0.2),
        ]
        return np.concatenate([self.rigid(lower), self.surface(inner)])

    def _moustache(self, image: Image) -> None:
        polygon(image, self.surface(self.moustache()), self.beard_colour())

    def _full_beard(self, image: Image) -> None:
        polygon(image, self.full_beard(), self.beard_colour())

    def eye(self, side: int) -> Eye:
        """The image-left (-1) or image-right (1) eye in face coordinates."""
        who, pose = self.who, self.pose
        half = who.eye_size
        tall = half * who.eye_aspect * (0.14 + 0.86 * (1 - pose.blink)) * (1 - 0.15 * max(pose.smile, 0))
        cx, cy = side * who.eye_spacing, who.eye_height
        t = np.linspace(-1, 1, 11)
        tilt = -side * who.eye_tilt * half * t
        return Eye(
            cx=cx,
            cy=cy,
            half=half,
            tall=tall,
            x=cx + half * t,
            top=cy + tilt - tall * (1 - t**2),
            bottom=cy + tilt + 0.85 * tall * (1 - t**2),
            gaze=(cx + 0.38 * half * pose.gaze[0], cy + 0.12 * tall + 0.25 * tall * pose.gaze[1]),
            radius=min(0.66 * half, 0.125),
        )

    def _eye(self, image: Image, side: int) -> None:
        eye = self.eye(side)
        polygon(image, self.surface(ribbon(eye.x, eye.top - 0.05, eye.bottom + 0.01)), darker(self.who.skin, 0.3))
        opening = self.surface(ribbon(eye.x, eye.top, eye.bottom))
        if self.pose.blink < 0.8:
            polygon(image, opening, EYE_WHITE)
            self._iris(image, opening, self.surface([eye.gaze])[0], eye.radius)
        path(image, self.surface(np.stack([eye.x, eye.top], 1)), LINE, 0.058 * self.unit)

    def _iris(self, image: Image, opening: Points, centre: Points, radius: float) -> None:
        """Iris and pupil, cut off by the lids: drawn on a patch and copied through the opening."""
        low = np.floor(opening.min(0)).astype(int) - 1
        high = np.ceil(opening.max(0)).astype(int) + 2
        low, high = np.maximum(low, 0), np.minimum(high, image.shape[0])
        if np.any(high - low < 2):
            return
        patch = image[low[1] : high[1], low[0] : high[0]].copy()
        colour = EYE_COLOURS[self.who.eye_colour]
        at, r = centre - low, radius * self.unit
        disc(patch, at, r, darker(colour, 0.45))
        disc(patch, at, r * 0.82, colour)
        disc(patch, at, r * 0.42, (14, 10, 12))
        disc(patch, at + np.array([-0.34, -0.36]) * r, r * 0.24, (255, 255, 255))
        inside = np.zeros(patch.shape[:2], np.uint8)
        cv2.fillPoly(inside, [fixed(opening - low)], 255, cv2.LINE_AA, 4)
        region = image[low[1] : high[1], low[0] : high[0]]
        alpha = inside[..., None].astype(np.float32) / 255
        region[:] = (patch * alpha + region * (1 - alpha)).astype(np.uint8)

    def brow(self, side: int) -> tuple[Line, Line, Line]:
        """x, upper and lower edge of a brow in face coordinates, from the nose outwards."""
        who = self.who
        cx = side * (who.eye_spacing + 0.02)
        base = who.eye_height - who.eye_size * who.eye_aspect - who.brow_gap - 0.03 - 0.03 * self.pose.mouth_open
        t = np.linspace(-1, 1, 7)
        middle = base - 0.05 * (1 - t**2) - who.brow_angle * 0.24 * t
        thick = who.brow_thickness * np.array([0.85, 1, 1, 0.95, 0.85, 0.65, 0.35])
        return cx + side * who.brow_length * t, middle - 0.5 * thick, middle + 0.5 * thick

    def brow_colour(self) -> Colour:
        """Colour of the brows, which must show on the skin."""
        dark_face, light_hair = is_dark(self.who.skin), not is_dark(self.hair)
        if self.who.hair_colour == "white":
            return (150, 148, 146) if not dark_face else (225, 222, 218)
        if dark_face and not light_hair:
            return (18, 10, 10)
        return darker(self.hair, 0.3 if light_hair else 0.15)

    def _brow(self, image: Image, side: int) -> None:
        polygon(image, self.surface(ribbon(*self.brow(side))), self.brow_colour())

    def lenses(self) -> tuple[Points, Points]:
        """Outlines of the image-left and image-right lens in face coordinates."""
        left, right = (self._lens(side * self.who.eye_spacing) for side in (-1, 1))
        return left, right

    def _lens(self, cx: float) -> Points:
        half_x, half_y, y = self._lens_half_width(), LENS_HALF_HEIGHT, self.who.eye_height + 0.02
        if self.who.glasses == "square":
            return rounded(cx, y, half_x * 1.04, half_y * 0.88)
        return ellipse((cx, y), half_x, half_y * (1.0 if self.who.glasses == "round" else 0.92))

    def _lens_half_width(self) -> float:
        return min(0.27, self.who.eye_spacing - 0.045)

    def _glasses(self, image: Image) -> None:
        who, width = self.who, max(0.066 * self.unit, 1.6)
        lens_x, frame, y = self._lens_half_width(), who.frame, who.eye_height + 0.02
        inner = who.eye_spacing - lens_x
        for side, lens in zip((-1, 1), self.lenses(), strict=True):
            cx, points = side * who.eye_spacing, self.surface(lens)
            if who.glasses == "browline":
                path(image, points, mix(frame, who.skin, 0.3), 0.5 * width, closed=True)
                top = self.surface(
                    [
                        (cx - lens_x * 1.06, y - 0.1),
                        (cx - lens_x, y - 0.21),
                        (cx + lens_x, y - 0.21),
                        (cx + lens_x * 1.06, y - 0.1),
                    ]
                )
                path(image, top, frame, 1.35 * width)
            else:
                path(image, points, frame, width, closed=True)
            outer = [(side * (who.eye_spacing + lens_x), y - 0.04), (side * who.face_width * 1.02, y - 0.02)]
            path(image, self.surface(outer), frame, width)
        path(image, self.surface([(-inner, y - 0.06), (0, y - 0.1), (inner, y - 0.06)]), frame, width)

    def _hair_over(self, image: Image, light_angle: float) -> None:
        over = self.hair_outline()
        if over is None:
            return
        polygon(image, self.rigid(over), self.hair)
        angle = np.linspace(1.22 * np.pi, 1.58 * np.pi, 9) + 0.35 * np.cos(light_angle)
        shine = np.stack([self.who.face_width * np.cos(angle), 0.95 * np.sin(angle)], 1) * 0.97
        path(image, self.rigid(shine), lighter(self.hair, 0.2), 0.07 * self.unit)

    def draw_mask(self, mask: Image) -> None:
        """Fill the head region (face, ears, hair down to the chin) with 255 in a single-channel image."""
        polygon(mask, self.rigid(self.outline()), 255)
        for ear in self.ears():
            disc(mask, ear, self.who.ear_size * self.unit, 255)
        for hair in (self.hair_outline(), self.hair_behind()):
            if hair is not None:
                polygon(mask, self.rigid(np.minimum(hair, [9.0, 1.1])), 255)
        if self.who.hair_style == "bun":
            disc(mask, self.rigid([self._bun()])[0], 0.36 * self.unit, 255)


def ribbon(x: Line, top: Line, bottom: Line) -> Points:
    """Outline of what lies between two lines over the same x."""
    upper, lower = np.stack([x, top], 1), np.stack([x[::-1], bottom[::-1]], 1)
    return np.concatenate([upper, lower]).astype(np.float32)


def rounded(x: float, y: float, half_x: float, half_y: float) -> Points:
    """Outline of a square with round corners."""
    angle = np.linspace(0, 2 * np.pi, 25)[:-1]
    cos, sin = np.cos(angle), np.sin(angle)
    corner = (np.abs(cos) ** 6 + np.abs(sin) ** 6) ** (-1 / 6)
    return np.stack([x + half_x * corner * cos, y + half_y * corner * sin], 1).astype(np.float32)
