"""What has been kept long enough, by class: people nobody uses, outputs, originals. Deleting is done elsewhere.

Bytes that something younger refers to stay, whatever their age.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.photos import Original, PhotoParams
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.tables.rows import Artifact, Consent, Identity, Item, ItemIdentity, Output, Reference

AT_ONCE = 500
"""So many rows one look goes through; the next look begins after its last."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """Artifacts whose time is over, and how many bytes each is; `last` is None where nothing follows."""

    sizes: dict[str, int]
    last: str | None


def idle_people(session: Session, before: datetime, after: str) -> list[tuple[str, str]]:
    """Return (owner, id) of living people who were not added to, allowed anything or shown since then, by id."""
    shown = (
        exists()
        .where(ItemIdentity.identity_id == Identity.id)
        .where(ItemIdentity.item_id == Item.id, Item.created_at >= before)
    )
    allowed = exists().where(Consent.identity_id == Identity.id, Consent.granted_at >= before)
    added = exists().where(Reference.identity_id == Identity.id, Reference.created_at >= before)
    query = (
        select(Identity.owner, Identity.id)
        .where(Identity.erased_at.is_(None), Identity.created_at < before, ~shown, ~allowed, ~added)
        .where(Identity.id > after)
        .order_by(Identity.id)
        .limit(AT_ONCE)
    )
    return list(session.execute(query).tuples())


def old_outputs(session: Session, before: datetime, after: str) -> Due:
    """Return the bytes of outputs that were made before then; their rows with scores and records stay."""
    query = (
        select(Output.artifact_id)
        .join(Artifact, Artifact.id == Output.artifact_id)
        .where(Artifact.state == "live", Artifact.expires_at.is_(None), Output.artifact_id > after)
        .group_by(Output.artifact_id)
        .having(func.max(Output.created_at) < before)
        .order_by(Output.artifact_id)
        .limit(AT_ONCE)
    )
    found = session.scalars(query).all()
    return _due(session, found, found)


def old_originals(session: Session, before: datetime, after: str) -> Due:
    """Return source photos, and what stages stored of them, of items that ended before then."""
    original = Item.params[PhotoParams.column_key("original")][Original.column_key("artifact_id")].as_string()
    live = select(Artifact.id).where(Artifact.state == "live", Artifact.expires_at.is_(None))
    query = (
        select(Item.id)
        .where(Item.finished_at < before, original.is_not(None), original.in_(live), Item.id > after)
        .order_by(Item.id)
        .limit(AT_ONCE)
    )
    old = session.scalars(query).all()
    wanted = photos.artifacts_of(session, list(old))
    younger = select(original).where(original.in_(wanted), Item.finished_at.is_(None) | (Item.finished_at >= before))
    used = set(session.scalars(younger)) | set(
        session.scalars(select(Output.artifact_id).where(Output.artifact_id.in_(wanted)))
    )
    return _due(session, sorted(wanted - used), old)


@retrying
def expire(ledger: Ledger, artifact_ids: Sequence[str]) -> None:
    """Let the sweeper take these at its next round."""
    with ledger.write() as session:
        session.execute(
            update(Artifact)
            .where(Artifact.id.in_(artifact_ids), Artifact.state == "live")
            .values(expires_at=now(session))
        )


def _due(session: Session, artifact_ids: Sequence[str], looked_at: Sequence[str]) -> Due:
    live = Artifact.state == "live", Artifact.expires_at.is_(None)
    rows = session.execute(select(Artifact.id, Artifact.size).where(Artifact.id.in_(artifact_ids), *live)).tuples()
    return Due(sizes=dict(rows.all()), last=looked_at[-1] if len(looked_at) == AT_ONCE else None)
