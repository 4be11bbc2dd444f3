"""The audit after every chaos run: raw SQL and a listing of the store, nothing of the product's own queries.

INV1 every item has ended          INV2 one output for each item            INV3 every output's bytes are right
INV4 every object is referred to   INV5 nobody holds a lapsed lease         INV6 tokens rise, each attempt owns one
INV7 the audit chain is whole      INV8 a batch has ended as its items say, and nothing cancelled has an output
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any

from sqlalchemy import Connection, create_engine, text

from orchestrator.errors import NotFoundError, TransientError
from orchestrator.storage import ByteStore
from tests.chaos.deployment import Kill
from workers.stages.probes.probe import MARK_BYTES, mark

ENDED = "('completed', 'failed', 'cancelled', 'held')"


@dataclass
class Audit:
    """What was found: figures, and a sentence for everything that must not be."""

    items: int = 0
    completed: int = 0
    held: int = 0
    failed: int = 0
    lost: int = 0
    doubled: int = 0
    orphaned: int = 0
    attempts: int = 0
    lost_leases: int = 0
    recovery: list[float] = field(default_factory=list)
    """Seconds from a kill, or from the end of a lease, until another attempt of the same item began."""
    bad: list[str] = field(default_factory=list)

    def recovery_at(self, percent: int) -> float | None:
        """Return a percentile of the recovery times, or None where nothing had to recover."""
        if not self.recovery:
            return None
        if len(self.recovery) == 1:
            return round(self.recovery[0], 2)
        return round(quantiles(self.recovery, n=100, method="inclusive")[percent - 1], 2)


def audit(database_url: str, store: ByteStore, *, submitted: int, kills: Sequence[Kill] = ()) -> Audit:
    """Look at a deployment at rest, after the cleaner; `submitted` is how many items were handed in."""
    found = Audit()
    engine = create_engine(database_url)
    with engine.connect() as connection:
        _items(connection, found, submitted)
        _outputs(connection, found, store)
        _attempts(connection, found)
        _chain(connection, found)
        _recovery(connection, found, kills)
    engine.dispose()
    return found


def _rows(connection: Connection, query: str) -> Sequence[Any]:
    return connection.execute(text(query)).all()


def _items(connection: Connection, found: Audit, submitted: int) -> None:
    states = dict(_rows(connection, "SELECT state, count(*) FROM item GROUP BY state"))
    found.items = sum(states.values())
    found.completed, found.held, found.failed = (states.get(s, 0) for s in ("completed", "held", "failed"))
    open_items = _rows(connection, f"SELECT id, state FROM item WHERE state NOT IN {ENDED}")
    found.lost = len(open_items) + max(0, submitted - found.items)
    found.bad += [f"INV1: item {row.id} is {row.state}" for row in open_items]
    if found.items != submitted:
        found.bad.append(f"INV1: {submitted} items were submitted, {found.items} are there")
    held = _rows(connection, "SELECT id, state FROM stage WHERE state IN ('leased', 'running', 'cancelling')")
    found.bad += [f"INV5: stage {row.id} is {row.state} at rest" for row in held]
    wrong = _rows(
        connection,
        "SELECT b.id, b.state FROM batch b WHERE b.state NOT IN ('completed', 'completed_with_errors', 'cancelled') "
        "OR (b.state = 'completed' AND EXISTS "
        "(SELECT 1 FROM item i WHERE i.batch_id = b.id AND i.state != 'completed'))",
    )
    found.bad += [f"INV8: batch {row.id} is {row.state}" for row in wrong]


def _outputs(connection: Connection, found: Audit, store: ByteStore) -> None:
    doubled = _rows(connection, "SELECT item_id, round, count(*) AS n FROM output GROUP BY item_id, round")
    found.doubled = sum(row.n - 1 for row in doubled)
    found.bad += [f"INV2: item {row.item_id} has {row.n} outputs" for row in doubled if row.n > 1]
    rows = _rows(
        connection,
        "SELECT o.item_id, o.batch_id, i.state AS item_state, a.key, a.sha256, a.state FROM output o "
        "JOIN artifact a ON a.id = o.artifact_id JOIN item i ON i.id = o.item_id",
    )
    made = {row.item_id for row in rows}
    finished = _rows(connection, "SELECT id FROM item WHERE state = 'completed'")
    found.bad += [f"INV1: item {row.id} is completed without an output" for row in finished if row.id not in made]
    for row in rows:
        if row.item_state == "cancelled":
            found.bad.append(f"INV8: item {row.item_id} was cancelled and has an output")
        data = b""
        with suppress(NotFoundError, TransientError):  # missing, or not the bytes that the key names
            data = store.get(row.key)
        if row.state != "live" or hashlib.sha256(data).hexdigest() != row.sha256:
            found.bad.append(f"INV3: the bytes of item {row.item_id} are not there or not right")
        elif data[:MARK_BYTES] != mark(row.batch_id, row.item_id):
            found.bad.append(f"INV3: item {row.item_id} has the bytes of another")
    known = {row.key for row in rows}
    orphans = [listed.key for listed in store.list() if listed.key not in known]
    found.orphaned = len(orphans)
    found.bad += [f"INV4: nothing refers to {key}" for key in orphans]


def _attempts(connection: Connection, found: Audit) -> None:
    outcomes = dict(_rows(connection, "SELECT outcome, count(*) FROM attempt GROUP BY outcome"))
    found.attempts = sum(outcomes.values())
    found.lost_leases = outcomes.get("lost", 0) + outcomes.get("stalled", 0)
    if outcomes.get(None):
        found.bad.append(f"INV6: {outcomes[None]} attempts have no end")
    twice = _rows(
        connection,
        "SELECT stage_id, count(*) AS n FROM attempt WHERE outcome = 'completed' GROUP BY stage_id HAVING count(*) > 1",
    )
    found.doubled += len(twice)
    found.bad += [f"INV2: stage {row.stage_id} completed {row.n} times" for row in twice]
    ahead = _rows(
        connection, "SELECT a.stage_id FROM attempt a JOIN stage s ON s.id = a.stage_id WHERE a.token > s.token"
    )
    found.bad += [f"INV6: an attempt of stage {row.stage_id} has a token that was never given" for row in ahead]
    order = _rows(connection, "SELECT stage_id, token, started_at FROM attempt ORDER BY stage_id, token")
    for before, after in itertools.pairwise(order):
        if before.stage_id == after.stage_id and _moment(after.started_at) < _moment(before.started_at):
            found.bad.append(f"INV6: attempt {after.token} of stage {after.stage_id} began before the one before it")


def _chain(connection: Connection, found: Audit) -> None:
    rows = _rows(connection, "SELECT id, previous, hash FROM audit ORDER BY id")
    for before, after in itertools.pairwise(rows):
        if after.previous != before.hash:
            found.bad.append(f"INV7: audit row {after.id} does not follow from row {before.id}")


def _recovery(connection: Connection, found: Audit, kills: Sequence[Kill]) -> None:
    """How long each item that lost its worker waited for another; from the kill where one is known."""
    killed = {kill.pid: kill.at for kill in kills}
    rows = _rows(
        connection,
        "SELECT a.ended_at, w.pid, (SELECT min(n.started_at) FROM attempt n WHERE n.stage_id = a.stage_id "
        "AND n.token > a.token) AS again FROM attempt a JOIN worker w ON w.id = a.worker_id "
        "WHERE a.outcome IN ('lost', 'stalled')",
    )
    for row in rows:
        if row.again is not None:
            began = killed.get(row.pid, _moment(row.ended_at).timestamp())
            found.recovery.append(max(0.0, _moment(row.again).timestamp() - began))


def _moment(value: Any) -> datetime:
    """SQLite gives text without a zone, PostgreSQL a moment."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
