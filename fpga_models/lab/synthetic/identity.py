"""Who a synthetic person is: about thirty traits drawn from one integer seed.

Knows nothing of pose, clothes, light or drawing. A person of another seed is another draw from the same world.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Colour = tuple[int, int, int]  # RGB, 0..255

SKIN_TONES: tuple[Colour, ...] = (
    (255, 226, 204),
    (246, 205, 174),
    (230, 180, 138),
    (205, 146, 101),
    (164, 106, 70),
    (118, 74, 50),
)
HAIR_COLOURS: dict[str, Colour] = {
    "black": (34, 30, 34),
    "brown": (92, 58, 36),
    "chestnut": (139, 75, 38),
    "blond": (226, 186, 104),
    "red": (196, 84, 38),
    "gray": (162, 162, 166),
    "white": (233, 231, 226),
}
EYE_COLOURS: dict[str, Colour] = {
    "black": (42, 28, 24),
    "brown": (124, 70, 30),
    "green": (58, 140, 74),
    "blue": (48, 116, 206),
    "gray": (126, 144, 158),
}
HAIR_STYLES = ("bald", "short", "side part", "curly", "spiky", "bob", "long", "bun")
BEARDS = ("none", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square", "browline")
FRAMES_ON_LIGHT: dict[str, Colour] = {
    "black": (22, 22, 26),
    "brown": (96, 44, 18),
    "navy": (26, 40, 110),
    "red": (176, 24, 40),
}
FRAMES_ON_DARK: dict[str, Colour] = {
    "white": (244, 244, 240),
    "gold": (240, 196, 70),
    "sky": (110, 190, 240),
    "red": (240, 70, 70),
}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The traits of one person; lengths are in head half-heights, angles in radians."""

    seed: int
    skin: Colour
    face_width: float
    chin_length: float
    taper: float
    jaw: float
    eye_spacing: float
    eye_size: float
    eye_aspect: float
    eye_height: float
    eye_tilt: float
    eye_colour: str
    brow_thickness: float
    brow_angle: float
    brow_gap: float
    brow_length: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_thickness: float
    lip_redness: float
    ear_size: float
    hair_style: str
    hair_colour: str
    hair_volume: float
    hair_flip: bool
    beard: str
    glasses: str
    frame_colour: str
    mole: tuple[float, float] | None
    freckles: bool

    @classmethod
    def from_seed(cls, seed: int) -> "Identity":
        """Draw the person with this seed (any non-negative integer); the same seed gives the same person."""
        return _draw(seed)

    def attributes(self) -> dict[str, str]:
        """Readable labels of the traits that a person would name."""
        width = "narrow" if self.face_width < 0.75 else "wide" if self.face_width > 0.84 else "medium"
        brows = "thick" if self.brow_thickness > 0.095 else "thin" if self.brow_thickness < 0.065 else "medium"
        return {
            "skin": f"tone {int(np.argmin([np.abs(np.subtract(t, self.skin)).sum() for t in SKIN_TONES])) + 1}",
            "face": width,
            "hair_style": self.hair_style,
            "hair_colour": self.hair_colour,
            "eye_colour": self.eye_colour,
            "brows": brows,
            "beard": self.beard,
            "glasses": self.glasses,
            "mole": "yes" if self.mole else "no",
            "freckles": "yes" if self.freckles else "no",
        }

    @property
    def frame(self) -> Colour:
        """Colour of the glasses' frame."""
        return {**FRAMES_ON_LIGHT, **FRAMES_ON_DARK, "red": self._red_frame}[self.frame_colour]

    @property
    def _red_frame(self) -> Colour:
        return (FRAMES_ON_DARK if is_dark(self.skin) else FRAMES_ON_LIGHT)["red"]


def is_dark(colour: Colour) -> bool:
    """Whether dark lines would be hard to see on this colour."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 125


@lru_cache(maxsize=16384)
def _draw(seed: int) -> Identity:
    rng = np.random.default_rng([seed, 20408])

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def one_of(options: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
        return str(rng.choice(options, p=weights))

    skin = _skin(between(0, 1), between(-1, 1))
    dark_hair = 0.7 if is_dark(skin) else 0.24
    rest = (1 - dark_hair) / 6
    style = one_of(HAIR_STYLES, (0.08, 0.15, 0.14, 0.14, 0.11, 0.13, 0.14, 0.11))
    beard_weights = (0.86, 0.05, 0.05, 0.04) if style in ("bob", "long", "bun") else (0.45, 0.17, 0.16, 0.22)
    frames = FRAMES_ON_DARK if is_dark(skin) else FRAMES_ON_LIGHT
    return Identity(
        seed=seed,
        skin=skin,
        face_width=between(0.69, 0.9),
        chin_length=between(0.9, 1.08),
        taper=between(0.0, 0.22),
        jaw=between(0.62, 1.0),
        eye_spacing=between(0.3, 0.41),
        eye_size=between(0.15, 0.215),
        eye_aspect=between(0.48, 0.82),
        eye_height=between(-0.1, 0.08),
        eye_tilt=between(-0.18, 0.22),
        eye_colour=one_of(tuple(EYE_COLOURS)),
        brow_thickness=between(0.045, 0.125),
        brow_angle=between(-0.3, 0.3),
        brow_gap=between(0.05, 0.15),
        brow_length=between(0.2, 0.28),
        nose_length=between(0.32, 0.5),
        nose_width=between(0.09, 0.19),
        mouth_width=between(0.22, 0.38),
        mouth_height=between(0.6, 0.72),
        lip_thickness=between(0.045, 0.11),
        lip_redness=between(0.15, 0.9),
        ear_size=between(0.14, 0.24),
        hair_style=style,
        hair_colour=one_of(tuple(HAIR_COLOURS), (dark_hair, *(rest,) * 6)),
        hair_volume=between(0.0, 1.0),
        hair_flip=bool(rng.random() < 0.5),
        beard=one_of(BEARDS, beard_weights),
        glasses=one_of(GLASSES, (0.46, 0.2, 0.2, 0.14)),
        frame_colour=one_of(tuple(frames)),
        mole=(between(-0.5, 0.5), between(0.25, 0.6)) if rng.random() < 0.22 else None,
        freckles=bool(rng.random() < 0.15),
    )


def _skin(tone: float, undertone: float) -> Colour:
    position = tone * (len(SKIN_TONES) - 1)
    low = min(int(position), len(SKIN_TONES) - 2)
    mixed = (1 - (position - low)) * np.array(SKIN_TONES[low]) + (position - low) * np.array(SKIN_TONES[low + 1])
    red, green, blue = np.clip(mixed + undertone * np.array((4.0, -1.0, -9.0)), 0, 255).astype(int)
    return int(red), int(green), int(blue)
