"""What is claimed next: one decision over all queues of a worker, what is nearly done before what is not begun."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import select, update

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, claims, outcomes
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import Attempt, Audit, Stage
from tests.integration.ledger.helpers import LEASE, let_time_pass, on, row, submit

ALL = ("gpu.generate", "gpu.restore", "cpu.io", "gpu.train")
GROUP = 4


def turn(ledger: Ledger, limit: int = GROUP) -> list[Claim]:
    """Do what a worker that serves every queue does next, and return the claims of it."""
    held = claims.claim(ledger, worker_id="w", queues=ALL, limit=limit, lease_seconds=LEASE, begin=True)
    for c in held:
        outcomes.publish(ledger, c, on)
    return held


def turn_of(ledger: Ledger, brief: Sequence[str] = ()) -> list[Claim]:
    """Claim, and go on holding it."""
    return claims.claim(ledger, worker_id="w", queues=ALL, limit=GROUP, lease_seconds=LEASE, begin=True, brief=brief)


def names(ledger: Ledger, turns: int) -> list[str]:
    return [f"{held[0].owner} {held[0].name} {len(held)}" for _ in range(turns) if (held := turn(ledger))]


def test_a_group_is_scored_before_the_next_is_drawn(ledger: Ledger) -> None:
    submit(ledger, 3 * GROUP)
    assert names(ledger, 7) == ["ann generate 4", "ann score 4"] * 3


def test_a_photo_comes_back_before_the_next_group_is_restored(ledger: Ledger) -> None:
    submit(ledger, 2 * GROUP, kind="restore")
    stages = ["ingest_photo", "restore", "score_photo", "publish_photo"]
    assert names(ledger, 9) == [f"ann {stage} 4" for stage in stages] * 2


def test_what_somebody_waits_for_enters_after_the_group_at_hand_whatever_its_queue(ledger: Ledger) -> None:
    submit(ledger, 100)
    assert names(ledger, 1) == ["ann generate 4"]
    submit(ledger, 2, owner="bob", lane="interactive")
    submit(ledger, 1, owner="eve", lane="interactive", kind="enrol")
    assert names(ledger, 4) == ["bob generate 2", "eve ingest 1", "bob score 2", "ann score 4"]


def test_owners_take_turns_however_many_batches_each_has_had(ledger: Ledger) -> None:
    for _ in range(3):
        submit(ledger, 1)
    submit(ledger, 3, owner="bob")
    order = names(ledger, 12)
    drawn = [line.split()[0] for line in order if "generate" in line]
    assert drawn[:2] == ["ann", "bob"]
    submit(ledger, 1)  # of one who was served a moment ago
    submit(ledger, 1, owner="new")
    assert names(ledger, 1) == ["new generate 1"]


def test_bulk_ages_into_the_lane_of_what_is_urgent(ledger: Ledger) -> None:
    submit(ledger, 1)
    let_time_pass(ledger, 1.5 * claims.AGEING_SECONDS)
    submit(ledger, 1, owner="bob", lane="interactive")
    assert names(ledger, 1) == ["ann generate 1"], "it waited for longer than the lanes are apart"


def test_long_work_is_told_when_others_wait(ledger: Ledger) -> None:
    submit(ledger, 1, kind="train", lane="training")
    assert not claims.wanted(ledger, queues=ALL, lanes=("interactive", "bulk"))
    submit(ledger, 1)
    assert claims.wanted(ledger, queues=ALL, lanes=("interactive", "bulk"))
    assert not claims.wanted(ledger, queues=ALL, lanes=("interactive",))
    assert not claims.wanted(ledger, queues=("gpu.train",), lanes=("interactive", "bulk"))


def test_in_the_middle_of_long_work_only_what_is_short_and_unsuspected_is_taken(ledger: Ledger) -> None:
    submit(ledger, 1, kind="evaluate", lane="training")
    (long,) = turn_of(ledger)
    submit(ledger, 1, kind="evaluate", lane="interactive")
    suspect = submit(ledger, 1, lane="interactive")
    with ledger.write() as session:
        session.execute(update(Stage).where(Stage.batch_id == suspect).values(alone=True))
    assert not claims.wanted(ledger, queues=ALL[3:], lanes=("interactive",))
    assert turn_of(ledger, brief=("interactive",)) == []
    submit(ledger, 2)
    submit(ledger, 1, owner="bob", lane="interactive")
    assert [c.owner for c in turn_of(ledger, brief=("interactive",))] == ["bob"]
    assert len(turn_of(ledger, brief=("interactive", "bulk"))) == 2

    assert claims.step_aside(ledger, long)
    assert row(ledger, Attempt, stage_id=long.stage_id).group_size == 2, "what others do is no strike against it"
    claims.step_back(ledger, long, 7.5)
    tried = row(ledger, Attempt, stage_id=long.stage_id)
    assert (tried.group_size, tried.aside) == (1, 7.5)


def test_who_is_under_suspicion_makes_no_room(ledger: Ledger) -> None:
    suspect = submit(ledger, 1, kind="evaluate")
    with ledger.write() as session:
        session.execute(update(Stage).where(Stage.batch_id == suspect).values(alone=True))
    (c,) = turn_of(ledger)
    assert not claims.step_aside(ledger, c)
    assert row(ledger, Attempt, stage_id=c.stage_id).group_size == 1


def test_a_waiting_batch_is_moved_to_the_top_and_the_move_is_audited(ledger: Ledger) -> None:
    first, second = submit(ledger, 1), submit(ledger, 1, owner="bob")
    batches.reorder(ledger, "bob", second, lane="interactive", priority=3)
    assert names(ledger, 1) == ["bob generate 1"]
    with ledger.read() as session:
        found = session.scalars(select(Audit).where(Audit.action == "batch.reorder")).one()
    assert (found.ref, found.detail) == (second, {"lane": "interactive", "priority": 3})
    with pytest.raises(UsageError, match="lane must be"):
        batches.reorder(ledger, "ann", first, lane="express")
    with pytest.raises(NotFoundError):
        batches.reorder(ledger, "bob", first, priority=1)
