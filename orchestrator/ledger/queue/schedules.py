"""Schedules in the ledger: rows, and what became of each of their times. When and what is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from orchestrator.contracts.base import JsonObject
from orchestrator.errors import FpgaError, NotFoundError
from orchestrator.ledger import audit, webhooks
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.tables.rows_schedules import Schedule, ScheduleRun

KEPT_RUNS = 200
"""So many of the newest runs of a schedule are kept."""


def get(session: Session, owner: str, kind: str, name: str) -> Schedule:
    """Return a schedule.

    Raises:
        NotFoundError: this owner has none of this name.
    """
    found = session.scalars(_named(owner, kind, name)).first()
    if found is None:
        raise NotFoundError(f"there is no schedule {name!r}; see `fpga schedule list`", code="schedule_not_found")
    return found


def find(session: Session, owner: str, kind: str, name: str) -> Schedule | None:
    """Return a schedule, or None."""
    return session.scalars(_named(owner, kind, name)).first()


def listing(session: Session, owner: str | None = None, kind: str | None = None) -> Sequence[Schedule]:
    """Return schedules by name: of one owner or all, of one kind or all."""
    query = select(Schedule).order_by(Schedule.name)
    if owner is not None:
        query = query.where(Schedule.owner == owner)
    return session.scalars(query.where(Schedule.kind == kind) if kind else query).all()


def last_run(session: Session, schedule_id: str) -> ScheduleRun | None:
    """Return what became of the newest time that was not passed over as missed."""
    query = select(ScheduleRun).where(ScheduleRun.schedule_id == schedule_id, ScheduleRun.outcome != "missed")
    return session.scalars(query.order_by(ScheduleRun.at.desc(), ScheduleRun.due_at.desc()).limit(1)).first()


def runs(session: Session, schedule_id: str, limit: int = 20) -> Sequence[ScheduleRun]:
    """Return what became of the newest times, newest first."""
    query = select(ScheduleRun).where(ScheduleRun.schedule_id == schedule_id)
    return session.scalars(query.order_by(ScheduleRun.due_at.desc()).limit(limit)).all()


def dealt_with(session: Session, schedule_id: str) -> set[datetime]:
    """Return the times of which it is known what became of them."""
    return set(session.scalars(select(ScheduleRun.due_at).where(ScheduleRun.schedule_id == schedule_id)))


def waiting(session: Session, schedule_id: str) -> ScheduleRun | None:
    """Return the newest time that waits for the run before it to end, or None."""
    query = select(ScheduleRun).where(ScheduleRun.schedule_id == schedule_id, ScheduleRun.outcome == "waiting")
    return session.scalars(query.order_by(ScheduleRun.due_at.desc()).limit(1)).first()


def unended(session: Session, schedule_id: str) -> Batch | None:
    """Return the newest batch that a schedule made and that has not ended, or None."""
    query = (
        select(Batch)
        .join(ScheduleRun, ScheduleRun.batch_id == Batch.id)
        .where(ScheduleRun.schedule_id == schedule_id, Batch.state.not_in(BATCH_ENDED))
    )
    return session.scalars(query.order_by(Batch.created_at.desc()).limit(1)).first()


def refers_to(session: Session, key: str) -> bool:
    """Whether any schedule stands on these bytes."""
    return key in keys(session)


def keys(session: Session) -> dict[str, str]:
    """Return the store keys that schedules stand on, each with the name of one of them."""
    found = session.scalars(select(Schedule).where(Schedule.kind == "portraits"))
    return {str(row.task.get("key")): row.name for row in found if isinstance(row.task, dict)}


@retrying
def put(
    ledger: Ledger,
    *,
    owner: str,
    kind: str,
    name: str,
    cron: str,
    timezone: str,
    catch_up: str,
    overlap: str,
    task: JsonObject,
) -> bool:
    """Write a schedule, or change the one of this name; return whether it is new. Its times count from now."""
    with ledger.write() as session:
        moment = now(session)
        row = session.scalars(_named(owner, kind, name)).first()
        fresh = row is None
        if row is None:
            row = Schedule(id=new_id("sch"), owner=owner, kind=kind, name=name, created_at=moment, looked_at=moment)
            session.add(row)
        timing = (row.cron, row.timezone)
        row.cron, row.timezone, row.catch_up, row.overlap = cron, timezone, catch_up, overlap
        row.task, row.active = task, True
        if timing != (cron, timezone):
            row.looked_at = moment
        session.flush()
        audit.write(session, owner, "schedule.add" if fresh else "schedule.change", row.id, {"name": name}, moment)
        return fresh


@retrying
def rewrite(ledger: Ledger, schedule_id: str, task: JsonObject, *, active: bool) -> None:
    """Let a schedule stand on another manifest, one without somebody who was erased, or stand still."""
    with ledger.write() as session:
        row = session.get(Schedule, schedule_id, with_for_update=True)
        if row is not None:
            row.task, row.active = task, active
            audit.write(session, row.owner, "schedule.forget", row.id, {"active": active}, now(session))


@retrying
def remove(ledger: Ledger, owner: str, kind: str, name: str) -> JsonObject:
    """Remove a schedule with what became of its times, and return its task; batches that it made stay.

    Raises:
        NotFoundError: this owner has none of this name.
    """
    with ledger.write() as session:
        row = get(session, owner, kind, name)
        task = dict(row.task)
        session.execute(delete(ScheduleRun).where(ScheduleRun.schedule_id == row.id))
        session.delete(row)
        audit.write(session, owner, "schedule.remove", row.id, {"name": name}, now(session))
        return task


@retrying
def looked(ledger: Ledger, schedule_id: str, until: datetime, missed: Sequence[datetime] = ()) -> None:
    """Note up to when the times of a schedule are dealt with, and which of them were passed over."""
    with ledger.write() as session:
        row = session.get(Schedule, schedule_id, with_for_update=True)
        if row is None:
            return
        row.looked_at = until
        moment = now(session)
        known = set(
            session.scalars(
                select(ScheduleRun.due_at).where(
                    ScheduleRun.schedule_id == schedule_id, ScheduleRun.due_at.in_(missed[-KEPT_RUNS:])
                )
            )
        )
        for due_at in missed[-KEPT_RUNS:]:
            if due_at not in known:
                session.add(_run(row, due_at, "missed", moment))


@retrying
def note(
    ledger: Ledger,
    schedule_id: str,
    due_at: datetime,
    outcome: str,
    *,
    batch_id: str | None = None,
    error: FpgaError | None = None,
) -> None:
    """Write what became of one time; a failure is told to the owner's receivers of events."""
    with ledger.write() as session:
        row = session.get(Schedule, schedule_id)
        if row is None:
            return
        moment = now(session)
        same = ScheduleRun.schedule_id == schedule_id, ScheduleRun.due_at == due_at
        run = session.scalars(select(ScheduleRun).where(*same)).first()
        if run is None:
            run = _run(row, due_at, outcome, moment)
            session.add(run)
        run.outcome, run.at, run.batch_id = outcome, moment, batch_id
        run.code, run.message = (error.code, error.message) if error else (None, None)
        session.flush()
        old = session.scalars(
            select(ScheduleRun.id)
            .where(ScheduleRun.schedule_id == schedule_id)
            .order_by(ScheduleRun.due_at.desc())
            .offset(KEPT_RUNS)
        ).all()
        session.execute(delete(ScheduleRun).where(ScheduleRun.id.in_(old)))
        if outcome == "failed" and error is not None:
            told = {"schedule": row.name, "kind": row.kind, "due_at": due_at.isoformat(), "error": error.as_json()}
            webhooks.announce(session, row.owner, "schedule.failed", told, moment)


def failing(session: Session) -> int:
    """Return how many active schedules failed at their newest time."""
    newest = (
        select(ScheduleRun.schedule_id, func.max(ScheduleRun.due_at).label("due_at"))
        .where(ScheduleRun.outcome.not_in(("missed", "skipped")))
        .group_by(ScheduleRun.schedule_id)
        .subquery()
    )
    query = (
        select(func.count())
        .select_from(ScheduleRun)
        .join(newest, (newest.c.schedule_id == ScheduleRun.schedule_id) & (newest.c.due_at == ScheduleRun.due_at))
        .where(ScheduleRun.outcome == "failed")
    )
    return session.scalar(query) or 0


def _run(row: Schedule, due_at: datetime, outcome: str, moment: datetime) -> ScheduleRun:
    return ScheduleRun(id=new_id("srn"), schedule_id=row.id, owner=row.owner, due_at=due_at, outcome=outcome, at=moment)


def _named(owner: str, kind: str, name: str) -> Select[tuple[Schedule]]:
    return select(Schedule).where(Schedule.owner == owner, Schedule.kind == kind, Schedule.name == name)
