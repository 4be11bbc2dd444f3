"""Repair by query, every few seconds, by whoever holds the leader row: lost leases, stalls, open ends, stale rows.

Two sweepers at once would only do harmless double work; the leader row saves the trouble.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from orchestrator import logs
from orchestrator.ledger import photos, webhooks
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import LEASED, UNENDED, BatchState, State, among
from orchestrator.ledger.queue import lifecycle, outcomes, workers
from orchestrator.ledger.tables.rows import Artifact, Attempt, Batch, Leader, Outbox, Stage
from orchestrator.pipelines import QUEUES
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
ROWS_PER_SWEEP = 200
OPEN = (BatchState.IN_PROGRESS, BatchState.CANCELLING)
CRASH_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 600.0
"""No rule lets work wait longer than this."""


@dataclass(kw_only=True)
class Swept:
    """What one sweep found."""

    leading: bool = False
    requeued: int = 0
    held: int = 0
    cancelled: int = 0
    closed: list[str] = field(default_factory=list)


@retrying
def lead(ledger: Ledger, *, holder: str, owner: str, seconds: float, name: str = "sweeper") -> bool:
    """Take or renew the leader lease; return whether this process leads now."""
    with ledger.write() as session:
        moment = now(session)
        dialect = sqlite if ledger.is_sqlite else postgresql
        fresh = {"holder": holder, "lease_until": moment + timedelta(seconds=seconds)}
        out_of_reach = moment + timedelta(seconds=2 * seconds)  # written before the clock was turned back
        taken = session.execute(
            dialect.insert(Leader)
            .values(name=name, owner=owner, **fresh)
            .on_conflict_do_update(
                index_elements=[Leader.name],
                set_=fresh,
                where=or_(Leader.holder == holder, ~Leader.lease_until.between(moment, out_of_reach)),
            )
            .returning(Leader.holder)
        ).first()
        return taken is not None


def led_until(session: Session) -> datetime | None:
    """Return until when a sweeper leads, or led last; None where none ever did."""
    return session.scalar(select(Leader.lease_until).where(Leader.name == "sweeper"))


@retrying
def sweep(ledger: Ledger, settings: Settings) -> Swept:
    """Requeue or hold what lost its worker, end what was cancelled, close what is done; return the counts."""
    swept = Swept(leading=True)
    with ledger.write() as session:
        moment = now(session)
        _follow_the_clock(session, settings, moment)
        dead = workers.dead_of_this_host(session)
        stalled = moment - timedelta(seconds=settings.stall_seconds)
        lost = session.scalars(
            select(Stage)
            .where(
                among(Stage.state, LEASED),
                or_(Stage.lease_until < moment, Stage.worker_id.in_(dead), Stage.progress_at < stalled),
            )
            .limit(ROWS_PER_SWEEP)
            .with_for_update(skip_locked=True)
        ).all()
        for stage in lost:
            # a row that cannot be mended keeps no other from it
            with logs.surviving("stage not recovered", stage=stage.id), session.begin_nested():
                _recover(session, stage, settings, moment, swept)
        workers.mark_gone(session, dead, moment)
        for batch_id in session.scalars(select(Batch.id).where(Batch.state.in_(OPEN))).all():
            with logs.surviving("batch not swept", batch=batch_id), session.begin_nested():
                photos.gather(session, batch_id, moment)
                if state := lifecycle.close_batch(session, batch_id, moment):
                    swept.closed.append(f"{batch_id} {state}")
                elif swept.held:
                    lifecycle.pause_hopeless(session, batch_id, moment)
    if lost:
        log.warning("leases lost", extra={"requeued": swept.requeued, "held": swept.held})
    return swept


def _follow_the_clock(session: Session, settings: Settings, moment: datetime) -> None:
    """Move times that a clock, since turned back, had put out of reach: work would wait until it has caught up."""
    latest = moment + timedelta(seconds=LONGEST_DELAY_SECONDS)
    # as the index has it, its own condition included
    waiting = and_(among(Stage.state, UNENDED), Stage.queue.in_(QUEUES), Stage.state == State.QUEUED)
    session.execute(update(Stage).where(waiting, Stage.next_at > latest).values(next_at=moment, hinted_at=None))
    session.execute(update(Outbox).where(Outbox.sent_at.is_(None), Outbox.next_at > latest).values(next_at=moment))
    webhooks.follow_the_clock(session, moment)
    lease = timedelta(seconds=settings.lease_seconds)
    out_of_reach = Stage.lease_until > moment + 2 * lease
    session.execute(
        update(Stage)
        .where(among(Stage.state, LEASED), out_of_reach)
        .values(lease_until=moment + lease, progress_at=moment)
    )


def _recover(session: Session, stage: Stage, settings: Settings, moment: datetime, swept: Swept) -> None:
    """Take a stage from a worker that is gone.

    A strike counts only against a stage that ran alone: of a group that died nobody can say who did it, so its
    members run one by one until each is cleared or convicted.
    """
    if stage.state == State.CANCELLING:
        outcomes.end_cancelled(session, Stage.id == stage.id, moment=moment)
        swept.cancelled += 1
        return
    group = session.scalar(select(Attempt.group_size).where(Attempt.stage_id == stage.id, Attempt.token == stage.token))
    crashes = stage.crashes + (1 if group == 1 else 0)
    held = crashes >= settings.max_crashes
    stalled = stage.progress_at is not None and stage.progress_at < moment - timedelta(seconds=settings.stall_seconds)
    code = "worker_stalled" if stalled else "worker_lost"
    sentence = (
        f"the worker stopped making progress for {settings.stall_seconds:.0f} s"
        if stalled
        else "the worker that held this item went away in the middle of it"
    ) + (f"; it was the only item it held, {crashes} times, so it is held for a person to look at" if held else "")
    session.execute(
        update(Attempt)
        .where(Attempt.stage_id == stage.id, Attempt.token == stage.token)
        .values(outcome="stalled" if stalled else "lost", ended_at=moment, error_code=code, error_message=sentence)
    )
    story = {"error_code": code, "error_message": sentence, "error_stage": stage.name, "error_attempt": stage.token}
    target = State.HELD if held else State.QUEUED
    ended = {"finished_at": moment} if held else {}
    lifecycle.move(
        session,
        target,
        Stage.id == stage.id,
        Stage.token == stage.token,
        of_item=story | ended,
        token=Stage.token + 1,
        crashes=crashes,
        alone=True,
        **lifecycle.FREE,
        hinted_at=None,
        next_at=moment + timedelta(seconds=CRASH_DELAY_SECONDS * crashes),
        **ended,
    )
    swept.held += held
    swept.requeued += not held


@retrying
def expired_artifacts(ledger: Ledger, limit: int = ROWS_PER_SWEEP) -> list[tuple[str, str]]:
    """Move artifacts past their time to `deleting`; return (id, key) of all whose bytes must go."""
    with ledger.write() as session:
        due = (
            select(Artifact.id)
            .where(Artifact.state.in_(("pending", "live")), Artifact.expires_at < now(session))
            .limit(limit)
        )
        session.execute(
            update(Artifact)
            .where(Artifact.id.in_(due))
            .values(state="deleting")
            .execution_options(synchronize_session=False)
        )
        rows = session.execute(select(Artifact.id, Artifact.key).where(Artifact.state == "deleting").limit(limit)).all()
    return [(row.id, row.key) for row in rows]


@retrying
def artifacts_deleted(ledger: Ledger, ids: list[str]) -> None:
    """Confirm that the bytes of these artifacts are gone; the rows stay as tombstones."""
    with ledger.write() as session:
        session.execute(
            update(Artifact).where(Artifact.id.in_(ids), Artifact.state == "deleting").values(state="deleted")
        )
