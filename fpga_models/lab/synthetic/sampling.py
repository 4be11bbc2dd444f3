"""Scenes drawn at random: the distribution that everything of the mini preset is trained on."""

from collections.abc import Callable, Sequence

import numpy as np

from fpga_models.lab.synthetic.captions import describe
from fpga_models.lab.synthetic.scene import (
    ARMS,
    CLOTHES,
    EXPRESSIONS,
    GARMENTS,
    LIGHTS,
    PLACES,
    PLAIN_BACKGROUNDS,
    Person,
    Pose,
    Scene,
    check_kind,
    number_of_people,
)

LIGHT_SHARES = (0.44, 0.16, 0.14, 0.13, 0.13)


def random_scene(
    rng: np.random.Generator, identities: Sequence[int], kind: str, size: int = 128, *, fine: bool = False
) -> Scene:
    """Draw a scene of this kind showing these people from left to right.

    Args:
        rng: the only source of chance; same state, same scene.
        identities: identity seeds, as many as the kind has people (back row first when there are two rows).
        kind: one of KINDS.
        size: side of the picture in pixels, a multiple of 8.
        fine: draw what 256 pixels show; everything else stays the same.

    Raises:
        ValueError: unknown kind, or the wrong number of identities.
    """
    check_kind(kind, identities)
    expression = str(rng.choice(EXPRESSIONS)) if rng.random() < 0.55 else None
    poses, rows = random_poses(rng, kind, expression)
    clothes = [(str(rng.choice(CLOTHES)), str(rng.choice(GARMENTS))) for _ in identities]
    background = str(rng.choice(PLAIN_BACKGROUNDS if rng.random() < 0.5 else PLACES))
    light = str(rng.choice(LIGHTS, p=LIGHT_SHARES))
    red, blue = np.exp(rng.normal(0, 0.03, 2))
    return Scene(
        kind=kind,
        size=size,
        people=tuple(
            Person(identity=seed, pose=pose, clothes=colour, garment=garment, trousers=str(rng.choice(CLOTHES)))
            for seed, pose, (colour, garment) in zip(identities, poses, clothes, strict=True)
        ),
        background=background,
        background_seed=int(rng.integers(2**31)),
        light=light,
        light_angle=float(rng.uniform(-np.pi, 0)),
        tint=(float(red), 1.0, float(blue)),
        expression=expression,
        rows=rows,
        fine=fine,
        caption=describe(
            rng,
            kind,
            clothes,
            background,
            light,
            expression,
            rows=rows,
            waving=kind in ("full_body", "half_body") and "waving" in poses[0].arms,
        ),
    )


def random_poses(rng: np.random.Generator, kind: str, expression: str | None) -> tuple[tuple[Pose, ...], int]:
    """Poses for one scene of this kind and the number of rows in which people stand."""
    if kind == "group_4" and rng.random() < 0.3:
        return _two_rows(rng, expression), 2
    places = _group_places(rng, number_of_people(kind)) if kind.startswith("group_") else _SINGLE[kind](rng)
    alone = len(places) == 1
    return tuple(_pose(rng, x, y, unit, expression, alone) for x, y, unit in places), 1


Place = tuple[float, float, float]


def _portrait(rng: np.random.Generator) -> list[Place]:
    unit = float(rng.uniform(0.245, 0.375))
    return [(float(rng.uniform(0.44, 0.56)), float(rng.uniform(0.45, 0.52)), unit)]


def _half_body(rng: np.random.Generator) -> list[Place]:
    unit = float(rng.uniform(0.13, 0.21))
    return [(float(rng.uniform(0.38, 0.62)), float(rng.uniform(0.27, 0.34)), unit)]


def _full_body(rng: np.random.Generator) -> list[Place]:
    unit = float(rng.uniform(0.088, 0.104))
    return [(float(rng.uniform(0.34, 0.66)), float(rng.uniform(1.3, 1.42)) * unit + 0.01, unit)]


_SINGLE: dict[str, Callable[[np.random.Generator], list[Place]]] = {
    "portrait": _portrait,
    "half_body": _half_body,
    "full_body": _full_body,
}
_GROUP_UNITS = {2: (0.12, 0.19), 3: (0.1, 0.145), 4: (0.088, 0.108)}


def _group_places(rng: np.random.Generator, count: int) -> list[Place]:
    """People side by side; heads never touch (centres at least 2.05 units apart)."""
    whole_body = rng.random() < 0.25
    low, high = (0.082, 0.1) if whole_body else _GROUP_UNITS[count]
    unit = float(rng.uniform(low, high))
    step = float(rng.uniform(max(0.88 / count, 2.2 * unit), 0.96 / count)) if count > 2 else 2.3 * unit
    if count == 2:
        step = float(rng.uniform(step, min(0.52, step + 0.12)))
    elif step < 2.15 * unit:
        unit = step / 2.2
    first = 0.5 - step * (count - 1) / 2 + float(rng.uniform(-0.015, 0.015))
    y = 1.42 * unit + 0.03 if whole_body else float(rng.uniform(0.3, 0.42))
    places = []
    for index in range(count):
        own = unit * float(rng.uniform(0.93, 1.0))
        x = first + step * index + float(rng.uniform(-0.06, 0.06)) * own
        places.append((x, y + (0 if whole_body else float(rng.uniform(-0.35, 0.35)) * unit), own))
    return places


def _two_rows(rng: np.random.Generator, expression: str | None) -> tuple[Pose, ...]:
    unit = float(rng.uniform(0.1, 0.13))
    y, shift = float(rng.uniform(0.22, 0.26)), float(rng.uniform(-0.03, 0.03))
    back = [(0.3 + shift, y, unit), (0.68 + shift, y, unit)]
    front = [(0.27 - shift, y + 0.37, unit * 1.08), (0.73 - shift, y + 0.37, unit * 1.08)]
    places = [
        (x + float(rng.uniform(-0.015, 0.015)), h + float(rng.uniform(-0.02, 0.02)), u) for x, h, u in back + front
    ]
    return tuple(_pose(rng, x, h, u, expression, alone=False) for x, h, u in places)


def _pose(rng: np.random.Generator, x: float, y: float, unit: float, expression: str | None, alone: bool) -> Pose:
    mood = expression or str(rng.choice(EXPRESSIONS, p=(0.35, 0.45, 0.2)))
    smile = {"serious": rng.uniform(-0.25, 0.15), "smiling": rng.uniform(0.45, 0.9), "laughing": rng.uniform(0.6, 1)}
    opening = {"serious": 0.0, "smiling": rng.uniform(-0.4, 0.3), "laughing": rng.uniform(0.55, 1)}
    weights = (0.5, 0.18, 0.12, 0.1, 0.1) if alone else (0.6, 0.15, 0.0, 0.1, 0.15)
    left = str(rng.choice(ARMS, p=weights))
    right = left if left == "crossed" or rng.random() < 0.4 else str(rng.choice(("down", "hips", "behind")))
    if left == right == "waving":
        right = "down"
    arms = (left, right) if rng.random() < 0.5 else (right, left)
    return Pose(
        x=x,
        y=y,
        unit=unit,
        roll=float(np.clip(rng.normal(0, 0.11), -0.3, 0.3)),
        yaw=float(np.clip(rng.normal(0, 0.17), -0.38, 0.38)),
        pitch=float(np.clip(rng.normal(0, 0.15), -0.35, 0.35)),
        smile=float(smile[mood]),
        mouth_open=float(max(opening[mood], 0.0)),
        blink=float(rng.uniform(0.0, 0.35)) if rng.random() > 0.04 else 0.95,
        gaze=(float(np.clip(rng.normal(0, 0.35), -1, 1)), float(np.clip(rng.normal(0, 0.25), -1, 1))),
        arms=arms,
        lean=float(np.clip(rng.normal(0, 0.05), -0.12, 0.12)),
        stance=float(rng.uniform(0.3, 0.75)),
    )
