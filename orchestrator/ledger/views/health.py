"""Signs of trouble that a query can see: leases nobody sweeps, bytes nobody removes, effects nobody delivers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import and_, func, or_, select, text
from sqlalchemy.orm import Session

from orchestrator.errors import FpgaError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED, LEASED, BatchState, State, among
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, Leader, Outbox, Stage
from orchestrator.ledger.tables.rows_api import Delivery
from orchestrator.pipelines import QUEUES

Readiness = Literal["ok", "database", "sweeper", "queue"]


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
            select(func.count(Outbox.id)).where(Outbox.sent_at.is_(None), Outbox.next_at < late)
        )
        or 0,
        held_items=session.scalar(select(func.count(Item.id)).where(Item.state == "held")) or 0,
        leader_until=session.scalar(select(Leader.lease_until).where(Leader.name == "sweeper")),
    )


def readiness(ledger: Ledger, *, max_waiting: int) -> Readiness:
    """Say whether new work would be done: the schema is this code's, somebody sweeps, the queue is not over depth.

    Args:
        max_waiting: so many stages may wait, of all owners together; 0 sets no limit.
    """
    try:
        current, newest = schema.revisions(ledger)
        if current != newest:
            return "database"
        with ledger.read() as session:
            led_until = session.scalar(select(Leader.lease_until).where(Leader.name == "sweeper"))
            if led_until is None or led_until < now(session):
                return "sweeper"
            return "queue" if max_waiting and _waiting(session, max_waiting + 1) > max_waiting else "ok"
    except FpgaError:
        return "database"


def _waiting(session: Session, most: int) -> int:
    """Return how many stages wait, counted up to a bound."""
    some = select(Stage.id).where(Stage.state == "queued").limit(most).subquery()
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
    """Return {queue: stages that a worker could take now or holds}, for an autoscaler.

    Stages of paused batches are not among them, nor those that wait for a later try; what is in hands is, so that
    nobody takes a worker away from its work.
    """
    due = and_(Stage.state == "queued", Stage.next_at <= moment, Batch.state == "in_progress")
    query = (
        select(Stage.queue, func.count())
        .join(Batch, Batch.id == Stage.batch_id)
        .where(or_(due, among(Stage.state, LEASED)))
        .group_by(Stage.queue)
    )
    return dict(session.execute(query).tuples().all())


def open_batches(session: Session) -> dict[str, int]:
    """Return {state: batches that have not ended}."""
    query = select(Batch.state, func.count()).where(Batch.state.not_in(BATCH_ENDED)).group_by(Batch.state)
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
