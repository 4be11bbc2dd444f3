"""What the past tells: how long stages ran, how long they waited, and what a batch has left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.ledger.engine.states import ENDED
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Stage


@dataclass(kw_only=True)
class StageTimes:
    """Seconds that finished stages of one name waited and ran, by item."""

    queue: list[float] = field(default_factory=list)
    run: list[float] = field(default_factory=list)


def stage_times(session: Session, batch_id: str) -> dict[str, StageTimes]:
    """Return waiting and running times of the finished stages of a batch, by stage name in the order of the pipeline.

    What was lost to failed attempts counts as waiting: running is only the attempt that succeeded.
    """
    times: dict[str, StageTimes] = {}
    query = (
        select(Stage.name, Stage.queued_at, Stage.started_at, Stage.finished_at)
        .where(Stage.batch_id == batch_id, Stage.state == "completed")
        .order_by(Stage.ordinal, Stage.id)
    )
    for name, queued, started, finished in session.execute(query).tuples():
        if started is not None and finished is not None:
            of_stage = times.setdefault(name, StageTimes())
            of_stage.queue.append(_seconds(queued, started))
            of_stage.run.append(_seconds(started, finished))
    return times


@dataclass(frozen=True, kw_only=True)
class OpenStage:
    """Items of a batch that stand at one stage now; `progress` is the sum of their shares in [0, 1]."""

    name: str
    state: str
    count: int
    progress: float


def open_stages(session: Session, batch_id: str) -> Sequence[OpenStage]:
    """Return where the items of a batch stand that have not ended."""
    query = (
        select(Stage.name, Stage.state, func.count(), func.sum(Stage.progress))
        .where(Stage.batch_id == batch_id, Stage.state.not_in(ENDED))
        .group_by(Stage.name, Stage.state)
        .order_by(Stage.name, Stage.state)
    )
    return [
        OpenStage(name=name, state=state, count=count, progress=float(progress or 0.0) if state == "running" else 0.0)
        for name, state, count, progress in session.execute(query).tuples()
    ]


def run_seconds(session: Session, batch_id: str) -> dict[str, float]:
    """Return how long the finished stages of each item ran, waiting left out, by item id."""
    query = select(Stage.item_id, Stage.started_at, Stage.finished_at).where(
        Stage.batch_id == batch_id, Stage.state == "completed"
    )
    ran: dict[str, float] = {}
    for item_id, started, finished in session.execute(query).tuples():
        if started is not None and finished is not None:
            ran[item_id] = ran.get(item_id, 0.0) + _seconds(started, finished)
    return ran


def queued_ahead(session: Session) -> int:
    """Return how many items of open batches wait or run now."""
    query = (
        select(func.count())
        .select_from(Item)
        .join(Batch, Batch.id == Item.batch_id)
        .where(Batch.state == "in_progress", Item.state.not_in(ENDED))
    )
    return session.scalar(query) or 0


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())


def spans(session: Session, batch_id: str) -> list[tuple[datetime, datetime]]:
    """Return (claimed, recorded) of every completed attempt of a batch, in the order they were recorded."""
    query = (
        select(Attempt.started_at, Attempt.ended_at)
        .join(Stage, Stage.id == Attempt.stage_id)
        .where(Stage.batch_id == batch_id, Attempt.outcome == "completed")
        .order_by(Attempt.ended_at)
    )
    return [(began, ended) for began, ended in session.execute(query).tuples() if ended is not None]
