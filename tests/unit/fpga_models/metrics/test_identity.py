import numpy as np
import pytest

from fpga_models.metrics.identity import face_sim, top1

PEOPLE = np.eye(4, dtype=np.float32)


def towards(people: np.ndarray, cosine: float) -> np.ndarray:
    """Faces at this cosine to their own person, and as far from everybody else."""
    aside = np.eye(8, dtype=np.float32)[4:]
    wide = np.pad(people, ((0, 0), (0, 4)))
    return (cosine * wide + np.sqrt(1 - cosine**2) * aside).astype(np.float32)


def test_face_similarity_stands_between_its_floor_and_its_ceiling() -> None:
    references = np.pad(PEOPLE, ((0, 0), (0, 4)))

    found = face_sim(towards(PEOPLE, 0.6), towards(PEOPLE, 0.8), references)

    assert found.mean == pytest.approx(0.6)
    assert found.floor == pytest.approx(0.0)
    assert found.ceiling == pytest.approx(0.8)
    assert found.share == pytest.approx(0.75)
    assert found.ci95[0] <= found.mean <= found.ci95[1]


def test_an_undetected_face_counts_as_zero_similarity() -> None:
    generated = PEOPLE.copy()
    generated[0] = 0

    assert face_sim(generated, PEOPLE, PEOPLE).mean == pytest.approx(0.75)


def test_the_floor_leaves_out_other_pictures_of_the_same_person() -> None:
    twice = np.concatenate([PEOPLE, PEOPLE])

    assert face_sim(twice, twice, twice).floor == pytest.approx(0.0)


def test_retrieval_is_a_share_of_what_real_faces_reach() -> None:
    confused = PEOPLE[[1, 1, 2, 3]]

    found = top1(confused, PEOPLE, PEOPLE, np.arange(4))

    assert (found.generated, found.real, found.share) == (0.75, 1.0, 0.75)


def test_an_undetected_face_is_not_retrieved_even_if_its_person_comes_first() -> None:
    nothing = np.zeros((4, 4), np.float32)

    assert top1(nothing, PEOPLE, PEOPLE, np.zeros(4, np.int64)).generated == 0
