"""Rows of files on their way in: how many bytes of each are here. Knows no bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.queue import quotas
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.ledger.tables.rows_api import Upload, UploadPart

KEPT = timedelta(hours=24)
"""An upload that is not finished, or whose bytes nobody uses, is gone after so long."""


@retrying
def begin(ledger: Ledger, *, owner: str, name: str, size: int, sha256: str, most: int) -> Upload:
    """Enter a file that will be sent.

    Args:
        sha256: what the client says of it, or "".
        most: so many an owner may have open at a time.

    Raises:
        ConflictError: the owner has too many open ones.
        LimitError: the owner has too many bytes on the way or unused.
    """
    with ledger.write() as session:
        moment = now(session)
        open_ones = select(func.count()).where(Upload.owner == owner, Upload.state == "open")
        if (session.scalar(open_ones) or 0) >= most:
            raise ConflictError(f"there are {most} unfinished uploads; finish or delete some", code="too_many_uploads")
        quotas.check_upload(session, owner, size)
        row = Upload(
            id=new_id("upl"),
            owner=owner,
            name=name,
            media_type="application/octet-stream",
            size=size,
            sha256=sha256,
            received=0,
            state="open",
            created_at=moment,
            expires_at=moment + KEPT,
        )
        session.add(row)
        return row


def get(session: Session, owner: str, upload_id: str) -> Upload:
    """Return an upload of this owner that was not given up.

    Raises:
        NotFoundError: there is none.
    """
    query = select(Upload).where(Upload.owner == owner, Upload.id == upload_id, Upload.state != "aborted")
    found = session.scalars(query).first()
    if found is None:
        raise NotFoundError(f"there is no upload {upload_id!r}", code="upload_not_found")
    return found


@retrying
def advance(ledger: Ledger, upload_id: str, *, at: int, by: int, key: str) -> None:
    """Note that `by` more bytes are here, under this key; the first of two writers at one place wins.

    Raises:
        ConflictError: the upload is not open, or stands somewhere else by now.
    """
    with ledger.write() as session:
        moved = session.execute(
            update(Upload)
            .where(Upload.id == upload_id, Upload.state == "open", Upload.received == at)
            .values(received=at + by, expires_at=now(session) + KEPT)
            .returning(Upload.owner)
        ).first()
        if moved is not None:
            session.add(UploadPart(upload_id=upload_id, at=at, owner=moved.owner, key=key))
    if moved is None:
        raise ConflictError(f"upload {upload_id} does not go on at byte {at}", code="upload_offset")


def parts(session: Session, upload_id: str) -> Sequence[str]:
    """Return the keys of the parts that count, in order."""
    query = select(UploadPart.key).where(UploadPart.upload_id == upload_id).order_by(UploadPart.at)
    return session.scalars(query).all()


@retrying
def begin_parts(ledger: Ledger, upload_id: str, parts_id: str) -> bool:
    """Note under which id the store takes the parts itself; False where another one was noted, or bytes came else."""
    with ledger.write() as session:
        untouched = Upload.state == "open", Upload.received == 0, Upload.parts_id.is_(None)
        moved = session.execute(
            update(Upload).where(Upload.id == upload_id, *untouched).values(parts_id=parts_id).returning(Upload.id)
        )
        return moved.first() is not None


@retrying
def prolong(ledger: Ledger, upload_id: str) -> None:
    """Keep an open upload for another day: its client is at it."""
    with ledger.write() as session:
        until = now(session) + KEPT
        session.execute(update(Upload).where(Upload.id == upload_id, Upload.state == "open").values(expires_at=until))


@retrying
def complete(ledger: Ledger, upload_id: str, *, artifact_id: str, sha256: str, media_type: str) -> None:
    """Note which stored bytes the whole file is."""
    with ledger.write() as session:
        facts = {"artifact_id": artifact_id, "sha256": sha256, "media_type": media_type}
        session.execute(
            update(Upload).where(Upload.id == upload_id, Upload.state == "open").values(state="complete", **facts)
        )


@retrying
def abort(ledger: Ledger, upload_id: str) -> None:
    """Give an upload up; its parts are removed by the sweeper."""
    with ledger.write() as session:
        moment = now(session)
        session.execute(update(Upload).where(Upload.id == upload_id).values(state="aborted", expires_at=moment))


@retrying
def keep(ledger: Ledger, artifact_id: str, days: float) -> None:
    """Keep bytes that nothing refers to for longer: whoever reads them has so many days."""
    with ledger.write() as session:
        until = now(session) + timedelta(days=days)
        session.execute(
            update(Artifact)
            .where(Artifact.id == artifact_id, Artifact.state == "pending", Artifact.expires_at < until)
            .values(expires_at=until)
        )


def overdue(session: Session, limit: int = 100) -> Sequence[Upload]:
    """Return uploads whose time is over, given up and finished ones too."""
    return session.scalars(select(Upload).where(Upload.expires_at < now(session)).limit(limit)).all()


@retrying
def forget(ledger: Ledger, upload_ids: Sequence[str]) -> None:
    """Remove rows whose parts are gone."""
    with ledger.write() as session:
        session.execute(delete(UploadPart).where(UploadPart.upload_id.in_(upload_ids)))
        session.execute(delete(Upload).where(Upload.id.in_(upload_ids)))
