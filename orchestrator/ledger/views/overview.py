"""One owner's work at a glance: what went wrong lately, what each worker holds, how many bytes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from orchestrator.ledger.engine.states import BAD, LEASED, BatchState, State, among
from orchestrator.ledger.queue import reviews
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, Stage

RECENT = 20
"""So many batches are named."""
ENROLMENT = "enrol"


@dataclass(kw_only=True)
class Attention:
    """A batch with items that somebody should look at; `reasons` are (code, count, a message that says why)."""

    batch: Batch
    needs_review: int = 0
    rejected: int = 0
    reasons: list[tuple[str, int, str]] = field(default_factory=list)


def attention(session: Session, owner: str) -> list[Attention]:
    """Return the newest batches with failed, held, doubtful or rejected items.

    Left out are items that a person decided on, those that went wrong and were tried again since, and enrolments, which
    say on the page of their person how they ended.
    """
    bad = Item.state.in_(BAD)
    again, tried = aliased(Batch), aliased(Item)
    retried = (
        select(tried.id)
        .join(again, again.id == tried.batch_id)
        .where(again.parent_id == Item.batch_id, tried.custom_id == Item.custom_id)
        .exists()
    )
    wanted = or_(bad & ~retried, reviews.open_() & ~bad)
    looked = exists().where(Item.batch_id == Batch.id, wanted)
    recent = select(Batch).where(Batch.owner == owner, Batch.kind != ENROLMENT, looked)
    found = {
        batch.id: Attention(batch=batch)
        for batch in session.scalars(recent.order_by(Batch.created_at.desc(), Batch.id.desc()).limit(RECENT))
    }
    query = (
        select(Item.batch_id, bad, Item.verdict, Item.error_code, func.count(), func.min(Item.error_message))
        .where(Item.batch_id.in_(found), wanted)
        .group_by(Item.batch_id, bad, Item.verdict, Item.error_code)
        .order_by(func.count().desc())
    )
    for batch_id, went_wrong, verdict, code, count, message in session.execute(query).tuples():
        one = found[batch_id]
        if went_wrong:
            one.reasons.append((code or "unknown", count, message or ""))
        elif verdict == "rejected":
            one.rejected += count
        else:
            one.needs_review += count
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a worker works on: a stage of an item; items and batches of others have no name here."""

    stage: str
    count: int
    progress: float
    batch_id: str | None
    batch_name: str | None


def held(session: Session, owner: str, worker_ids: Sequence[str]) -> dict[str, list[Held]]:
    """Return what these workers hold now, by worker id."""
    query = (
        select(Stage.worker_id, Stage.name, Batch.owner, Batch.id, Batch.name, func.count(), func.avg(Stage.progress))
        .join(Batch, Batch.id == Stage.batch_id)
        .where(Stage.worker_id.in_(worker_ids), among(Stage.state, LEASED))
        .group_by(Stage.worker_id, Stage.name, Batch.owner, Batch.id, Batch.name)
    )
    found: dict[str, list[Held]] = {}
    for worker_id, stage, whose, batch_id, name, count, progress in session.execute(query).tuples():
        ours = whose == owner
        one = Held(
            stage=stage,
            count=count,
            progress=float(progress or 0.0),
            batch_id=batch_id if ours else None,
            batch_name=name if ours else None,
        )
        found.setdefault(worker_id or "", []).append(one)
    return found


@dataclass(frozen=True, kw_only=True)
class Line:
    """How many stages of one name wait and run in a lane."""

    lane: str
    stage: str
    waiting: int
    running: int


def stored(session: Session, owner: str) -> tuple[int, int]:
    """Return how many objects an owner has in the byte store, and their bytes."""
    query = select(func.count(), func.sum(Artifact.size)).where(Artifact.owner == owner, Artifact.state == "live")
    count, size = session.execute(query).tuples().one()
    return count, int(size or 0)


def waiting(session: Session, owner: str) -> list[Line]:
    """Return where an owner's open batches stand, by lane and stage."""
    query = (
        select(Batch.lane, Stage.name, Stage.state, func.count())
        .join(Batch, Batch.id == Stage.batch_id)
        .where(Batch.owner == owner, Batch.state == BatchState.IN_PROGRESS, Stage.state.in_((State.QUEUED, *LEASED)))
        .group_by(Batch.lane, Stage.name, Stage.state)
    )
    lines: dict[tuple[str, str], list[int]] = {}
    for lane, stage, state, count in session.execute(query).tuples():
        lines.setdefault((lane, stage), [0, 0])[state != State.QUEUED] += count
    return [
        Line(lane=lane, stage=stage, waiting=counts[0], running=counts[1])
        for (lane, stage), counts in sorted(lines.items())
    ]
