"""Estimates come from measured durations alone."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.planning.estimate import StageLoad, describe, estimate


def load(left: int, durations: list[float], workers: int = 1, queue: str = "gpu", name: str = "generate") -> StageLoad:
    return StageLoad(name=name, queue=queue, left=left, durations=durations, workers=workers)


def test_without_history_or_without_a_worker_there_is_no_estimate() -> None:
    assert estimate([load(10, [1.0, 1.0])]) is None
    assert estimate([load(10, [1.0] * 9, workers=0)]) is None
    assert estimate([load(10, [1.0] * 9), load(3, [], name="score")]) is None
    assert describe(None) == "no history yet"


def test_equal_durations_give_an_exact_estimate() -> None:
    eta = estimate([load(10, [2.0] * 5, workers=2)])

    assert eta is not None
    assert (eta.p50, eta.p90, eta.samples) == (10.0, 10.0, 5)
    assert describe(eta) == "about 10 s"


def test_stages_of_one_queue_add_up_and_queues_run_side_by_side() -> None:
    eta = estimate([load(10, [2.0] * 5), load(10, [1.0] * 5, name="score"), load(10, [2.5] * 5, queue="cpu")])

    assert eta is not None
    assert eta.p50 == 30.0


def test_one_slow_first_item_does_not_spoil_the_estimate() -> None:
    eta = estimate([load(100, [60.0, *[1.0] * 9])])

    assert eta is not None
    assert eta.p50 == pytest.approx(120.0)


def test_nine_in_ten_batches_end_within_p90_and_about_half_within_p50() -> None:
    rng = np.random.default_rng(0)
    ends_90 = ends_50 = 0
    for _ in range(400):
        draws = rng.gamma(20.0, 0.05, size=40 + 30)
        eta = estimate([load(40, list(draws[40:]))])
        assert eta is not None
        ends_90 += draws[:40].sum() <= eta.p90
        ends_50 += draws[:40].sum() <= eta.p50

    assert 0.85 < ends_90 / 400 < 0.96
    assert 0.42 < ends_50 / 400 < 0.58


def test_nothing_left_is_done() -> None:
    assert describe(estimate([load(0, [])])) == "done"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "about 1 s"), (40, "about 40 s"), (600, "about 10 min"), (7200, "about 2 h 0 min")]
)
def test_a_duration_is_told_in_its_own_unit(seconds: float, words: str) -> None:
    assert describe(estimate([load(1, [seconds] * 3)])) == words
