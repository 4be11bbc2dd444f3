"""What is held for a person to look at, having ended its worker again and again: tried again, or given up."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator import pipelines
from orchestrator.errors import ConflictError
from orchestrator.ledger import audit
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BATCH_ENDED, BatchState, State
from orchestrator.ledger.queue import batches, lifecycle
from orchestrator.ledger.tables.rows import Batch, Item, Stage


@retrying
def release(ledger: Ledger, owner: str, batch_id: str, *, reason: str, item_id: str | None = None) -> Sequence[str]:
    """Let held items of a batch, or one of them, be tried again, each by itself; return their ids.

    A batch that had ended goes on. Strikes are forgotten: an item that ends its worker three more times is held again.

    Args:
        reason: why; kept in the audit log for good, so it must name nobody.

    Raises:
        ConflictError: nothing of it is held, or the batch has ended and cannot go on; retry it.
    """
    with ledger.write() as session:
        moment = now(session)
        batch = batches.get(session, owner, batch_id)
        held = _held(session, batch, item_id)
        ended = batch.state in BATCH_ENDED
        if ended and not pipelines.of(batch.kind).reopens:
            raise ConflictError(f"batch {batch.id} has ended as {batch.state}; retry it", code="batch_ended")
        late = _after_gathering(session, batch)
        moved = lifecycle.move(
            session,
            State.QUEUED,
            Stage.item_id.in_(held),
            Stage.state == State.HELD,
            *((Stage.ordinal > 0,) if late else ()),
            of_item={"finished_at": None},
            crashes=0,
            alone=True,
            finished_at=None,
            hinted_at=None,
            next_at=moment,
            queued_at=moment,
        )
        released = [item for _, item in moved]
        if not released:
            raise ConflictError(
                f"batch {batch.id}: the people of its archive were brought together without these photos; retry it",
                code="batch_ended",
            )
        if ended:
            lifecycle.move_batch(session, batch.id, BatchState.IN_PROGRESS, finished_at=None)
        for one in released:
            audit.write(session, owner, "item.release", one, {"batch": batch.id, "reason": reason}, moment)
        return released


@retrying
def reject(ledger: Ledger, owner: str, batch_id: str, *, reason: str, item_id: str | None = None) -> Sequence[str]:
    """Give held items of a batch, or one of them, up for good, as cancelled; return their ids.

    Args:
        reason: as in `release`.

    Raises:
        ConflictError: nothing of it is held.
    """
    with ledger.write() as session:
        moment = now(session)
        batch = batches.get(session, owner, batch_id)
        held = _held(session, batch, item_id)
        moved = lifecycle.move(session, State.CANCELLED, Stage.item_id.in_(held), Stage.state == State.HELD)
        rejected = [item for _, item in moved]
        for one in rejected:
            audit.write(session, owner, "item.reject", one, {"batch": batch.id, "reason": reason}, moment)
        return rejected


def _held(session: Session, batch: Batch, item_id: str | None) -> Sequence[str]:
    """Return the held items of a batch, or the one that is asked for.

    Raises:
        ConflictError: there is none.
    """
    query = select(Item.id).where(Item.batch_id == batch.id, Item.state == State.HELD).order_by(Item.position)
    found = session.scalars(query.where(Item.id == item_id) if item_id else query).all()
    if not found:
        what = f"item {item_id} is not held" if item_id else f"no item of batch {batch.id} is held"
        raise ConflictError(what, code="nothing_held")
    return found


def _after_gathering(session: Session, batch: Batch) -> bool:
    """Say whether the faces of an archive were brought together already: a photo not looked at would wait for ever."""
    gathering = pipelines.of(batch.kind).gathering
    if gathering is None:
        return False
    gathered = Stage.batch_id == batch.id, Stage.name == gathering.name, Stage.state == State.COMPLETED
    return session.scalar(select(Stage.id).where(*gathered).limit(1)) is not None
