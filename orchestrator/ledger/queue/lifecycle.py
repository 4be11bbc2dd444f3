"""The one place that writes a state: conditional updates whose WHERE clause holds only the legal sources.

An update that matches no row is the answer "not any more", never an error by itself: callers decide what it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from orchestrator.ledger import audit, webhooks
from orchestrator.ledger.engine.states import BAD, ENDED, LEASED, STATES, sources
from orchestrator.ledger.queue import outbox
from orchestrator.ledger.tables.rows import Batch, Item, Stage

STOP_AFTER, FORGIVEN = "stop_after", "forgiven"
"""Options of a batch: so many items may go wrong before it pauses; how many of them a resume has forgiven."""
UNENDED = tuple(state for state in STATES if state not in ENDED)


def move_stages(session: Session, to: str, *where: ColumnElement[bool], **values: Any) -> Sequence[tuple[int, str]]:
    """Move the stages that match to state `to`; return (stage id, item id) of those that really moved."""
    statement = (
        update(Stage)
        .where(Stage.state.in_(sources(to)), *where)
        .values(state=to, **values)
        .returning(Stage.id, Stage.item_id)
        .execution_options(synchronize_session=False)
    )
    return [(row.id, row.item_id) for row in session.execute(statement)]


def move_items(session: Session, to: str, *where: ColumnElement[bool], **values: Any) -> Sequence[str]:
    """Move the items that match to state `to`; return the ids of those that really moved."""
    statement = (
        update(Item)
        .where(Item.state.in_(sources(to)), *where)
        .values(state=to, **values)
        .returning(Item.id)
        .execution_options(synchronize_session=False)
    )
    return list(session.scalars(statement))


def move_batch(session: Session, batch_id: str, to: str, **values: Any) -> bool:
    """Move one batch to state `to`; return whether it was in a state that allows it."""
    statement = (
        update(Batch)
        .where(Batch.id == batch_id, Batch.state.in_(sources(to, batch=True)))
        .values(state=to, **values)
        .returning(Batch.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).first() is not None


def close_batch(session: Session, batch_id: str, moment: datetime) -> str | None:
    """End the batch when no item of it waits for a worker; return the state it ended in, or None.

    Fan-in is this one query: no chord, no counter that could drift. It is asked at every end of an item, so the common
    answer "not yet" must not cost a walk over the batch.
    """
    unended = select(Item.id).where(Item.batch_id == batch_id, Item.state.in_(UNENDED)).limit(1)
    if session.scalar(unended):
        return None
    counts = dict(
        session.execute(select(Item.state, func.count()).where(Item.batch_id == batch_id).group_by(Item.state))
        .tuples()
        .all()
    )
    # a stage may still be held by a worker that has not confirmed its cancel
    if session.scalar(select(Stage.id).where(Stage.batch_id == batch_id, Stage.state.in_(LEASED)).limit(1)):
        return None
    batch = session.get_one(Batch, batch_id)
    if batch.open and batch.state != "cancelling":
        return None
    ended = _end_state(batch, counts)
    if not move_batch(session, batch_id, ended, finished_at=moment):
        return None
    outbox.add(session, batch.owner, "batch.ended", batch_id, {"state": ended, "counts": counts}, moment)
    told = {"batch_id": batch_id, "kind": batch.kind, "state": ended, "counts": counts}
    webhooks.announce(session, batch.owner, "batch.ended", told, moment)
    return ended


def pause_hopeless(session: Session, batch_id: str, moment: datetime) -> bool:
    """Pause a batch when as many items went wrong, since it last went on, as its submitter wants to bear.

    One broken setting fails a whole night's work otherwise, item by item. Nothing is lost: a resume goes on.
    """
    batch = session.get_one(Batch, batch_id)
    bearable = batch.options.get(STOP_AFTER)
    if bearable is None:
        return False
    wrong = count_wrong(session, batch_id)
    if wrong - batch.options.get(FORGIVEN, 0) < bearable:
        return False
    reason = f"{wrong} items went wrong; the batch was to stop after {bearable}. See its errors, then resume or cancel."
    if not move_batch(session, batch_id, "paused", paused_at=moment, reason=reason):
        return False
    audit.write(session, batch.owner, "batch.pause", batch_id, {"went_wrong": wrong, "stop_after": bearable}, moment)
    return True


def count_wrong(session: Session, batch_id: str) -> int:
    """Return how many items of a batch failed or are held."""
    wrong = select(func.count()).where(Item.batch_id == batch_id, Item.state.in_(BAD))
    return session.scalar(wrong) or 0


def _end_state(batch: Batch, counts: dict[str, int]) -> str:
    if batch.state == "cancelling":
        return "cancelled"
    bad = counts.get("failed", 0) + counts.get("held", 0) + len(batch.rejected_rows)
    if counts.get("cancelled", 0) and not counts.get("completed", 0) and not bad:
        return "cancelled"
    return "completed_with_errors" if bad or counts.get("cancelled", 0) else "completed"
