"""What one item costs the database: statements and transactions are counted, and do not grow with what waits behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from orchestrator.ledger import artifacts
from orchestrator.ledger.artifacts import NewArtifact
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, outcomes
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome, Upload
from tests.integration.ledger.helpers import LEASE, claim, stage_of, submit

GROUP = 8


class Counted:
    """Statements and commits of a ledger while it is open."""

    def __init__(self) -> None:
        self.statements = self.commits = 0


@contextmanager
def counted(ledger: Ledger) -> Iterator[Counted]:
    found = Counted()

    def statement(*_: object) -> None:
        found.statements += 1

    def commit(*_: object) -> None:
        found.commits += 1

    event.listen(ledger.engine, "after_cursor_execute", statement)
    event.listen(ledger.engine, "commit", commit)
    yield found
    event.remove(ledger.engine, "after_cursor_execute", statement)
    event.remove(ledger.engine, "commit", commit)


def test_a_group_is_claimed_and_begun_in_one_transaction_whatever_its_size(ledger: Ledger) -> None:
    submit(ledger, 4 * GROUP)
    costs = []
    for size in (1, GROUP):
        with counted(ledger) as cost:
            held = claims.claim(
                ledger, worker_id="w", queues=["gpu.generate"], limit=size, lease_seconds=LEASE, begin=True
            )
        assert len(held) == size
        assert {stage_of(ledger, c).state for c in held} == {"running"}
        costs.append(cost)

    assert [cost.commits for cost in costs] == [1, 1]
    assert costs[1].statements <= costs[0].statements <= 13


def test_a_group_is_reserved_and_published_in_two_transactions_whatever_its_size(ledger: Ledger) -> None:
    submit(ledger, 2 * GROUP, first="score")
    costs = []
    for size in (1, GROUP):
        held = claim(ledger, queue="cpu.io", limit=size)
        assert len(held) == size
        with counted(ledger) as cost:
            ids = artifacts.reserve_all(ledger, [bytes_of(c) for c in held])
            finished = [
                (c, Outcome(result={"n": c.seed}, uploads=[upload(c, ids["ann", bytes_of(c).sha256])])) for c in held
            ]
            assert outcomes.publish_all(ledger, finished) == []
        costs.append(cost)

    assert [cost.commits for cost in costs] == [2, 2]
    assert costs[1].statements <= costs[0].statements <= 8


def upload(c: Claim, artifact_id: str) -> Upload:
    new = bytes_of(c)
    return Upload(key=new.key, data=b"1", sha256=new.sha256, media_type=new.media_type, artifact_id=artifact_id)


def bytes_of(c: Claim) -> NewArtifact:
    return NewArtifact(owner="ann", sha256=f"{c.stage_id:064d}", key=f"k/{c.stage_id}", size=1, media_type="image/png")


def test_a_claim_reads_no_more_when_a_thousand_items_wait(ledger: Ledger) -> None:
    """SQLite says how it will search: by the index alone, sorting nothing."""
    if not ledger.is_sqlite:
        return
    submit(ledger, 20)
    asked: list[tuple[str, object]] = []
    event.listen(ledger.engine, "after_cursor_execute", lambda *a: asked.append((a[2], a[3])))
    held = claims.claim(ledger, worker_id="w", queues=["gpu.generate"], limit=GROUP, lease_seconds=LEASE)
    assert len(held) == GROUP

    picks = [(sql, values) for sql, values in asked if "FROM stage" in sql and "LIMIT" in sql and "SELECT stage" in sql]
    assert len(picks) == 2
    with ledger.engine.connect() as connection:
        for sql, values in picks:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()  # type: ignore[arg-type]  # values as the driver got them
            said = " ".join(str(row[3]) for row in plan)
            assert "ix_stage_claim" in said, said
            assert "TEMP B-TREE" not in said, said
