"""The same head with what 256 pixels show: locks of hair, ringed irises, lashes, lit skin. Geometry is head.py's."""

import numpy as np
import numpy.typing as npt

from fpga_models.lab.synthetic.canvas import Image, Points, darker, disc, ellipse, lighter, mix, path, polygon
from fpga_models.lab.synthetic.head import EYE_WHITE, LINE, Head, ribbon
from fpga_models.lab.synthetic.identity import EYE_COLOURS, Colour, is_dark
from fpga_models.lab.synthetic.soft import clipped, curve, rim, soft

LONG_LASHES = ("bob", "long", "bun")
STRAIGHT = ("short", "side part", "bob", "long", "bun")


class FineHead(Head):
    """One head, drawn fine; see Head for coordinates."""

    _lit = np.array([0.0, -1.0])
    """Where the light comes from; from above until `draw` knows better."""

    def _shadow(self, share: float = 0.3) -> Colour:
        """Skin in the shade: darker and a little redder."""
        return darker(mix(self.who.skin, (188, 70, 60), 0.18), share)

    # --- skin -------------------------------------------------------------------------------------------------

    def _ear(self, image: Image, centre: Points, side: int) -> None:
        radius = self.who.ear_size * self.unit
        disc(image, centre, radius, darker(self.who.skin, 0.14))
        inner = np.asarray(centre) + np.array((side * 0.12 * radius, 0.05 * radius))
        disc(image, inner, 0.62 * radius, self._shadow(0.32))
        disc(image, inner + np.array((-side * 0.16 * radius, 0.12 * radius)), 0.44 * radius, self._shadow(0.18))

    def _skin(self, image: Image, light: npt.NDArray[np.float64]) -> None:
        self._lit = light
        self._face = self.rigid(self.outline())
        for side, ear in zip((-1, 1), self.ears(), strict=True):
            self._ear(image, ear, side)
        skin, unit = self.who.skin, self.unit
        polygon(image, self._face, skin)
        flat = light * [1.0, 0.7]
        rim(image, self._face, self._shadow(0.34), towards=0.3 * unit * flat, strength=0.85, blur=0.34 * unit)
        forehead = self.surface(ellipse((0.2 * self._lit[0], -0.42), 0.4, 0.26))
        soft(image, forehead, lighter(skin, 0.35), strength=0.5, blur=0.3 * unit, within=self._face)
        chin = self.surface(ellipse((0, 0.84), 0.16, 0.09))
        soft(image, chin, lighter(skin, 0.25), strength=0.4, blur=0.14 * unit, within=self._face)
        hair = self.hair_outline()
        if hair is not None:
            cast = self.rigid(hair + np.array([-0.04 * self._lit[0], 0.1]))
            soft(image, cast, self._shadow(0.45), strength=0.6, blur=0.09 * unit, within=self._face)

    def _cheeks(self, image: Image) -> None:
        who, unit = self.who, self.unit
        for side in (-1, 1):
            centre = (side * (who.eye_spacing + 0.08), who.eye_height + 0.36)
            blush = self.surface(ellipse(centre, 0.17, 0.12))
            soft(image, blush, mix(who.skin, (222, 70, 72), 0.42), strength=0.7, blur=0.13 * unit, within=self._face)
            if who.freckles:
                spots = ((-0.11, 0.0), (0.02, -0.05), (0.1, 0.03), (0.01, 0.06), (-0.05, 0.04), (0.07, -0.02))
                for dx, dy in spots:
                    spot = self.surface([(centre[0] + dx, centre[1] - 0.06 + dy)])[0]
                    disc(image, spot, 0.022 * unit, darker(mix(who.skin, (150, 70, 20), 0.4), 0.1))
        if who.mole:
            spot = self.surface([who.mole])[0]
            disc(image, spot, 0.042 * unit, darker(who.skin, 0.68))
            disc(image, spot - 0.012 * unit, 0.016 * unit, darker(who.skin, 0.4))

    def _nose(self, image: Image) -> None:
        x, y = self.nose_tip
        wide, top, unit = self.who.nose_width, self.who.eye_height + 0.02, self.unit
        tip = x + 0.12 * np.sin(self.pose.yaw)
        far = 1.0 if (self.pose.yaw if abs(self.pose.yaw) > 0.08 else -self._lit[0]) >= 0 else -1.0
        side = [(x + far * 0.03, top), (tip + far * 0.08, y - 0.08), (tip + far * wide, y + 0.02), (tip, y + 0.04)]
        soft(image, self.surface(side), self._shadow(0.34), strength=0.8, blur=0.05 * unit, within=self._face)
        under = ellipse((tip, y + 0.05), wide * 1.05, 0.05)
        soft(image, self.surface(under), self._shadow(0.42), strength=0.75, blur=0.05 * unit, within=self._face)
        for edge in (-1, 1):
            wing = curve(
                (tip + edge * wide * 0.9, y - 0.07),
                (tip + edge * wide * 1.3, y + 0.0),
                (tip + edge * wide * 0.8, y + 0.055),
            )
            path(image, self.surface(wing), self._shadow(0.5), 0.03 * unit)
            nostril = ellipse((tip + edge * wide * 0.48, y + 0.045), wide * 0.24, 0.022)
            polygon(image, self.surface(nostril), self._shadow(0.72))
        ridge = self.surface(
            [(x - 0.025, top + 0.05), (x + 0.025, top + 0.05), (tip + 0.045, y - 0.03), (tip - 0.045, y - 0.03)]
        )
        soft(image, ridge, lighter(self.who.skin, 0.4), strength=0.55, blur=0.045 * unit)
        gleam = ellipse((tip + 0.25 * wide * self._lit[0], y - 0.035), wide * 0.4, 0.045)
        soft(image, self.surface(gleam), lighter(self.who.skin, 0.6), strength=0.8, blur=0.035 * unit)

    # --- mouth and beard --------------------------------------------------------------------------------------

    def _mouth(self, image: Image) -> None:
        lips = self.lips()
        x, seam, gap = lips.x, lips.seam, lips.gap
        unit, colour = self.unit, self.lip_colour()
        if self.who.beard in ("moustache", "full"):
            self._moustache(image)
        if self.who.beard == "goatee":
            self._hairy(image, self.surface(self.goatee()), 0.05)
        below = ellipse((0.0, float(lips.bottom.max()) + 0.05), 0.6 * float(x.max()), 0.035)
        if self.who.beard in ("none", "moustache"):
            soft(image, self.surface(below), self._shadow(0.4), strength=0.7, blur=0.05 * unit, within=self._face)
        polygon(image, self.surface(ribbon(x, lips.top, lips.bottom)), colour)
        polygon(image, self.surface(ribbon(x, lips.top, seam + 0.2 * gap)), darker(colour, 0.22))
        gleam = ellipse(
            (-0.04, float(lips.bottom.max()) - 0.35 * self.who.lip_thickness),
            0.4 * float(x.max()),
            0.3 * self.who.lip_thickness,
        )
        soft(image, self.surface(gleam), lighter(colour, 0.55), strength=0.7, blur=0.03 * unit)
        if self.pose.mouth_open > 0.12:
            top, bottom = seam - 0.15 * gap, seam + gap * 0.95
            inside = self.surface(ribbon(0.9 * x, top, bottom))
            polygon(image, inside, (86, 16, 28))
            tongue = self.surface(ellipse((0.0, float(bottom.max())), 0.5 * float(x.max()), 0.4 * float(gap.max())))
            soft(image, tongue, (206, 86, 92), strength=1.0, blur=0.03 * unit, within=inside)
            polygon(image, self.surface(ribbon(0.8 * x, top, top + 0.42 * gap)), EYE_WHITE)
        else:
            path(image, self.surface(np.stack([x, seam], 1)), darker(colour, 0.62), 0.028 * unit)
        for corner, edge in zip(self.mouth_corners, (-1, 1), strict=True):
            dimple = curve(
                *(corner + np.array(by) for by in ((edge * 0.03, -0.03), (edge * 0.055, 0.0), (edge * 0.03, 0.03)))
            )
            path(image, self.surface(dimple), self._shadow(0.36), 0.02 * unit)

    def _hairy(self, image: Image, outline: Points, shade: float) -> None:
        """Beard hair: a soft-edged area with short strokes."""
        colour = darker(self.beard_colour(), shade)
        polygon(image, outline, colour)
        low, high = outline.min(0), outline.max(0)
        step = 0.075 * self.unit

        def strokes(target: Image) -> None:
            for row, y in enumerate(np.arange(low[1], high[1], 1.5 * step)):
                for column, x in enumerate(np.arange(low[0] + (row % 2) * 0.5 * step, high[0], step)):
                    lit = lighter(colour, 0.12) if (row + column) % 2 else darker(colour, 0.2)
                    path(target, [(x, y), (x + 0.15 * step * (-1) ** row, y + 1.2 * step)], lit, 0.024 * self.unit)

        clipped(image, outline, strokes)

    def _moustache(self, image: Image) -> None:
        self._hairy(image, self.surface(self.moustache()), 0.06)

    def _full_beard(self, image: Image) -> None:
        outline = self.full_beard()
        self._hairy(image, outline, 0.0)
        rim(
            image,
            outline,
            darker(self.beard_colour(), 0.5),
            towards=0.2 * self.unit * self._lit,
            strength=0.6,
            blur=0.2 * self.unit,
        )

    # --- eyes and brows ---------------------------------------------------------------------------------------

    def _eye(self, image: Image, side: int) -> None:
        eye, unit = self.eye(side), self.unit
        socket = self.surface(ellipse((eye.cx, eye.cy - 0.02), 1.25 * eye.half, 1.35 * eye.tall))
        soft(image, socket, self._shadow(0.36), strength=0.6, blur=0.1 * unit)
        opening = self.surface(ribbon(eye.x, eye.top, eye.bottom))
        polygon(image, self.surface(ribbon(eye.x, eye.top - 0.06, eye.bottom + 0.01)), self._shadow(0.3))
        crease = np.stack([eye.x, eye.top - 0.075 - 0.02 * (1 - np.linspace(-1, 1, 11) ** 2)], 1)
        path(image, self.surface(crease), self._shadow(0.55), 0.022 * unit)
        if self.pose.blink < 0.8:
            polygon(image, opening, EYE_WHITE)
            clipped(image, opening, lambda target: self._ringed_iris(target, self.surface([eye.gaze])[0], eye.radius))
            lid = self.surface(ribbon(eye.x, eye.top - 0.05, eye.top + 0.28 * (eye.bottom - eye.top)))
            soft(image, lid, (60, 52, 74), strength=0.42, blur=0.045 * unit, within=opening)
        path(image, self.surface(np.stack([eye.x, eye.bottom], 1)), self._shadow(0.5), 0.022 * unit)
        self._lashes(image, eye.x, eye.top, side)

    def _ringed_iris(self, image: Image, at: Points, radius: float) -> None:
        """Dark ring, iris lit from below, pupil, two reflections."""
        colour, r = EYE_COLOURS[self.who.eye_colour], radius * self.unit
        disc(image, at, r, darker(colour, 0.66))
        disc(image, at, 0.86 * r, colour)
        glow = ellipse((float(at[0]), float(at[1]) + 0.36 * r), 0.52 * r, 0.38 * r)
        soft(image, glow, lighter(colour, 0.5), strength=0.75, blur=0.3 * r)
        disc(image, at, 0.43 * r, (12, 8, 10))
        disc(image, at + np.array([-0.34, -0.36], np.float32) * r, 0.26 * r, (255, 255, 255))
        disc(image, at + np.array([0.38, 0.34], np.float32) * r, 0.11 * r, lighter(colour, 0.8))

    def _lashes(self, image: Image, x: npt.NDArray[np.float64], top: npt.NDArray[np.float64], side: int) -> None:
        """The line of the upper lid, thicker outwards, and lashes at its outer end."""
        outwards = np.linspace(0, 1, 11) if side > 0 else np.linspace(1, 0, 11)
        thick = 0.036 + 0.034 * outwards
        polygon(image, self.surface(ribbon(x, top - thick, top + 0.3 * thick)), LINE)
        length = 0.085 if self.who.hair_style in LONG_LASHES else 0.04
        for place in (10, 9, 8) if side > 0 else (0, 1, 2):
            root = (float(x[place]), float(top[place]) - 0.02)
            lean = side * (1.0 - 0.25 * abs(place - (10 if side > 0 else 0)))
            path(
                image, self.surface([root, (root[0] + lean * length, root[1] - 0.75 * length)]), LINE, 0.026 * self.unit
            )

    def _brow(self, image: Image, side: int) -> None:
        x, upper, lower = self.brow(side)
        colour = self.brow_colour()
        polygon(image, self.surface(ribbon(x, upper, lower)), colour)
        hairs = lighter(colour, 0.12) if is_dark(colour) else darker(colour, 0.2)
        for place in range(1, 6):
            bottom, end = (float(x[place]), float(lower[place])), (float(x[place]) + side * 0.05, float(upper[place]))
            path(image, self.surface([bottom, end]), hairs, 0.018 * self.unit)

    # --- glasses ----------------------------------------------------------------------------------------------

    def _glasses(self, image: Image) -> None:
        for lens in self.lenses():
            outline = self.surface(lens)
            low, high = lens.min(0), lens.max(0)
            x, y = low[0] + 0.04, low[1]
            glare = [(x, y + 0.3), (x + 0.06, y + 0.3), (x + 0.3, y), (x + 0.22, y)]
            soft(image, self.surface(glare), (255, 255, 255), strength=0.2, blur=0.02 * self.unit, within=outline)
            shade = [(low[0], low[1]), (high[0], low[1]), (high[0], low[1] + 0.09), (low[0], low[1] + 0.09)]
            soft(image, self.surface(shade), self._shadow(0.5), strength=0.3, blur=0.05 * self.unit, within=outline)
        bridge = self.surface(
            [
                (-0.12, self.who.eye_height - 0.02),
                (0.12, self.who.eye_height - 0.02),
                (0.1, self.who.eye_height + 0.08),
                (-0.1, self.who.eye_height + 0.08),
            ]
        )
        soft(image, bridge, self._shadow(0.4), strength=0.4, blur=0.05 * self.unit)
        super()._glasses(image)
        shine = lighter(self.who.frame, 0.45)
        for lens in self.lenses():
            top = np.asarray(lens)[np.argsort(lens[:, 1])[:7]]
            path(image, self.surface(top[np.argsort(top[:, 0])]), shine, 0.02 * self.unit)

    # --- hair -------------------------------------------------------------------------------------------------

    def draw_hair_behind(self, image: Image) -> None:
        """Hair behind neck and head, in locks."""
        behind = self.hair_behind()
        base = darker(self.hair, 0.3)
        if behind is not None:
            outline = self.rigid(behind)
            polygon(image, outline, base)
            if self.who.hair_style == "curly":
                clipped(image, outline, lambda target: self._curls(target, behind, base))
            else:
                clipped(image, outline, lambda target: self._falling(target, behind, base))
        if self.who.hair_style == "bun":
            centre, r = self.rigid([self._bun()])[0], 0.36 * self.unit
            disc(image, centre, r, darker(self.hair, 0.12))
            for share in (0.8, 0.55, 0.3):
                ring = ellipse((float(centre[0]) + 0.06 * r, float(centre[1]) + 0.1 * r), share * r, share * 0.9 * r)
                path(
                    image,
                    ring[2:20],
                    darker(self.hair, 0.34) if share != 0.55 else lighter(self.hair, 0.14),
                    0.035 * self.unit,
                )

    def _falling(self, image: Image, behind: Points, base: Colour) -> None:
        bottom = float(behind[:, 1].max())
        for number, x in enumerate(np.arange(-1.35, 1.36, 0.085)):
            bend = (x * 1.18, 0.3 * bottom)
            colour = lighter(base, 0.16) if number % 3 == 0 else darker(base, 0.28) if number % 3 == 1 else base
            path(image, self.rigid(curve((x * 0.7, -0.7), bend, (x * 0.98, bottom + 0.05))), colour, 0.036 * self.unit)

    def _curls(self, image: Image, area: Points, base: Colour) -> None:
        """Rows of curls: a lit ball each, with a dark line below."""
        low, high = area.min(0), area.max(0)
        for row, y in enumerate(np.arange(low[1], high[1] + 0.15, 0.16)):
            for column, x in enumerate(np.arange(low[0] + 0.11 * (row % 2), high[0] + 0.15, 0.22)):
                shift = 0.03 * np.array([(row * 7 + column * 3) % 3 - 1, (row * 5 + column * 2) % 3 - 1])
                at = self.rigid([(x + shift[0], y + shift[1])])[0]
                disc(image, at, 0.125 * self.unit, darker(base, 0.26))
                disc(image, at + 0.02 * self.unit * self._lit, 0.105 * self.unit, base)
                disc(image, at + 0.045 * self.unit * self._lit, 0.055 * self.unit, lighter(base, 0.1))

    def _hair_over(self, image: Image, light_angle: float) -> None:
        over = self.hair_outline()
        if over is None:
            gleam = self.rigid(ellipse((0.3 * self._lit[0], -0.66), 0.26, 0.12))
            soft(image, gleam, lighter(self.who.skin, 0.7), strength=0.6, blur=0.12 * self.unit, within=self._face)
            return
        outline = self.rigid(over)
        polygon(image, outline, self.hair)
        clipped(image, outline, lambda target: self._locks(target, over))
        dark = darker(self.hair, 0.5)
        rim(image, outline, dark, towards=0.16 * self.unit * self._lit, strength=0.55, blur=0.2 * self.unit)
        angle = np.linspace(1.2 * np.pi, 1.62 * np.pi, 12) + 0.35 * np.cos(light_angle)
        ring = np.stack([self.who.face_width * np.cos(angle), 0.95 * np.sin(angle)], 1)
        shine = self.rigid(np.concatenate([ring * 1.0, ring[::-1] * 0.88]))
        soft(image, shine, lighter(self.hair, 0.5), strength=0.62, blur=0.07 * self.unit, within=outline)

    def _locks(self, image: Image, over: Points) -> None:
        """Locks over the head: they run from crown or parting to the hairline, or stand, or curl."""
        style = self.who.hair_style
        if style == "curly":
            self._curls(image, over, self.hair)
            return
        flip = -1.0 if self.who.hair_flip else 1.0
        crown = {"side part": (-0.42 * flip, -0.86), "long": (0.0, -0.86), "bun": (0.0, -1.12)}.get(style, (0.0, -1.04))
        outer, inner = over[:37], over[37:]
        count = 26 if style in STRAIGHT else 22
        for number in range(count):
            share = (number + 0.5) / count
            colour = (lighter(self.hair, 0.2), darker(self.hair, 0.3), self.hair, darker(self.hair, 0.16))[number % 4]
            end = _along(inner[::-1], share)
            if style == "spiky":
                line = curve(_along(outer, share), _along(outer, share), end)
            else:
                bend = 0.55 * _along(outer, share) + 0.45 * (np.asarray(crown) + end) / 2 + [0.0, -0.12]
                line = curve(crown, bend, end + (end - bend) * 0.1)
            path(image, self.rigid(line), colour, 0.034 * self.unit)
        if style in ("side part", "long"):
            parting = curve(crown, (crown[0] * 0.9, -0.9), (crown[0] * 0.85, -1.05))
            path(image, self.rigid(parting), darker(self.hair, 0.45), 0.035 * self.unit)


def _along(line: Points, share: float) -> npt.NDArray[np.float64]:
    """Point at this share of a polyline's points."""
    place = share * (len(line) - 1)
    low = min(int(place), len(line) - 2)
    point: npt.NDArray[np.float64] = line[low] + (place - low) * (line[low + 1] - line[low]).astype(np.float64)
    return point
