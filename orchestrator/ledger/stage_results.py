"""Results of stages that a later batch uses again: found by everything that they depend on, forgotten with a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.base import digest
from orchestrator.ledger import artifacts
from orchestrator.ledger.tables.rows import Artifact, Item
from orchestrator.ledger.tables.rows_photos import StageResult, StageResultIdentity

KEPT = timedelta(days=30)
"""So long the bytes of a result are kept after they were made."""


def result_key(
    stage: str, version: int, *, networks: Sequence[str], params: Mapping[str, Any], input_sha256: str, profile: Any
) -> str:
    """Return the key of a result.

    Args:
        stage: name of the work.
        version: of its code, raised by hand whenever the same input would give something else.
        networks: sha256 of all weights that take part.
        params: canonical JSON of what was asked, without names or paths.
        input_sha256: of the pixels or bytes that go in.
        profile: what the arithmetic depends on besides: device, threads, library versions.
    """
    facts = [stage, version, sorted(networks), params, input_sha256, profile]
    return digest(facts)


@dataclass(frozen=True, kw_only=True)
class NewResult:
    """A result to keep; `artifact_id` names bytes that are stored but not confirmed yet."""

    key: str
    stage: str
    item_id: str
    facts: dict[str, Any] = field(default_factory=dict)
    artifact_id: str | None = None
    data_key: str | None = None
    """Of the place `result_place(owner, key)`."""
    data: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A result that was found."""

    row: StageResult
    artifact: Artifact | None


def find(session: Session, owner: str, key: str) -> Kept | None:
    """Return the kept result of this key, or None; one whose bytes are gone is none."""
    row = session.get(StageResult, (owner, key))
    if row is None:
        return None
    artifact = session.get(Artifact, row.artifact_id) if row.artifact_id else None
    if row.artifact_id and (artifact is None or artifact.state != "live"):
        return None
    return Kept(row=row, artifact=artifact)


def keep(session: Session, owner: str, new: NewResult, identities: Sequence[str], moment: datetime) -> None:
    """Write a result, in the transaction that publishes it; who is in it is written with it.

    Raises:
        TransientError: the cleaner took the bytes; store them again.
    """
    if new.artifact_id:
        artifacts.confirm(session, new.artifact_id)
        session.execute(update(Artifact).where(Artifact.id == new.artifact_id).values(expires_at=moment + KEPT))
    session.merge(
        StageResult(
            owner=owner,
            key=new.key,
            stage=new.stage,
            item_id=new.item_id,
            facts=new.facts,
            artifact_id=new.artifact_id,
            data_key=new.data_key,
            data=new.data,
            created_at=moment,
        )
    )
    session.flush()
    show(session, owner, [new.key], identities)


def show(session: Session, owner: str, keys: Sequence[str], identities: Sequence[str]) -> None:
    """Write down that these results show these people."""
    for key in keys:
        for identity_id in identities:
            session.merge(StageResultIdentity(owner=owner, key=key, identity_id=identity_id))
    session.flush()


def forget(session: Session, identity_id: str) -> list[str]:
    """Remove every kept result that shows this person; return the artifacts whose bytes must go now."""
    keys = list(
        session.execute(
            select(StageResultIdentity.owner, StageResultIdentity.key).where(
                StageResultIdentity.identity_id == identity_id
            )
        ).tuples()
    )
    taken: list[str] = []
    for owner, key in keys:
        row = session.get(StageResult, (owner, key))
        if row is not None:
            taken += [row.artifact_id] if row.artifact_id else []
            session.delete(row)
        session.execute(
            delete(StageResultIdentity).where(StageResultIdentity.owner == owner, StageResultIdentity.key == key)
        )
    session.flush()
    return taken


def of_items(session: Session, item_ids: Sequence[str]) -> list[str]:
    """Return the keys of the results that were made for these items."""
    return list(session.scalars(select(StageResult.key).join(Item).where(Item.id.in_(item_ids))))
