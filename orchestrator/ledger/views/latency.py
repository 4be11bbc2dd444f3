"""How long people waited lately, by lane: for the first picture of a batch, for an item, for a person to be added."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select, union_all
from sqlalchemy.orm import Session

from orchestrator import pipelines
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.queue.claims import LANES
from orchestrator.ledger.tables.rows import Batch, Item, Stage

LOOKED_BACK = 300
EACH_LANE = 12
"""So many of the newest batches of a lane are asked, with so many of their first items and pictures."""
FIRST = 8


@dataclass(kw_only=True)
class Latency:
    """Seconds that were waited in a lane, of the newest batches: one figure for each batch or item."""

    lane: str
    first_picture: list[float] = field(default_factory=list)
    """From the submit of a batch to its first picture."""
    item: list[float] = field(default_factory=list)
    """From the moment in which a worker took an item up to its end."""
    enrolment: list[float] = field(default_factory=list)
    """From the submit of pictures of a person to the end of looking at them."""

    @property
    def medians(self) -> dict[str, float]:
        """The middle of each figure that there is."""
        found = {"first_picture": self.first_picture, "item": self.item, "enrolment": self.enrolment}
        return {name: statistics.median(values) for name, values in found.items() if values}


def lately(session: Session, owner: str | None = None) -> list[Latency]:
    """Return what was waited in each lane that was used lately, of one owner or of everybody, at a bounded cost."""
    newest = select(Batch).order_by(Batch.id.desc()).limit(LOOKED_BACK)
    if owner is not None:
        newest = newest.where(Batch.owner == owner)
    lanes = {lane: Latency(lane=lane) for lane in LANES}
    asked: dict[str, list[Batch]] = {lane: [] for lane in LANES}
    for batch in session.scalars(newest):
        if batch.lane not in asked or batch.started_at is None:
            continue
        if batch.kind == "enrol" and batch.finished_at is not None:
            lanes[batch.lane].enrolment.append(_seconds(batch.created_at, batch.finished_at))
        elif pipelines.of(batch.kind).pictured and len(asked[batch.lane]) < EACH_LANE:
            asked[batch.lane].append(batch)
    for lane, batches in asked.items():
        lanes[lane].first_picture += _first_pictures(session, batches)
        lanes[lane].item += _items(session, batches)
    return [one for one in lanes.values() if one.medians]


def _first_pictures(session: Session, batches: Sequence[Batch]) -> list[float]:
    submitted = {batch.id: batch.created_at for batch in batches}
    firsts = [
        select(
            select(Stage.batch_id, Stage.finished_at)
            .where(
                Stage.batch_id == batch.id,
                Stage.queue == place.stage.queue,
                Stage.state == State.COMPLETED,
                Stage.alone.is_(False),
                Stage.ordinal == place.ordinal,
            )
            .order_by(Stage.id)
            .limit(FIRST)
            .subquery()
        )
        for batch in batches
        for stage in pipelines.of(batch.kind).stages
        if stage.draws
        for place in (pipelines.of(batch.kind).place(stage.name),)
    ]
    found: dict[str, float] = {}
    for batch_id, finished in session.execute(union_all(*firsts)).tuples() if firsts else ():
        seconds = _seconds(submitted[batch_id], finished)
        found[batch_id] = min(seconds, found.get(batch_id, seconds))
    return list(found.values())


def _items(session: Session, batches: Sequence[Batch]) -> list[float]:
    some = [
        select(
            select(Item.started_at, Item.finished_at)
            .where(Item.batch_id == batch.id, Item.state == State.COMPLETED)
            .limit(FIRST)
            .subquery()
        )
        for batch in batches
    ]
    found = session.execute(union_all(*some)).tuples() if some else ()
    return [_seconds(began, ended) for began, ended in found if began is not None and ended is not None]


def _seconds(began: datetime, ended: datetime) -> float:
    return (ended - began).total_seconds()
