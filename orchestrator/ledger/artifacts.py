"""Bytes and their rows: reserve a row, put the bytes, confirm the row in the transaction that refers to it.

A crash between the steps leaves a pending row with an expiry, which the cleaner finds by query; a row that refers to
bytes that never arrived cannot exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchestrator.errors import TransientError
from orchestrator.ledger.base import new_id
from orchestrator.ledger.rows import Artifact
from orchestrator.ledger.session import Ledger, now, retrying

PENDING_SECONDS = 24 * 3600.0
KEYS_PER_QUERY = 500


@retrying
def reserve(ledger: Ledger, *, owner: str, sha256: str, key: str, size: int, media_type: str) -> str:
    """Enter bytes that are about to be stored and return the artifact's id; the same bytes have one row per owner.

    Raises:
        TransientError: the same bytes are being deleted right now; try again in a moment.
    """
    with ledger.write() as session:
        moment = now(session)
        expires = moment + timedelta(seconds=PENDING_SECONDS)
        row = session.scalars(
            select(Artifact).where(Artifact.owner == owner, Artifact.sha256 == sha256).with_for_update()
        ).first()
        if row is None:
            row = Artifact(
                id=new_id("art"),
                owner=owner,
                sha256=sha256,
                key=key,
                size=size,
                media_type=media_type,
                state="pending",
                created_at=moment,
                expires_at=expires,
            )
            session.add(row)
        elif row.state == "deleting":
            raise TransientError(f"artifact {row.id} is being deleted", code="artifact_deleting")
        elif row.state in ("deleted", "pending"):
            row.state, row.expires_at = "pending", expires
        return row.id


def confirm(session: Session, artifact_id: str) -> None:
    """Make a reserved artifact live, inside the transaction that refers to it.

    Raises:
        TransientError: the cleaner was faster; the bytes must be put again.
    """
    confirmed = session.execute(
        update(Artifact)
        .where(Artifact.id == artifact_id, Artifact.state.in_(("pending", "live")))
        .values(state="live", expires_at=None)
        .returning(Artifact.id)
    ).first()
    if confirmed is None:
        raise TransientError(f"artifact {artifact_id} was removed before it was recorded", code="artifact_gone")


def discard(session: Session, artifact_ids: list[str]) -> None:
    """Let the cleaner take these artifacts at its next round, unless something refers to them by now."""
    session.execute(
        update(Artifact)
        .where(Artifact.id.in_(artifact_ids), Artifact.state == "pending")
        .values(expires_at=now(session))
    )


@retrying
def came_late(ledger: Ledger, artifact_ids: list[str]) -> None:
    """Let the cleaner take bytes again that may have been put after it had taken them, by a writer paused for a day."""
    with ledger.write() as session:
        session.execute(
            update(Artifact).where(Artifact.id.in_(artifact_ids), Artifact.state == "deleted").values(state="deleting")
        )


def known(session: Session, keys: Sequence[str]) -> set[str]:
    """Return those of these keys that some row names, whatever its state but deleted."""
    found: set[str] = set()
    for start in range(0, len(keys), KEYS_PER_QUERY):
        some = keys[start : start + KEYS_PER_QUERY]
        found.update(session.scalars(select(Artifact.key).where(Artifact.key.in_(some), Artifact.state != "deleted")))
    return found


def live(session: Session, most: int) -> set[str]:
    """Return the keys of up to so many artifacts that something refers to."""
    return set(session.scalars(select(Artifact.key).where(Artifact.state == "live").limit(most)))
