"""Bytes and their rows: reserve a row, put the bytes, confirm the row in the transaction that refers to it.

A crash between the steps leaves a pending row with an expiry, which the cleaner finds by query; a row that refers to
bytes that never arrived cannot exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import case, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from orchestrator.errors import TransientError
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.tables.rows import Artifact

PENDING_SECONDS = 24 * 3600.0
KEYS_PER_QUERY = 500


@dataclass(frozen=True, kw_only=True)
class NewArtifact:
    """Bytes that are about to be stored."""

    owner: str
    sha256: str
    key: str
    size: int
    media_type: str


def reserve(ledger: Ledger, *, owner: str, sha256: str, key: str, size: int, media_type: str) -> str:
    """Enter bytes that are about to be stored and return the artifact's id; the same bytes have one row per owner.

    Raises:
        TransientError: the same bytes are being deleted right now; try again in a moment.
    """
    new = NewArtifact(owner=owner, sha256=sha256, key=key, size=size, media_type=media_type)
    found = reserve_all(ledger, [new]).get((owner, sha256))
    if found is None:
        raise being_deleted(sha256)
    return found


@retrying
def reserve_all(ledger: Ledger, new: Sequence[NewArtifact]) -> dict[tuple[str, str], str]:
    """Enter bytes that are about to be stored in one transaction and return the artifacts' ids by owner and sha256.

    Those that are being deleted right now are left out.
    """
    with ledger.write() as session:
        moment = now(session)
        rows = {
            (one.owner, one.sha256): {
                **asdict(one),
                "id": new_id("art"),
                "state": "pending",
                "created_at": moment,
                "expires_at": moment + timedelta(seconds=PENDING_SECONDS),
            }
            for one in new
        }
        statement = (postgresql, sqlite)[ledger.is_sqlite].insert(Artifact)
        kept = or_(Artifact.state == "live", Artifact.state == "deleting")
        entered = session.execute(
            statement.on_conflict_do_update(
                index_elements=[Artifact.owner, Artifact.sha256],
                set_={
                    "state": case((kept, Artifact.state), else_="pending"),
                    "expires_at": case((kept, Artifact.expires_at), else_=statement.excluded.expires_at),
                },
            ).returning(Artifact.id, Artifact.owner, Artifact.sha256, Artifact.state),
            [rows[which] for which in sorted(rows)],  # in one order, so that two workers do not wait for each other
        ).all()
    return {(row.owner, row.sha256): row.id for row in entered if row.state != "deleting"}


def being_deleted(sha256: str) -> TransientError:
    """Return the error of bytes that cannot be stored while the cleaner removes them."""
    return TransientError(f"the artifact of bytes {sha256} is being deleted", code="artifact_deleting")


def confirm(session: Session, *artifact_ids: str) -> None:
    """Make reserved artifacts live, inside the transaction that refers to them.

    Raises:
        TransientError: the cleaner was faster; the bytes must be put again.
    """
    wanted = set(artifact_ids)
    if not wanted:
        return
    confirmed = session.scalars(
        update(Artifact)
        .where(Artifact.id.in_(wanted), Artifact.state.in_(("pending", "live")))
        .values(state="live", expires_at=None)
        .returning(Artifact.id)
    )
    if gone := wanted - set(confirmed):
        raise TransientError(f"artifact {min(gone)} was removed before it was recorded", code="artifact_gone")


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
