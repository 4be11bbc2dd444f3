from __future__ import annotations

import numpy as np
import pytest

from fpga_models.diir import RESTORE, SWAP, Reference
from fpga_models.diir.pairing import by_likeness, pair, points_of
from fpga_models.errors import PlacementError, RequestError
from fpga_models.faces import Face

POINTS = np.array([[-4, -4], [4, -4], [0, 0], [-3, 5], [3, 5]], np.float32)


def unit(index: int, towards: int | None = None, share: float = 0.0) -> np.ndarray:
    vector = np.zeros(8, np.float32)
    vector[index] = 1
    if towards is not None:
        vector[towards] += share
    return vector / np.linalg.norm(vector)


def face(x: float, embedding: np.ndarray) -> Face:
    points = POINTS + np.float32([x, 50])
    return Face(box=np.float32([x - 8, 40, x + 8, 60]), kps5=points, score=0.9, embedding=embedding)


def test_faces_find_their_references_by_likeness() -> None:
    faces = [face(20, unit(1)), face(60, unit(0))]
    references = [Reference(embedding=unit(0)), Reference(embedding=unit(1))]
    assert pair(faces, references, RESTORE) == {0: 1, 1: 0}


def test_the_sum_of_likeness_decides_not_the_first_come() -> None:
    cosines = np.array([[0.60, 0.50], [0.55, 0.10]])
    assert by_likeness(cosines, 0.2, -1.0) == {0: 1, 1: 0}


def test_a_stranger_stays_alone() -> None:
    faces = [face(20, unit(5)), face(60, unit(0))]
    assert pair(faces, [Reference(embedding=unit(0)), Reference(embedding=unit(1))], RESTORE) == {1: 0}


def test_two_faces_alike_one_person_are_left_in_doubt() -> None:
    faces = [face(20, unit(0, 3, 0.20)), face(60, unit(0, 4, 0.21))]
    assert pair(faces, [Reference(embedding=unit(0))], RESTORE) == {}


def test_a_face_between_two_people_is_left_in_doubt() -> None:
    faces = [face(20, unit(0, 1, 0.99))]
    assert pair(faces, [Reference(embedding=unit(0)), Reference(embedding=unit(1))], RESTORE) == {}


def test_a_known_place_beats_likeness() -> None:
    faces = [face(20, unit(1)), face(60, unit(0))]
    references = [
        Reference(embedding=unit(0), kps5=POINTS + np.float32([21, 50])),
        Reference(embedding=unit(1), kps5=POINTS + np.float32([59, 51])),
    ]
    assert pair(faces, references, RESTORE) == {0: 0, 1: 1}


def test_a_place_far_from_every_face_matches_none() -> None:
    assert pair([face(20, unit(0))], [Reference(embedding=unit(0), kps5=POINTS + np.float32([90, 50]))], RESTORE) == {}


def test_the_callers_map_is_taken_as_it_is() -> None:
    faces = [face(20, unit(0)), face(60, unit(1))]
    assert pair(faces, [Reference(embedding=unit(0))], RESTORE, {1: 0}) == {1: 0}


def test_a_map_to_nowhere_is_refused_with_the_numbers() -> None:
    with pytest.raises(RequestError, match="face 0 to reference 2; there are 1 and 1"):
        pair([face(20, unit(0))], [Reference(embedding=unit(0))], SWAP, {0: 2})


def test_a_swap_of_several_people_wants_a_map() -> None:
    faces = [face(20, unit(0)), face(60, unit(1))]
    with pytest.raises(RequestError, match="2 faces and 1 references"):
        pair(faces, [Reference(embedding=unit(2))], SWAP)


def test_a_swap_of_one_face_with_one_reference_needs_no_map() -> None:
    assert pair([face(20, unit(0))], [Reference(embedding=unit(2))], SWAP) == {0: 0}


def test_a_place_of_another_shape_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"\(4, 2\)"):
        points_of(Reference(embedding=unit(0), kps5=np.zeros((4, 2))))
