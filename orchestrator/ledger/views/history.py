"""What the past tells: how long stages kept a worker busy, how long they waited, and what a batch has left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.contracts.portraits import PortraitParams
from orchestrator.ledger.engine.states import ENDED
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Stage

RECENT = 200


def busy_seconds(
    session: Session, name: str, *, preset: str, small_faces: str | None = None, limit: int = RECENT
) -> list[float]:
    """Return how long one item of this stage kept a worker busy, oldest first; a group shares its time.

    Members of a group end one by one, so its time is that of the last.

    Args:
        small_faces: only portraits that asked for this; those from before there was the choice kept theirs.
    """
    query = (
        select(Attempt.worker_id, Attempt.started_at, Attempt.ended_at, Attempt.group_size)
        .join(Stage, Stage.id == Attempt.stage_id)
        .join(Batch, Batch.id == Stage.batch_id)
        .where(Stage.name == name, Attempt.outcome == "completed", Batch.preset == preset)
        .order_by(Attempt.stage_id.desc())
        .limit(limit)
    )
    if small_faces is not None:
        asked = Item.params[PortraitParams.column_key("small_faces")].as_string()
        query = query.join(Item, Item.id == Stage.item_id).where(func.coalesce(asked, "keep") == small_faces)
    found = reversed(session.execute(query).tuples().all())
    tries = [((worker, began), ended, size) for worker, began, ended, size in found if ended is not None]
    last = {group: ended for group, ended, _ in sorted(tries)}
    return [(last[group] - group[1]).total_seconds() / size for group, _, size in tries]


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


def running_pace(session: Session, batch_id: str) -> dict[str, list[float]]:
    """Return seconds for each item by stage name, as the share that running stages have done so far suggests."""
    query = (
        select(Stage.name, Stage.started_at, Stage.progress_at, Stage.progress, Attempt.group_size)
        .join(Attempt, (Attempt.stage_id == Stage.id) & (Attempt.token == Stage.token))
        .where(Stage.batch_id == batch_id, Stage.state == "running", Stage.progress > 0)
    )
    pace: dict[str, list[float]] = {}
    for name, started, seen, share, group in session.execute(query).tuples():
        if started is not None and seen is not None:
            pace.setdefault(name, []).append(_seconds(started, seen) / share / group)
    return pace


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
