import numpy as np
import pytest

from fpga_models.metrics.statistics import bootstrap_ci95, share_of_way


def test_the_interval_covers_the_mean_and_has_the_width_of_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.2, 400).astype(np.float32)

    low, high = bootstrap_ci95(values)

    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.2 / 20, rel=0.15)


def test_faces_of_one_picture_widen_the_interval_because_they_hang_together() -> None:
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 50), 4).astype(np.float32)

    alone = bootstrap_ci95(values)
    together = bootstrap_ci95(values, np.repeat(np.arange(50), 4))

    assert together[1] - together[0] > 1.6 * (alone[1] - alone[0])


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.linspace(0, 1, 20, dtype=np.float32)

    assert bootstrap_ci95(values, seed=4) == bootstrap_ci95(values, seed=4)


@pytest.mark.parametrize(("value", "share"), [(0.1, 0.0), (0.5, 0.5), (0.9, 1.0)])
def test_the_share_runs_from_floor_to_ceiling(value: float, share: float) -> None:
    assert share_of_way(value, 0.1, 0.9) == pytest.approx(share)


def test_without_a_way_the_share_is_zero() -> None:
    assert share_of_way(0.5, 0.3, 0.3) == 0
