"""Boxes and five points of a face are made from each other without loss."""

from __future__ import annotations

import cmath

import pytest

from orchestrator.planning.geometry import box_of_face, eyes_to_mouth_turn, face_of_box, overlap


def test_the_face_of_a_square_box_has_that_box() -> None:
    assert box_of_face(face_of_box((20, 30, 84, 94))) == pytest.approx((20, 30, 84, 94))


def test_a_tilted_face_is_found_in_a_larger_upright_box() -> None:
    turn = cmath.exp(0.5j)
    tilted = tuple(((complex(x, y) * turn).real, (complex(x, y) * turn).imag) for x, y in face_of_box((0, 0, 10, 10)))

    x0, y0, x1, y1 = box_of_face(tilted)

    assert x1 - x0 == pytest.approx(10 * (abs(turn.real) + abs(turn.imag)))
    assert y1 - y0 == pytest.approx(x1 - x0)
    assert eyes_to_mouth_turn(tilted) == pytest.approx(eyes_to_mouth_turn(face_of_box((0, 0, 10, 10))))


def test_mirrored_eyes_turn_the_sign() -> None:
    left, right, *rest = face_of_box((0, 0, 10, 10))

    assert eyes_to_mouth_turn((right, left, *rest)) < 0 < eyes_to_mouth_turn((left, right, *rest))


@pytest.mark.parametrize(
    ("other", "share"), [((0, 0, 10, 10), 1.0), ((5, 0, 15, 10), 0.5), ((2, 2, 4, 4), 1.0), ((10, 0, 20, 10), 0.0)]
)
def test_overlap_is_the_share_of_the_smaller_box(other: tuple[float, float, float, float], share: float) -> None:
    assert overlap((0, 0, 10, 10), other) == overlap(other, (0, 0, 10, 10)) == share
