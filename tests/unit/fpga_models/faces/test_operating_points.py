"""Thresholds of a recogniser: they let in no more strangers than asked, and say what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from fpga_models.errors import RequestError
from fpga_models.faces.operating_points import Rates, operating_points


def crowd(people: int, pictures: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around one direction a person."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, 1, 64))
    vectors = centres + spread * rng.standard_normal((people, pictures, 64))
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit.reshape(-1, 64).astype(np.float32), np.repeat(np.arange(people), pictures)


def test_thresholds_keep_out_all_but_the_asked_share_of_strangers() -> None:
    vectors, people = crowd(40, 4, 1.0)
    found = operating_points(vectors, people, Rates(pair=1e-3, accept=1e-2, review=1e-1))
    assert found.false_match_rate <= 1e-3
    assert found.review < found.accept < found.pair
    fresh, whose = crowd(40, 4, 1.0, seed=1)
    cosines, same = fresh @ fresh.T, whose[:, None] == whose[None]
    assert (cosines[~same] >= found.pair).mean() < 5e-3, "it holds for others too"
    assert (found.people, found.faces, found.same_pairs) == (40, 160, 40 * 6)
    assert found.same_mean > 0.4 > 0.1 > abs(found.stranger_mean)


def test_people_who_hardly_differ_get_a_high_threshold_and_a_true_rate_of_misses() -> None:
    easy, hard = (operating_points(*crowd(12, 3, spread)) for spread in (0.3, 2.0))
    assert easy.false_non_match_rate == 0
    assert hard.false_non_match_rate > 0.3


def test_too_few_people_are_refused() -> None:
    with pytest.raises(RequestError, match="7 people"):
        operating_points(*crowd(7, 3, 0.5))
    with pytest.raises(RequestError, match="0 pairs of pictures of one person"):
        operating_points(*crowd(9, 1, 0.5))
