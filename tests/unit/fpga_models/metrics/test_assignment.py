import numpy as np
import pytest

from fpga_models.metrics.assignment import (
    ABSENT,
    assignment,
    landmark_errors,
    leakage,
    match_places,
    score_places,
)

FACE = np.array([[-5, -4], [5, -4], [0, 1], [-4, 6], [4, 6]], np.float32)


def at(*places: tuple[float, float]) -> np.ndarray:
    return np.stack([FACE + np.array(place, np.float32) for place in places])


def test_each_place_gets_the_nearest_free_face() -> None:
    requested, found = at((30, 40), (70, 40), (110, 40)), at((111, 42), (29, 40), (72, 39))

    assert match_places(requested, found).tolist() == [1, 2, 0]


def test_one_face_between_two_places_serves_only_one() -> None:
    matched = match_places(at((30, 40), (40, 40)), at((34, 40)))

    assert matched.tolist() == [0, ABSENT]


def test_a_face_beyond_the_gate_is_not_there() -> None:
    assert match_places(at((30, 40)), at((46, 40))).tolist() == [ABSENT]
    assert match_places(at((30, 40)), at((44, 40))).tolist() == [0]


def test_without_faces_every_place_is_empty() -> None:
    assert match_places(at((30, 40)), np.zeros((0, 5, 2), np.float32)).tolist() == [ABSENT]


def test_landmark_error_is_in_units_of_the_eyes_distance() -> None:
    assert landmark_errors(at((0, 0)), at((3, 4)))[0] == pytest.approx(0.5)


def test_people_in_their_own_places_are_fully_accurate() -> None:
    people = [np.eye(3, dtype=np.float32)] * 5

    found = assignment(score_places(people, people))

    assert (found.accuracy, found.own, found.other, found.ci95) == (1.0, 1.0, 0.0, (1.0, 1.0))


def test_swapped_people_are_wrong_and_leak() -> None:
    wanted = [np.eye(2, dtype=np.float32)] * 3
    swapped = [faces[::-1] for faces in wanted]

    found = assignment(score_places(swapped, wanted))

    assert (found.accuracy, found.own, found.other) == (0.0, 0.0, 1.0)


def test_the_average_of_both_people_in_both_places_is_half_right_and_leaks_as_much() -> None:
    wanted = [np.eye(2, dtype=np.float32)] * 3
    average = [np.full((2, 2), 0.5**0.5, np.float32)] * 3

    found = assignment(score_places(average, wanted))

    assert found.accuracy == 0.5
    assert found.own == pytest.approx(found.other)


def test_an_absent_face_is_wrong_and_does_not_lower_the_leakage() -> None:
    wanted = [np.eye(2, dtype=np.float32)]
    half = [np.array([[0, 0], [0.6, 0.8]], np.float32)]

    found = assignment(score_places(half, wanted))

    assert found.accuracy == 0.5
    assert found.own == pytest.approx(0.4)
    assert found.other == pytest.approx(0.6)


def test_leakage_is_counted_from_the_resemblance_of_strangers() -> None:
    wanted = [np.eye(3, dtype=np.float32)] * 4
    leaking = [np.array([[0.9, 0.3, 0.1], [0, 1, 0], [0, 0, 0]], np.float32)] * 4

    found = leakage(score_places(leaking, wanted), floor=0.05)

    assert found.largest == pytest.approx(0.15)  # 0.3 and 0; the absent face says nothing
    assert found.above_floor == pytest.approx(0.1 - 0.05)
