"""Curves: inside their box, at round ticks, with the same numbers in the table."""

from __future__ import annotations

import math

import pytest

from orchestrator.api.pages.charts import MOST_POINTS, chart, powers, smoothed, thinned, ticks


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, _, y in (one.partition(",") for one in text.split())]


def test_a_curve_fills_its_box_from_left_to_right_and_stays_inside() -> None:
    made = chart("loss", {"loss": [(step, 1 / step) for step in range(1, 1000)]})

    assert made is not None
    drawn = points(made.curves[0].points)
    assert drawn[-1][0] == made.right
    assert drawn[0][1] < drawn[-1][1], "a falling loss falls on the screen"
    assert all(made.left <= x <= made.right and made.top <= y <= made.bottom for x, y in drawn)
    assert len(drawn) <= MOST_POINTS


def test_the_table_says_the_newest_step_and_leaves_gaps_where_a_curve_has_none() -> None:
    made = chart("likeness", {"own": [(10, 0.5), (20, 0.7)], "other": [(20, 0.1)]})

    assert made is not None
    assert made.table == ((10, (0.5, None)), (20, (0.7, 0.1)))
    assert made.summary == "likeness: own ends at 0.7, other ends at 0.1"


def test_a_long_table_is_cut_but_keeps_its_end() -> None:
    made = chart("loss", {"loss": [(step, float(step)) for step in range(10_000)]})

    assert made is not None
    assert len(made.table) <= 25
    assert made.table[-1][0] == 9999


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_is_drawn_of_nothing(values: list[float]) -> None:
    assert chart("loss", {"loss": list(enumerate(values))}) is None


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.013, 0.0131), (-3.0, 900.0), (5.0, 5.0), (0.0, 0.0)])
def test_ticks_are_few_round_and_reach_around_the_values(low: float, high: float) -> None:
    found = ticks(low, high)

    assert 2 <= len(found) <= 7
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert found == sorted(set(found))


def test_thinning_keeps_means_and_the_last_point() -> None:
    kept = thinned([(float(n), float(n % 2)) for n in range(1001)], most=100)

    assert len(kept) <= 100
    assert kept[-1] == (1000.0, 0.0)
    assert all(0.3 < y < 0.7 for _, y in kept[:-1])


def test_powers_of_ten_go_evenly_up_and_leave_out_what_has_no_logarithm() -> None:
    made = chart("rate", {"rate": [(0, 0.0), (1, 1e-4), (2, 1e-3), (3, 1e-2)]}, log=True)

    assert made is not None
    heights = [y for _, y in points(made.curves[0].points)]
    assert len(heights) == 3
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert powers(0.03, 0.9) == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]


def test_smoothing_keeps_a_constant_and_quiets_noise() -> None:
    assert [y for _, y in smoothed([(n, 2.0) for n in range(5)], 0.9)] == pytest.approx([2.0] * 5)
    noisy = smoothed([(n, float(n % 2)) for n in range(200)], 0.9)
    assert all(abs(y - 0.5) < 0.06 for _, y in noisy[50:])
    assert smoothed([(0, 1.0), (1, 5.0)], 0.0) == [(0, 1.0), (1, 5.0)]
