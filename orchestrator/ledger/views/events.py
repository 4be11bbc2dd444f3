"""What happened to batches and items, read out of their rows: no queue of events besides the ledger.

A place in a stream is (moment, id). An item or a batch happens when it ends, and an item also when its picture is
drawn, before anything was said of it. On PostgreSQL a row may become visible a
little after the moment it carries, so what is younger than SETTLED waits for the next look; on SQLite writers come one
after the other and nothing waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, String, and_, cast, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from orchestrator.ledger.engine.session import now
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.tables.rows import Batch, Item, Stage
from orchestrator.pipelines import DRAWING

SETTLED = timedelta(seconds=2)
PAGE = 500
DRAWN = "d"
"""Before the id of a stage that drew: what is drawn is told before the end of its item."""
LAST = "z"
"""Before the id of a batch: it ends in the moment of its last item, and is told after it."""
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Where a reader of a stream stands."""

    moment: datetime = BEGINNING
    id: str = ""

    def __str__(self) -> str:
        """Return it as the id of an event."""
        return f"{round((self.moment - BEGINNING) / timedelta(microseconds=1))}.{self.id}"

    @classmethod
    def of(cls, text: str) -> Place | None:
        """Return the place that an id of an event tells, or None if it is none of ours."""
        micros, _, row_id = text.partition(".")
        if not micros.isascii() or not micros.isdigit() or len(micros) > 17 or len(row_id) > 40:
            return None
        return cls(moment=BEGINNING + timedelta(microseconds=int(micros)), id=row_id)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event: its place, its name, and the row it is about."""

    place: Place
    name: str
    row: Item | Batch
    stage: Stage | None = None
    """Which stage of the item drew."""


def since(
    session: Session, owner: str, after: Place, *, batch_id: str | None = None, limit: int = PAGE
) -> Sequence[Event]:
    """Return what ended behind a place, in order: items of a batch and the batch, or batches of an owner."""
    horizon = now(session)
    if session.get_bind().dialect.name != "sqlite":
        horizon -= SETTLED
    batches = select(Batch).where(
        Batch.owner == owner, *_behind(Batch.finished_at, literal(LAST).concat(Batch.id), after, horizon)
    )
    if batch_id is not None:
        batches = batches.where(Batch.id == batch_id)
    found: list[Event] = [
        Event(place=Place(moment=row.finished_at or horizon, id=LAST + row.id), name="batch.ended", row=row)
        for row in session.scalars(batches.order_by(Batch.finished_at, Batch.id).limit(limit))
    ]
    if batch_id is not None:
        items = select(Item).where(Item.batch_id == batch_id, *_behind(Item.finished_at, Item.id, after, horizon))
        found += [
            Event(place=Place(moment=row.finished_at or horizon, id=row.id), name="item.ended", row=row)
            for row in session.scalars(items.order_by(Item.finished_at, Item.id).limit(limit))
        ]
        drawing = select(Stage, Item).join(Item, Item.id == Stage.item_id)
        drawing = drawing.where(Stage.batch_id == batch_id, Stage.state == State.COMPLETED)
        named = literal(DRAWN).concat(cast(Stage.id, String))
        drawing = drawing.where(Stage.name.in_(DRAWING), *_behind(Stage.finished_at, named, after, horizon))
        found += [
            Event(
                place=Place(moment=stage.finished_at or horizon, id=f"{DRAWN}{stage.id}"),
                name="item.drawn",
                row=row,
                stage=stage,
            )
            for stage, row in session.execute(drawing.order_by(Stage.finished_at, named).limit(limit)).tuples()
        ]
    found.sort(key=lambda one: one.place)
    return found[:limit]


def _behind(
    column: InstrumentedAttribute[datetime | None],
    row_id: ColumnElement[str] | InstrumentedAttribute[str],
    after: Place,
    horizon: datetime,
) -> tuple[Any, ...]:
    later = or_(column > after.moment, and_(column == after.moment, row_id > after.id))
    return column.is_not(None), column <= horizon, later
