"""The one place that writes a state: conditional updates whose WHERE clause holds only the legal sources.

An update that matches no row is the answer "not any more", never an error by itself: callers decide what it means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Update, func, insert, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.base import Json, JsonObject
from orchestrator.contracts.batches import BatchOptions
from orchestrator.ledger import audit, webhooks
from orchestrator.ledger.engine.states import (
    BAD,
    LEASED,
    UNENDED,
    WAITING,
    BatchState,
    State,
    batch_sources,
    sources,
)
from orchestrator.ledger.queue import outbox
from orchestrator.ledger.tables.rows import Batch, Item, Stage
from orchestrator.pipelines import Place

NONE: Mapping[str, Any] = {}


class Taken(NamedTuple):
    """A stage that a worker has now."""

    id: int
    item_id: str
    token: int
    name: str
    round: int


class TakenItem(NamedTuple):
    """The item of a stage that a worker has now."""

    id: str
    owner: str
    position: int
    custom_id: str
    params: dict[str, Any]
    seed: int


FREE: dict[str, Any] = {"worker_id": None, "lease_until": None}
"""What a stage no longer has when nobody holds it."""


def move(
    session: Session, to: State, *where: ColumnElement[bool], of_item: Mapping[str, Any] = NONE, **values: Any
) -> Sequence[tuple[int, str]]:
    """Move the stages that match, and their items with them; return (stage id, item id) of those that really moved.

    Args:
        of_item: columns of the items to be set with it; `values` are columns of the stages.
    """
    moved = _move_stages(session, to, *where, **values)
    if moved:
        move_items(session, to, Item.id.in_([item_id for _, item_id in moved]), **of_item)
    return moved


def take(
    session: Session, to: State, *where: ColumnElement[bool], of_item: Mapping[str, Any], **values: Any
) -> tuple[Sequence[Taken], dict[str, TakenItem]]:
    """Do what `move` does and return what a worker must know of the stages that moved, and of their items by id."""
    moving = _moving(Stage, to, *where, **values)
    found = session.execute(moving.returning(Stage.id, Stage.item_id, Stage.token, Stage.name, Stage.round))
    stages = [Taken(*row) for row in found.tuples()]
    mine = Item.id.in_([stage.item_id for stage in stages])
    facts = (Item.id, Item.owner, Item.position, Item.custom_id, Item.params, Item.seed)
    rows = session.execute(_moving(Item, to, mine, **of_item).returning(*facts)).tuples() if stages else ()
    items = {row[0]: TakenItem(*row) for row in rows}
    if len(items) < len(stages):  # an item in a state that it cannot come from is worked on as it is
        items |= {row[0]: TakenItem(*row) for row in session.execute(select(*facts).where(mine)).tuples()}
    return stages, items


def complete_stages(session: Session, *where: ColumnElement[bool], **values: Any) -> set[int]:
    """Complete the stages that match and return their ids; where their items go from there, their pipelines say."""
    moved = _move_stages(session, State.COMPLETED, *where, progress=1.0, **FREE, **values)
    return {stage_id for stage_id, _ in moved}


def _move_stages(session: Session, to: State, *where: ColumnElement[bool], **values: Any) -> Sequence[tuple[int, str]]:
    return list(session.execute(_moving(Stage, to, *where, **values).returning(Stage.id, Stage.item_id)).tuples())


def move_items(session: Session, to: State, *where: ColumnElement[bool], **values: Any) -> Sequence[str]:
    """Move the items that match, none of whose stages moves now, to state `to`; return the ids of those that moved."""
    return list(session.scalars(_moving(Item, to, *where, **values).returning(Item.id)))


def _moving(table: type[Stage | Item], to: State, *where: ColumnElement[bool], **values: Any) -> Update:
    statement = update(table).where(table.state.in_(sources(to)), *where).values(state=to, **values)
    return statement.execution_options(synchronize_session=False)


def enqueue(
    session: Session, item_ids: Sequence[str], place: Place, *, batch_id: str, owner: str, moment: datetime
) -> None:
    """Add a stage to each of these items, ready to be claimed."""
    if not item_ids:
        return
    common = {
        "batch_id": batch_id,
        "owner": owner,
        "name": place.stage.name,
        "round": place.round,
        "ordinal": place.ordinal,
        "queue": place.stage.queue,
        "state": State.QUEUED,
        "next_at": moment,
        "queued_at": moment,
    }
    session.execute(insert(Stage), [{"item_id": item_id, **common} for item_id in item_ids])


def cancel(session: Session, stages: ColumnElement[bool], items: ColumnElement[bool], moment: datetime) -> None:
    """Cancel what waits among these stages and items at once, and ask whoever works on the others to stop."""
    ended = {"finished_at": moment}
    _move_stages(session, State.CANCELLED, stages, Stage.state.in_(WAITING), **ended)
    # by themselves, not with their stages: an item that waits for its batch has no open stage
    move_items(session, State.CANCELLED, items, Item.state.in_(WAITING), **ended)
    _move_stages(session, State.CANCELLING, stages)
    move_items(session, State.CANCELLING, items)


def cancel_batch(session: Session, batch_id: str, moment: datetime, *, reason: str | None = None) -> bool:
    """Begin to cancel a batch and all of it; return whether it was in a state that allows it."""
    if not move_batch(session, batch_id, BatchState.CANCELLING, reason=reason):
        return False
    cancel(session, Stage.batch_id == batch_id, Item.batch_id == batch_id, moment)
    close_batch(session, batch_id, moment)
    return True


def resume_batch(session: Session, batch: Batch, moment: datetime) -> bool:
    """Let a paused batch go on, and say so in the audit log; return whether it was paused."""
    changes: dict[str, Any] = {"paused_at": None, "reason": None}
    if BatchOptions.load(batch.options).stop_after is not None:
        changes["options"] = changed(batch, forgiven=count_wrong(session, batch.id))
    if batch.state != BatchState.PAUSED or not move_batch(session, batch.id, BatchState.IN_PROGRESS, **changes):
        return False
    audit.write(session, batch.owner, "batch.resume", batch.id, {}, moment)
    close_batch(session, batch.id, moment)
    return True


def move_batch(session: Session, batch_id: str, to: BatchState, **values: Any) -> bool:
    """Move one batch to state `to`; return whether it was in a state that allows it."""
    statement = (
        update(Batch)
        .where(Batch.id == batch_id, Batch.state.in_(batch_sources(to)))
        .values(state=to, **values)
        .returning(Batch.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).first() is not None


def close_batch(session: Session, batch_id: str, moment: datetime) -> BatchState | None:
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
    if batch.open and batch.state != BatchState.CANCELLING:
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
    options = BatchOptions.load(batch.options)
    bearable = options.stop_after
    if bearable is None:
        return False
    wrong = count_wrong(session, batch_id)
    if wrong - options.forgiven < bearable:
        return False
    reason = f"{wrong} items went wrong; the batch was to stop after {bearable}. See its errors, then resume or cancel."
    if not move_batch(session, batch_id, BatchState.PAUSED, paused_at=moment, reason=reason):
        return False
    audit.write(session, batch.owner, "batch.pause", batch_id, {"went_wrong": wrong, "stop_after": bearable}, moment)
    return True


def count_wrong(session: Session, batch_id: str) -> int:
    """Return how many items of a batch failed or are held."""
    wrong = select(func.count()).where(Item.batch_id == batch_id, Item.state.in_(BAD))
    return session.scalar(wrong) or 0


def _end_state(batch: Batch, counts: Mapping[str, int]) -> BatchState:
    if batch.state == BatchState.CANCELLING:
        return BatchState.CANCELLED
    bad = sum(counts.get(state, 0) for state in BAD) + len(batch.rejected_rows)
    cancelled = counts.get(State.CANCELLED, 0)
    if cancelled and not counts.get(State.COMPLETED, 0) and not bad:
        return BatchState.CANCELLED
    return BatchState.COMPLETED_WITH_ERRORS if bad or cancelled else BatchState.COMPLETED


def changed(batch: Batch, **options: Json) -> JsonObject:
    """Return the options of a batch with some of those that the queue heeds changed, the kind's own as they are."""
    assert options.keys() <= BatchOptions.model_fields.keys(), f"one of {sorted(options)} is not the queue's"
    return {**batch.options, **options}
