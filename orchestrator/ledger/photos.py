"""Photos in the ledger: what their stages said, whom they show, and the one point where a whole archive comes together.

A photo is an item whose stages are ingest_photo, restore, score_photo, publish_photo. Where people of an archive are
known by nothing but their faces, items wait after the first until all of them were looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import delete, exists, func, literal, select, update
from sqlalchemy.orm import Session, aliased

from orchestrator import pipelines
from orchestrator.contracts.base import StageResult
from orchestrator.contracts.datasets import ChunkParams
from orchestrator.contracts.people import Enrolled
from orchestrator.contracts.photos import (
    Grouped,
    Ingested,
    Original,
    PhotoOptions,
    PhotoParams,
    Published,
    Restored,
    ScoredPhoto,
)
from orchestrator.errors import ConsentError
from orchestrator.ledger import stage_results
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BatchState, State
from orchestrator.ledger.queue import lifecycle, outbox
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import Batch, Identity, Item, ItemIdentity, Leader, Outbox, Stage
from orchestrator.ledger.tables.rows_photos import ArchivePerson
from orchestrator.pipelines import Pipeline

R = TypeVar("R", bound=StageResult)
KIND = "restore"
SCAN = "scan"
READ = (KIND, SCAN)
"""Kinds of batches that are read from an archive."""
SERVE = "archive.serve"
"""Kind of the effect that asks the sweeper to read a batch's source and to write what is finished of it."""
RESULTS: dict[type[StageResult], str] = {
    Enrolled: "ingest",
    Ingested: "ingest_photo",
    Restored: "restore",
    ScoredPhoto: "score_photo",
    Published: "publish_photo",
    Grouped: "group_faces",
}
"""Which stage gives which result."""
GONE = (State.FAILED, State.CANCELLED, State.HELD)


def said(session: Session, item_id: str, kind: type[R]) -> R | None:
    """Return the result of the finished stage of an item that gives such, or None."""
    result = session.scalars(
        select(Stage.result)
        .where(Stage.item_id == item_id, Stage.name == RESULTS[kind], Stage.state == State.COMPLETED)
        .order_by(Stage.id.desc())
        .limit(1)
    ).first()
    return None if result is None else kind.load(result)


def ingested(session: Session, batch_id: str) -> list[tuple[str, Ingested]]:
    """Return (item id, what ingest found) of every photo of a batch that was looked at, in the order of the archive."""
    query = (
        select(Item.id, Stage.result)
        .join(Stage, Stage.item_id == Item.id)
        .where(Item.batch_id == batch_id, Stage.name == "ingest_photo", Stage.state == State.COMPLETED)
        .order_by(Item.position)
    )
    return [(i, Ingested.load(result)) for i, result in session.execute(query).tuples() if result is not None]


def people(session: Session, batch_id: str) -> Sequence[ArchivePerson]:
    """Return the people of an archive that were brought together from their faces."""
    return session.scalars(
        select(ArchivePerson).where(ArchivePerson.batch_id == batch_id).order_by(ArchivePerson.number)
    ).all()


def feed_lease(batch_id: str) -> str:
    """Return the name of the lease of whoever reads the source of a batch."""
    return f"feed:{batch_id}"


@retrying
def end_feeding(ledger: Ledger, batch_id: str, holder: str) -> None:
    """Give up the lease on a source, if this holder has it."""
    with ledger.write() as session:
        session.execute(delete(Leader).where(Leader.name == feed_lease(batch_id), Leader.holder == holder))


def to_serve(session: Session) -> Sequence[Batch]:
    """Return the batches whose source the sweeper is to read, or whose photos it is to write somewhere."""
    query = (
        select(Batch)
        .join(Outbox, Outbox.ref == Batch.id)
        .where(Outbox.kind == SERVE, Outbox.sent_at.is_(None))
        .order_by(Outbox.next_at, Outbox.id)
    )
    return session.scalars(query).all()


def neglected(session: Session, before: datetime) -> int:
    """Return how many sources the sweeper was to read since before that time and nobody does now."""
    held = select(Leader.name).where(Leader.name == literal("feed:").concat(Batch.id), Leader.lease_until > before)
    query = (
        select(func.count(Outbox.id))
        .join(Batch, Outbox.ref == Batch.id)
        .where(Outbox.kind == SERVE, Outbox.sent_at.is_(None), Outbox.created_at < before)
        .where(Batch.open.is_(True), Batch.state == BatchState.IN_PROGRESS, ~held.exists())
    )
    return session.scalar(query) or 0


@retrying
def adopt(ledger: Ledger) -> int:
    """Ask the sweeper to read the archives that flows read before it did; return how many those are."""
    with ledger.write() as session:
        moment = now(session)
        alive = Batch.state.in_((BatchState.IN_PROGRESS, BatchState.PAUSED))
        asked = select(Outbox.id).where(Outbox.kind == SERVE, Outbox.ref == Batch.id)
        here = Batch.kind.in_(READ), Batch.open.is_(True), alive, Batch.flow_run_id.is_not(None), ~asked.exists()
        found = [one for one in session.scalars(select(Batch).where(*here)) if PhotoOptions.load(one.options).source]
        for batch in found:
            outbox.add(session, batch.owner, SERVE, batch.id, {"kind": batch.kind}, moment)
    return len(found)


@retrying
def served(ledger: Ledger, batch_id: str, problem: str | None = None) -> None:
    """Note that there is no more to do for an archive, and with which problem that ended."""
    with ledger.write() as session:
        batch = session.get_one(Batch, batch_id, with_for_update=True, populate_existing=True)
        of = Outbox.kind == SERVE, Outbox.ref == batch_id, Outbox.sent_at.is_(None)
        session.execute(update(Outbox).where(*of).values(sent_at=now(session)))
        if problem is not None:
            batch.reason = problem[:500]


def shown(session: Session, item_id: str) -> list[str]:
    """Return the people of the library whom an item shows."""
    return list(session.scalars(select(ItemIdentity.identity_id).where(ItemIdentity.item_id == item_id)))


@retrying
def link(ledger: Ledger, c: Claim, identities: Sequence[str], keys: Sequence[str]) -> None:
    """Write down, before anything is made of them, that an item and kept results show these people.

    An erase that comes later finds the item and stops it; one that came before is noticed here.

    Raises:
        ConsentError: one of them was erased.
    """
    if not identities:
        return
    with ledger.write() as session:
        living = set(
            session.scalars(select(Identity.id).where(Identity.id.in_(identities), Identity.erased_at.is_(None)))
        )
        if gone := set(identities) - living:
            raise ConsentError(f"identity {min(gone)} was erased", identity=min(gone))
        for identity_id in dict.fromkeys(identities):
            session.merge(ItemIdentity(item_id=c.item_id, identity_id=identity_id, owner=c.owner))
        stage_results.show(session, c.owner, keys, identities)


def gather(session: Session, batch_id: str, moment: datetime) -> None:
    """Queue the one stage that brings the faces of an archive together, once nothing of it is still to be looked at."""
    batch = session.get_one(Batch, batch_id)
    if batch.kind != KIND or batch.open or not PhotoOptions.load(batch.options).gathers():
        return
    pipeline = pipelines.of(KIND)
    gathering = pipeline.gathering
    assert gathering is not None, "the photos of an archive are brought together"
    others = aliased(Stage)
    unfinished = select(others.id).where(
        others.batch_id == batch_id,
        (others.name == pipeline.names[0]) & others.state.not_in((State.COMPLETED, *GONE))
        | (others.name == gathering.name) & others.state.not_in(GONE),
    )
    if session.scalar(unfinished.limit(1)):
        return
    if first := waiting(session, batch_id, pipeline)[:1]:
        place = pipeline.place(gathering.name)
        lifecycle.enqueue(session, first, place, batch_id=batch_id, owner=batch.owner, moment=moment)


def artifacts_of(session: Session, item_ids: Sequence[str]) -> set[str]:
    """Return the artifacts of these items beside their outputs: originals, what stages stored, previews."""
    found: set[str] = set()
    original = Item.params[PhotoParams.column_key("original")][Original.column_key("artifact_id")].as_string()
    found |= set(session.scalars(select(original).where(Item.id.in_(item_ids), original.is_not(None))))
    chunk = Item.params[ChunkParams.column_key("input_artifact")].as_string()
    found |= set(session.scalars(select(chunk).where(Item.id.in_(item_ids), chunk.is_not(None))))
    for result in session.scalars(select(Stage.result).where(Stage.item_id.in_(item_ids))):
        found |= set(StageResult.load(result or {}).artifacts)
    return found


def originals(session: Session, item_ids: Sequence[str]) -> set[str]:
    """Return the artifacts of the source photos of these items."""
    original = Item.params[PhotoParams.column_key("original")][Original.column_key("artifact_id")].as_string()
    return set(session.scalars(select(original).where(Item.id.in_(item_ids), original.is_not(None))))


def made_of(session: Session, owner: str, artifact_ids: Collection[str]) -> Sequence[str]:
    """Return an owner's items that are made of these source photos."""
    original = Item.params[PhotoParams.column_key("original")][Original.column_key("artifact_id")].as_string()
    return session.scalars(select(Item.id).where(Item.owner == owner, original.in_(artifact_ids))).all()


def waiting(session: Session, batch_id: str, pipeline: Pipeline) -> Sequence[str]:
    """Return the items that were looked at and have no later stage, in the order of the archive."""
    stage, later = aliased(Stage), aliased(Stage)
    looked = exists().where(stage.item_id == Item.id, stage.name == pipeline.names[0], stage.state == State.COMPLETED)
    gone_on = exists().where(later.item_id == Item.id, later.ordinal > 0, later.state.not_in(GONE))
    here = Item.batch_id == batch_id, Item.state == State.QUEUED
    return session.scalars(select(Item.id).where(*here, looked, ~gone_on).order_by(Item.position)).all()
