import numpy as np
import pytest

from fpga_models.lab.measures.calibrate import ErrorRates, eye_threshold, thresholds


def test_thresholds_keep_the_stated_error_rates() -> None:
    rng = np.random.default_rng(0)
    own = np.clip(rng.normal(0.7, 0.15, 4000), -1, 1).astype(np.float32)
    other = np.clip(rng.normal(0.0, 0.12, 100_000), -1, 1).astype(np.float32)

    found = thresholds(own, other, own, seed=1, wanted=ErrorRates(false_accept=0.001, false_reject=0.02))

    assert found.false_accept_rate <= 0.001
    assert found.false_reject_rate <= 0.02
    assert 0.3 < found.review <= found.accept < 0.5
    assert found.review_rate == pytest.approx(((own >= found.review) & (own < found.accept)).mean(), abs=1e-3)


def test_review_never_begins_above_acceptance() -> None:
    own = np.full(100, 0.9, np.float32)
    other = np.linspace(-0.2, 0.2, 1000, dtype=np.float32)

    found = thresholds(own, other, own, seed=1, wanted=ErrorRates(false_accept=0.01))

    assert found.review == found.accept < 0.25


def test_a_finished_face_is_refused_only_where_few_drawn_ones_are_as_poor() -> None:
    own, drawn = np.full(100, 0.9, np.float32), np.linspace(0.1, 0.9, 1000, dtype=np.float32)
    other = np.linspace(-0.4, 0.4, 1000, dtype=np.float32)

    found = thresholds(own, other, drawn, seed=1, wanted=ErrorRates(false_accept=0.01, false_reject=0.05))

    assert found.review == pytest.approx(0.14, abs=0.002)
    assert found.review < found.accept == pytest.approx(0.393, abs=0.002)
    assert (found.review_rate, found.false_reject_rate) == (0.0, 0.0)


def test_the_line_for_eyes_lets_the_stated_share_of_right_ones_pass() -> None:
    rng = np.random.default_rng(0)
    right, drawn = rng.normal(4, 1, 2000).astype(np.float32), rng.normal(6, 2, 500).astype(np.float32)

    found = eye_threshold(right, drawn)

    assert found.eyes_false_rate <= 0.01
    assert 6 < found.eyes < 7
    assert found.eyes_review_rate == pytest.approx((drawn > found.eyes).mean())
    assert found.eyes_faces == 500
