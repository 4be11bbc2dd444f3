"""Signs of trouble that a query can see: leases nobody sweeps, bytes nobody removes, effects nobody delivers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from orchestrator.errors import FpgaError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_OPEN, LEASED, UNENDED, BatchState, State, among
from orchestrator.ledger.queue import wakeups
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, Leader, Outbox, Stage
from orchestrator.ledger.tables.rows_api import Delivery
from orchestrator.pipelines import QUEUES

MOST_DEMAND = 10_000
"""Nobody has workers for more, and counting on would cost as much as there waits."""
Health = Literal["ok", "database", "sweeper", "queue"]


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Counts of what should be near zero while a sweeper runs, and until when one leads."""

    overdue_leases: int
    expired_artifacts: int
    late_effects: int
    held_items: int
    leader_until: datetime | None


def backlog(session: Session, moment: datetime, *, grace_seconds: float) -> Backlog:
    """Return what has been due for longer than the grace."""
    late = moment - timedelta(seconds=grace_seconds)
    return Backlog(
        overdue_leases=session.scalar(
            select(func.count(Stage.id)).where(among(Stage.state, LEASED), Stage.lease_until < late)
        )
        or 0,
        expired_artifacts=session.scalar(
            select(func.count(Artifact.id)).where(
                Artifact.state.in_(("pending", "live", "deleting")), Artifact.expires_at < late
            )
        )
        or 0,
        late_effects=session.scalar(
            select(func.count(Outbox.id)).where(
                Outbox.sent_at.is_(None), Outbox.next_at < late, Outbox.kind == "batch.ended"
            )
        )
        or 0,
        held_items=session.scalar(select(func.count(Item.id)).where(among(Item.state, (State.HELD,)))) or 0,
        leader_until=session.scalar(select(Leader.lease_until).where(Leader.name == "sweeper")),
    )


def ready(ledger: Ledger) -> bool:
    """Say whether this process can do its own work: its database answers and is not older than this code.

    A database that a newer version migrated is good enough, so that servers of two versions run side by side.
    """
    try:
        current, newest = schema.revisions(ledger)
        return current == newest or schema.is_newer(current, ledger.url)
    except FpgaError:
        return False


def health(ledger: Ledger, *, max_waiting: int) -> Health:
    """Say whether new work would be done: the database answers, somebody sweeps, the queue is not over depth.

    Args:
        max_waiting: so many stages may wait, of all owners together; 0 sets no limit.
    """
    if not ready(ledger):
        return "database"
    try:
        with ledger.read() as session:
            led_until = session.scalar(select(Leader.lease_until).where(Leader.name == "sweeper"))
            if led_until is None or led_until < now(session):
                return "sweeper"
            return "queue" if max_waiting and _waiting(session, max_waiting + 1) > max_waiting else "ok"
    except FpgaError:
        return "database"


def _waiting(session: Session, most: int) -> int:
    """Return how many stages wait, counted up to a bound."""
    some = select(Stage.id).where(among(Stage.state, UNENDED), Stage.state == State.QUEUED).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def oldest_due(session: Session, moment: datetime) -> dict[str, float]:
    """Return {queue: seconds that the first due stage of an open batch has waited for a worker}.

    By batch first, and of each the stage that was queued first: what waits in paused batches is never looked at.
    """
    firsts = [
        func.min(
            select(Stage.next_at)
            .where(Stage.batch_id == Batch.id, Stage.queue == queue, Stage.state == State.QUEUED)
            .order_by(Stage.alone, Stage.ordinal, Stage.id)
            .limit(1)
            .correlate(Batch)
            .scalar_subquery()
        )
        for queue in QUEUES
    ]
    found = session.execute(select(*firsts).select_from(Batch).where(Batch.state == BatchState.IN_PROGRESS)).one()
    waits = {queue: since for queue, since in zip(QUEUES, found, strict=True) if since is not None}
    return {queue: (moment - since).total_seconds() for queue, since in waits.items() if since <= moment}


def demand(session: Session, moment: datetime) -> dict[str, int]:
    """Return {queue: stages that a worker could take now or holds}, for an autoscaler, of what is due at most 10 000.

    Stages of paused batches are not among them, nor those that wait for a later try; what is in hands is, so that
    nobody takes a worker away from its work.
    """
    held = select(Stage.queue, func.count()).where(among(Stage.state, LEASED)).group_by(Stage.queue)
    in_hands = dict(session.execute(held).tuples().all())
    found = {queue: wakeups.due(session, queue, moment, MOST_DEMAND) + in_hands.get(queue, 0) for queue in QUEUES}
    return {queue: count for queue, count in found.items() if count}


def open_batches(session: Session) -> dict[str, int]:
    """Return {state: batches that have not ended}."""
    query = select(Batch.state, func.count()).where(Batch.state.in_(BATCH_OPEN)).group_by(Batch.state)
    return dict(session.execute(query).tuples().all())


def late_deliveries(session: Session, moment: datetime, *, grace_seconds: float) -> int:
    """Return how many events for receivers should have been delivered before the grace."""
    late = moment - timedelta(seconds=grace_seconds)
    query = select(func.count(Delivery.id)).where(Delivery.state == "due", Delivery.next_at < late)
    return session.scalar(query) or 0


def sqlite_modes(session: Session) -> tuple[str, int]:
    """Return (journal mode, synchronous level) of this SQLite connection; wanted are wal and 2."""
    journal = session.execute(text("PRAGMA journal_mode")).scalar_one()
    level = session.execute(text("PRAGMA synchronous")).scalar_one()
    return str(journal), int(level)
