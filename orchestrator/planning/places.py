"""Puts the people of a row into the picture: slots, boxes, landmarks and skeletons become pixels of the asked size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from orchestrator.planning.geometry import (
    Box,
    Points,
    box_of_face,
    eyes_to_mouth_turn,
    face_of_box,
    face_of_skeleton,
    overlap,
)
from orchestrator.planning.presets import Layout, Slot
from orchestrator.planning.rows import Person

MAX_OVERLAP = 0.5
"""Two faces that share more of the smaller box than this cannot be told apart [ours]."""
TOLERANCE = 0.5
"""Pixels by which a point may lie outside, for rounding."""

Joints = tuple[tuple[float, float, float], ...]


class PlaceError(Exception):
    """A person cannot be placed; carries the field, a code and a sentence."""

    def __init__(self, field: str, code: str, message: str) -> None:
        super().__init__(message)
        self.field, self.code, self.message = field, code, message


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one face goes, in pixels to the hundredth: box, five landmarks, and the skeleton if there is one."""

    slot: str | None
    box: Box
    kps5: Points
    skeleton: Joints | None


def slot_place(slot: Slot, size: tuple[int, int]) -> Place:
    """Scale a slot of a layout to a picture of (width, height)."""
    width, height = size
    kps5 = tuple((x * width, y * height) for x, y in slot.kps5)
    skeleton = tuple((x * width, y * height, v) for x, y, v in slot.skeleton) if slot.skeleton else None
    return _rounded(slot.name, _clipped(box_of_face(kps5), size), kps5, skeleton)


def own_place(person: Person, size: tuple[int, int], cell: int, field: str) -> Place:
    """Return the place that a row gives by coordinates.

    Args:
        person: has at least one of box, kps5 and skeleton.
        size: (width, height) of the picture.
        cell: side of a latent cell in pixels; no smaller face can be asked for.
        field: name of the person in errors, such as `people[1]`.

    Raises:
        PlaceError: a point lies outside, the box is inverted or too small, the landmarks are no face.
    """
    box = _box(person, size, field)
    skeleton = _skeleton(person, size, field)
    kps5 = _landmarks(person, size, field)
    if kps5 is None and box is not None:
        kps5 = face_of_box(box)
    if kps5 is None and skeleton is not None:
        kps5 = face_of_skeleton(skeleton)
    if kps5 is None:
        raise PlaceError(f"{field}.skeleton", "bad_skeleton", "a skeleton places a face by nose and both eyes visible")
    if box is None:
        box = _clipped(box_of_face(kps5), size)
    sides = box[2] - box[0], box[3] - box[1]
    if min(sides) < cell:
        message = f"the face is {sides[0]:.1f} x {sides[1]:.1f} pixels; {cell} x {cell} is the least"
        raise PlaceError(f"{field}.box", "box_too_small", message)
    return _rounded(None, box, kps5, skeleton)


def overlaps(places: Sequence[Place]) -> Iterator[tuple[int, int, float]]:
    """Yield each pair of places whose boxes overlap too strongly, with the share of the smaller one."""
    for (i, a), (j, b) in combinations(enumerate(places), 2):
        shared = overlap(a.box, b.box)
        if shared > MAX_OVERLAP:
            yield i, j, shared


def free_slots(layout: Layout, people: Sequence[Person]) -> Iterator[Slot]:
    """Yield the slots that nobody asked for by name, in the layout's order."""
    taken = {person.slot for person in people}
    return (slot for slot in layout.slots if slot.name not in taken)


def _box(person: Person, size: tuple[int, int], field: str) -> Box | None:
    if person.box is None:
        return None
    x0, y0, x1, y1 = person.box
    (x0, y0), (x1, y1) = _scaled([(x0, y0), (x1, y1)], size)
    if x1 <= x0 or y1 <= y0:
        raise PlaceError(f"{field}.box", "bad_box", "a box is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    if not _inside([(x0, y0), (x1, y1)], size):
        raise PlaceError(f"{field}.box", "bad_box", f"the box lies outside the picture of {size[0]}x{size[1]}")
    return x0, y0, x1, y1


def _landmarks(person: Person, size: tuple[int, int], field: str) -> Points | None:
    if person.kps5 is None:
        return None
    kps5 = tuple(_scaled(person.kps5, size))
    if not _inside(kps5, size):
        message = f"a landmark lies outside the picture of {size[0]}x{size[1]}"
        raise PlaceError(f"{field}.kps5", "bad_landmarks", message)
    if eyes_to_mouth_turn(kps5) <= 1.0:
        message = "the five points are no face: image-left eye, image-right eye, nose, left and right mouth corner"
        raise PlaceError(f"{field}.kps5", "bad_landmarks", message)
    return kps5


def _skeleton(person: Person, size: tuple[int, int], field: str) -> Joints | None:
    if person.skeleton is None:
        return None
    # a hidden joint may lie anywhere, so it has no say in whether coordinates are fractions
    visible = [(x, y) for x, y, v in person.skeleton if v > 0]
    if not visible:
        raise PlaceError(f"{field}.skeleton", "bad_skeleton", "the skeleton has no visible joint")
    width, height = size if _are_fractions(visible) else (1, 1)
    if not _inside([(x * width, y * height) for x, y in visible], size):
        message = f"a visible joint lies outside the picture of {size[0]}x{size[1]}"
        raise PlaceError(f"{field}.skeleton", "bad_skeleton", message)
    return tuple((x * width, y * height, v) for x, y, v in person.skeleton)


def _are_fractions(points: Sequence[tuple[float, float]]) -> bool:
    return all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points)


def _scaled(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return pixels: coordinates that all lie in 0..1 are fractions of the size."""
    width, height = size if _are_fractions(points) else (1, 1)
    return [(x * width, y * height) for x, y in points]


def _inside(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> bool:
    return all(-TOLERANCE <= x <= size[0] + TOLERANCE and -TOLERANCE <= y <= size[1] + TOLERANCE for x, y in points)


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    width, height = size
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))


def _rounded(slot: str | None, box: Box, kps5: Points, skeleton: Joints | None) -> Place:
    """Round to a hundredth of a pixel, so that the same place has the same digest on every machine."""
    x0, y0, x1, y1 = (round(value, 2) for value in box)
    return Place(
        slot=slot,
        box=(x0, y0, x1, y1),
        kps5=tuple((round(x, 2), round(y, 2)) for x, y in kps5),
        skeleton=tuple((round(x, 2), round(y, 2), float(v > 0)) for x, y, v in skeleton) if skeleton else None,
    )
