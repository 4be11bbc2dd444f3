"""The time to go against what came true, over days of mixed batches that go through the real ledger."""

from __future__ import annotations

import math
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.ledger.engine.session import Ledger
from tests.integration.ledger.traces import EACH, FIXED, GROUP, Arrival, Judged, Trace

ALL = ("gpu.generate", "gpu.restore", "cpu.io", "gpu.train")
ONE, TWO, SPLIT = [ALL], [ALL, ALL], [ALL[:2], ALL[2:3]]
NEAR = GROUP * EACH["restore"] + FIXED["restore"]
"""Seconds of the longest group: nearer than that an estimate cannot be a matter of factors."""
WORST = 2.0


@pytest.fixture
def ledger(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Ledger]:
    path = tmp_path / "ledger.sqlite3"
    shutil.copy(migrated_sqlite, path)
    opened = Ledger(f"sqlite:///{path}")
    yield opened
    opened.dispose()


def before() -> list[Arrival]:
    """One of each kind, so that something is known of it."""
    kinds = {"generate": 2 * GROUP, "restore": GROUP, "enrol": 3, "dataset": 1, "evaluate": 1}
    return [Arrival(at=0.0, owner="ann", kind=kind, count=count) for kind, count in kinds.items()]


def mixed(seed: int, *, spread_over: float, others: bool) -> list[Arrival]:
    """Two dozen batches of all kinds, sizes, lanes and owners, submitted within so many seconds."""
    dice = random.Random(seed)
    found = []
    for number in range(24):
        kind = dice.choices(["generate", "restore", "enrol", "dataset", "evaluate"], [9, 5, 5, 2, 1])[0]
        lane = "interactive" if kind == "enrol" else dice.choices(["bulk", "interactive"], [4, 1])[0]
        lane = "training" if kind == "evaluate" else "bulk" if kind == "dataset" else lane
        most = {"generate": 90, "restore": 24, "enrol": 4, "dataset": 2, "evaluate": 1}[kind]
        found.append(
            Arrival(
                at=dice.uniform(0, spread_over) if spread_over else 0.001 * number,
                owner=dice.choice(["ann", "bob", "eve"]) if others else "ann",
                kind=kind,
                count=dice.randint(1, 3 if lane == "interactive" else most),
                lane=lane,
                priority=dice.choice([0, 0, 0, 1, -1]),
                cost=dice.choice([0.5, 1.0, 1.0, 3.0] if kind == "generate" else [0.8, 1.0, 1.25]),
            )
        )
    return found


def error(one: Judged) -> float:
    """Return the factor by which an estimate was wrong."""
    assert one.said is not None
    return max(one.said, one.true) / max(min(one.said, one.true), 1e-9)


def told(title: str, judged: Sequence[Judged]) -> float:
    """Print how wrong the estimates were, and return the worst of them."""
    known = [one for one in judged if one.said is not None]
    far = [one for one in known if max(one.said or 0.0, one.true) > NEAR]
    errors = sorted(error(one) for one in far)
    middle, most = errors[len(errors) // 2], errors[math.ceil(0.95 * len(errors)) - 1]
    unknown = len(judged) - len(known)
    counts = f"{len({one.batch for one in judged})} batches, {len(far)} estimates judged, {unknown} not known"
    wrong = f"wrong by a factor of {middle:.2f} (median), {most:.2f} (95 %), {errors[-1]:.2f} (worst)"
    sys.stdout.write(f"{title}: {counts}, {wrong}\n")
    return errors[-1]


@pytest.mark.parametrize(("seed", "queues"), [(1, ONE), (2, TWO), (3, SPLIT)])
def test_whatever_stands_in_the_queue_is_told_within_a_factor_of_two(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seed: int, queues: Sequence[Sequence[str]]
) -> None:
    trace = Trace(ledger, monkeypatch, seed, queues)
    trace.play(before(), judge=False)

    judged = trace.play(mixed(seed, spread_over=0.0, others=True))

    assert len(trace.arrived) >= 20
    assert told(f"{len(queues)} workers, seed {seed}", judged) < WORST
    assert sum(one.said is None for one in judged) < 0.2 * len(judged)


def test_what_comes_later_and_goes_behind_does_not_spoil_what_was_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(ledger, monkeypatch, 4, ONE)
    trace.play(before(), judge=False)
    # of one owner: what comes later waits behind, but for what is urgent, and that is short
    arrivals = [one for one in mixed(4, spread_over=600.0, others=False) if one.priority == 0]

    assert told("arrivals within a quarter of an hour", trace.play(arrivals)) < WORST
