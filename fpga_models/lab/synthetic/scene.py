"""What a picture shows: people, their poses and clothes, background and light; the words for all of it.

Coordinates are fractions of the picture's side. Identity is only a seed here; everything else is nuisance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fpga_models.idzoom.scenes import KINDS

CLOTHES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "black", "gray", "white")
GARMENTS = ("shirt", "t-shirt", "sweater", "jacket")
PLAIN_BACKGROUNDS = ("blue", "green", "red", "yellow", "purple", "orange", "gray", "white")
PLACES = ("studio", "park", "beach", "city", "mountain", "room", "sunset")
LIGHTS = ("neutral", "warm", "cool", "evening", "bright")
EXPRESSIONS = ("serious", "smiling", "laughing")
ARMS = ("down", "hips", "waving", "crossed", "behind")
FINE_FROM = 256  # px; below, locks of hair and irises' rings are smaller than a pixel
FACE_HEIGHT = 1.62  # height of a face box (hairline to chin) in head half-heights


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Place and expression of one person.

    Attributes:
        x, y: centre of the head, as a fraction of the picture's side.
        unit: half the height of the head, as a fraction of the picture's side.
        roll, yaw, pitch: radians; yaw > 0 turns to the image's right, pitch > 0 looks down.
        smile: -0.3 (glum) to 1; mouth_open, blink: 0 to 1; gaze: -1 to 1 per axis.
        arms: image-left and image-right arm, each one of ARMS.
        lean: sideways slant of the body; stance: half distance of the feet in units.
    """

    x: float
    y: float
    unit: float
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    smile: float = 0.3
    mouth_open: float = 0.0
    blink: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    arms: tuple[str, str] = ("down", "down")
    lean: float = 0.0
    stance: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Person:
    identity: int
    pose: Pose
    clothes: str = "blue"
    garment: str = "shirt"
    trousers: str = "gray"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One picture before it is drawn; `people` stand in order from left to right (front row after back row).

    `light_angle` (radians) is where light comes from, `tint` a white balance (factor per RGB channel).
    `expression` is set when everybody shares one that the caption may name. `fine` draws what 256 pixels show: locks of
    hair, ringed irises, hands, lit skin and cloth, depth behind people.
    """

    kind: str
    size: int
    people: tuple[Person, ...]
    background: str
    background_seed: int
    light: str
    light_angle: float
    tint: tuple[float, float, float]
    expression: str | None
    rows: int
    caption: str
    fine: bool = False


def number_of_people(kind: str) -> int:
    """People in a scene of this kind."""
    return int(kind[-1]) if kind.startswith("group_") else 1


def drawn_fine(side: int) -> bool:
    """Whether the world of pictures of this side is drawn fine."""
    return side >= FINE_FROM


def check_kind(kind: str, identities: Sequence[int]) -> None:
    """Raise ValueError unless the kind exists and has a place for exactly these people."""
    if kind not in KINDS:
        raise ValueError(f"unknown scene kind {kind!r}; one of {', '.join(KINDS)} is wanted")
    if len(identities) != number_of_people(kind):
        raise ValueError(f"{kind} shows {number_of_people(kind)} people, got {len(identities)} identities")
