"""Photos in the ledger: what their stages said, whom they show, and the one point where a whole archive comes together.

A photo is an item whose stages are ingest_photo, restore, score_photo, publish_photo. Where people of an archive are
known by nothing but their faces, items wait after the first until all of them were looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, exists, literal, select
from sqlalchemy.orm import Session, aliased

from orchestrator.errors import ConsentError
from orchestrator.ledger import stage_results
from orchestrator.ledger.engine.session import Ledger, retrying
from orchestrator.ledger.queue import claims
from orchestrator.ledger.queue.claims import Claim, Next
from orchestrator.ledger.tables.rows import Batch, Identity, Item, ItemIdentity, Leader, Stage
from orchestrator.ledger.tables.rows_photos import ArchivePerson

KIND = "restore"
STAGES = ("ingest_photo", "restore", "score_photo", "publish_photo")
ORDINALS = {"ingest_photo": 0, "cluster": 1, "restore": 2, "score_photo": 3, "publish_photo": 4}
GONE = ("failed", "cancelled", "held")


def said(session: Session, item_id: str, stage: str) -> dict[str, Any] | None:
    """Return the result of a finished stage of an item, or None."""
    return session.scalars(
        select(Stage.result)
        .where(Stage.item_id == item_id, Stage.name == stage, Stage.state == "completed")
        .order_by(Stage.id.desc())
        .limit(1)
    ).first()


def ingested(session: Session, batch_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return (item id, what ingest found) of every photo of a batch that was looked at, in the order of the archive."""
    query = (
        select(Item.id, Stage.result)
        .join(Stage, Stage.item_id == Item.id)
        .where(Item.batch_id == batch_id, Stage.name == "ingest_photo", Stage.state == "completed")
        .order_by(Item.position)
    )
    return [(item_id, result) for item_id, result in session.execute(query).tuples() if result is not None]


def people(session: Session, batch_id: str) -> Sequence[ArchivePerson]:
    """Return the people of an archive that were brought together from their faces."""
    return session.scalars(
        select(ArchivePerson).where(ArchivePerson.batch_id == batch_id).order_by(ArchivePerson.number)
    ).all()


def feed_lease(batch_id: str) -> str:
    """Return the name of the lease of whoever reads the source of a batch."""
    return f"feed:{batch_id}"


@retrying
def end_feeding(ledger: Ledger, batch_id: str) -> None:
    """Give up the lease on a source that was read to its end."""
    with ledger.write() as session:
        session.execute(delete(Leader).where(Leader.name == feed_lease(batch_id)))


def unread(session: Session, moment: datetime) -> list[tuple[str, datetime]]:
    """Return (batch id, when its reader's lease ended) of open batches that a flow read until it was killed."""
    query = (
        select(Batch.id, Leader.lease_until)
        .join(Leader, Leader.name == literal("feed:").concat(Batch.id))
        .where(
            Batch.kind == KIND,
            Batch.open.is_(True),
            Batch.state.in_(("in_progress", "paused")),
            Batch.flow_run_id.is_not(None),
            Leader.lease_until < moment,
        )
    )
    return [(batch_id, until) for batch_id, until in session.execute(query).tuples()]


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
    if batch.kind != KIND or batch.open or not batch.options.get("cluster") or batch.options.get("people_of"):
        return
    others = aliased(Stage)
    unfinished = select(others.id).where(
        others.batch_id == batch_id,
        (others.name == "ingest_photo") & others.state.not_in(("completed", *GONE))
        | (others.name == "cluster") & others.state.not_in(GONE),
    )
    if session.scalar(unfinished.limit(1)):
        return
    first = session.scalars(_waiting(batch_id).limit(1)).first()
    if first is not None:
        following = Next(stage="cluster", ordinal=ORDINALS["cluster"])
        claims.queue_stage(session, first, batch_id, batch.owner, following, moment)


def go_on(session: Session, c: Claim, moment: datetime) -> Next:
    """Queue the restoration of every photo that waited; return what follows for the one that did the gathering."""
    following = Next(stage="restore", ordinal=ORDINALS["restore"])
    for item_id in session.scalars(_waiting(c.batch_id)).all():
        if item_id != c.item_id:
            claims.queue_stage(session, item_id, c.batch_id, c.owner, following, moment)
    return following


def artifacts_of(session: Session, item_ids: Sequence[str]) -> set[str]:
    """Return the artifacts of these items beside their outputs: originals, what stages stored, previews."""
    found: set[str] = set()
    for params in session.scalars(select(Item.params).where(Item.id.in_(item_ids))):
        found |= {params["original"]["artifact_id"]} if params.get("original") else set()
    for result in session.scalars(select(Stage.result).where(Stage.item_id.in_(item_ids))):
        found |= set((result or {}).get("artifacts", ()))
    return found


def _waiting(batch_id: str) -> Select[tuple[str]]:
    """Items that were looked at and have no later stage."""
    stage, later = aliased(Stage), aliased(Stage)
    return (
        select(Item.id)
        .where(
            Item.batch_id == batch_id,
            Item.state == "queued",
            exists().where(stage.item_id == Item.id, stage.name == "ingest_photo", stage.state == "completed"),
            ~exists().where(later.item_id == Item.id, later.ordinal > 0, later.state.not_in(GONE)),
        )
        .order_by(Item.position)
    )
