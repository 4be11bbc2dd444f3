"""Estimates come from measured durations alone, and count what stands in front."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator import pipelines
from orchestrator.ledger.views.standing import Group, Hand, Queue, Standing, Step
from orchestrator.pipelines import QUEUES
from orchestrator.planning.estimate import Eta, describe, forecast, pace, unmeasured

STAGES = pipelines.stages()


def step(name: str, waiting: int, *seconds: float, items: int = 4, left: float | None = None) -> Step:
    """Return items at a stage whose groups of so many took these seconds."""
    groups = tuple(Group(items=items, seconds=one) for one in seconds)
    return Step(stage=STAGES[name], waiting=waiting, groups=groups, left=left)


def batch(name: str, *steps: Step, **changes: Any) -> Standing:
    base = Standing(id=name, owner=name, lane="bulk", priority=0, created=-1.0, served=None, steps=steps)
    return replace(base, **changes)


def queue(*batches: Standing, workers: int = 1, hands: tuple[Hand, ...] = ()) -> Queue:
    return Queue(batches=batches, hands=hands, workers={f"w{n}": QUEUES for n in range(workers)}, turns={})


def portraits(name: str, waiting: int, **changes: Any) -> Standing:
    return batch(name, step("generate", waiting, 4.0, 4.0), step("score", 0, 1.0, 1.0), **changes)


def test_without_history_or_without_a_worker_there_is_no_estimate() -> None:
    unknown = batch("a", step("generate", 8, 4.0), step("score", 0))
    assert forecast(queue(unknown)) == {}
    assert unmeasured(unknown) == ("score",)
    assert forecast(queue(batch("a", step("generate", 8, 0.1, items=1), step("score", 0, 0.1)))) == {}
    assert forecast(queue(portraits("a", 8), workers=0)) == {}
    assert describe(None) == "time not known yet"


def test_the_whole_way_is_counted_and_workers_share_it() -> None:
    assert forecast(queue(portraits("a", 8)))["a"].p50 == pytest.approx(10.0)
    assert forecast(queue(portraits("a", 8), workers=2))["a"].p50 == pytest.approx(5.0)


def test_what_stands_in_front_is_waited_for_by_lane_and_what_stands_behind_is_not() -> None:
    found = forecast(queue(portraits("night", 400), portraits("urgent", 4, lane="interactive", created=0.0)))
    assert found["urgent"].p50 == pytest.approx(5.0)
    assert found["night"].p50 == pytest.approx(505.0)


def test_what_a_worker_holds_is_ended_first() -> None:
    hand = Hand(worker="w0", batch="night", stage="generate", items=4, group=4, began=-1.0, since=-1.0, share=0.0)
    urgent = portraits("urgent", 4, lane="interactive")
    found = forecast(queue(portraits("night", 400), urgent, hands=(hand,)))
    assert found["urgent"].p50 == pytest.approx(3.0 + 5.0)


def test_owners_take_turns_and_a_batch_of_one_owner_waits_for_the_one_before() -> None:
    shared = forecast(queue(portraits("a", 40), portraits("b", 40)))
    assert shared["a"].p50 > 0.9 * shared["b"].p50
    alone = forecast(queue(portraits("a", 40, owner="x"), portraits("b", 40, owner="x", created=0.0)))
    assert alone["a"].p50 == pytest.approx(50.0)
    assert alone["b"].p50 == pytest.approx(100.0)


def test_a_training_gives_way_and_nobody_waits_for_its_end() -> None:
    run = batch("run", step("train", 0, left=3600.0), step("evaluate", 0), lane="training", served=-10.0)
    hand = Hand(worker="w0", batch="run", stage="train", items=1, group=1, began=-10.0, since=-10.0, share=0.1)
    found = forecast(queue(run, portraits("night", 8), portraits("urgent", 4, lane="interactive"), hands=(hand,)))
    assert found["urgent"].p50 == pytest.approx(6.0)
    assert found["night"].p50 < 80.0
    assert "run" not in found, "what was never measured comes after it"


def test_who_waits_behind_what_was_never_measured_is_told_nothing() -> None:
    found = forecast(queue(batch("new", step("restore", 4)), portraits("a", 4, created=0.0, owner="new")))
    assert found == {}


def test_an_archive_waits_until_its_people_are_gathered() -> None:
    steps = [step(name, n, 4.0, 4.0) for name, n in (("ingest_photo", 4), ("restore", 0), ("score_photo", 0))]
    steps.insert(1, step("cluster", 0, 10.0, items=1))
    found = forecast(queue(batch("a", *steps, parked=4)))
    assert found["a"].p50 == pytest.approx(4.0 + 10.0 + 2 * 4.0 + 2 * 4.0)


def test_what_a_group_costs_and_what_an_item_costs_are_told_apart() -> None:
    found = pace([Group(items=8, seconds=10.0), Group(items=1, seconds=3.0)] * 3)
    assert found is not None
    assert found.fixed == pytest.approx(2.0)
    assert found.each == pytest.approx(1.0)


def test_one_slow_first_group_does_not_spoil_the_estimate() -> None:
    slow = batch("a", step("generate", 100, *[4.0] * 9, 60.0), step("score", 0, 0.0))
    assert forecast(queue(slow))["a"].p50 == pytest.approx(120.0)


def test_nine_in_ten_batches_end_within_p90_and_about_half_within_p50() -> None:
    rng = np.random.default_rng(0)
    ends_90 = ends_50 = 0
    for _ in range(300):
        draws = rng.gamma(20.0, 0.05, size=40 + 30)
        groups = tuple(Group(items=1, seconds=float(one)) for one in draws[40:])
        eta = forecast(queue(batch("a", Step(stage=STAGES["probe"], waiting=40, groups=groups))))["a"]
        ends_90 += draws[:40].sum() <= eta.p90
        ends_50 += draws[:40].sum() <= eta.p50

    assert 0.82 < ends_90 / 300 < 0.96
    assert 0.42 < ends_50 / 300 < 0.58


def test_a_million_items_cost_a_bounded_number_of_steps() -> None:
    found = forecast(queue(portraits("a", 1_000_000), portraits("b", 1000)))
    assert found["a"].p50 == pytest.approx(1_001_000 * 1.25, rel=0.05)
    assert math.isfinite(found["b"].p90)


@pytest.mark.parametrize(
    ("p50", "p90", "words"),
    [
        (0.2, 0.4, "less than a second"),
        (40, 40, "about 40 s"),
        (600, 600, "about 10 min"),
        (40, 55, "about 40 s, likely within 55 s"),
    ],
)
def test_a_duration_is_told_in_its_own_unit(p50: float, p90: float, words: str) -> None:
    assert describe(Eta(p50=p50, p90=p90, samples=3)) == words
