"""Photos that scans looked at, written with their faces in one transaction, and what a later scan need not look at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.photos import Ingested, Original, PhotoOptions, PhotoParams, SeenFace
from orchestrator.ledger import photos
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, retrying
from orchestrator.ledger.engine.states import BATCH_ENDED, UNENDED
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import Artifact, Batch, Item
from orchestrator.ledger.tables.rows_people import FoundFace, ScannedPhoto

AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class NewFace:
    """A face as it is kept; embedding and crop are sealed under its data key, of the place `found_face_place`."""

    seen: SeenFace
    quality: float
    data_key: str
    embedding: bytes
    crop: bytes


@dataclass(frozen=True, kw_only=True)
class Known:
    """A file that was looked at before: while size and time are the same, it is not looked at again."""

    id: str
    size: int
    modified: datetime | None


def place_of(archive: str, path: str) -> str:
    """Return the hash by which a file of an archive is found."""
    return hashlib.sha256(f"{archive}\n{path}".encode("utf-8", "surrogatepass")).hexdigest()


def enter(
    session: Session,
    c: Claim,
    params: PhotoParams,
    said: Ingested,
    encoder: str,
    faces: Sequence[NewFace],
    moment: datetime,
) -> None:
    """Write a photo with its faces, in the transaction that ends its stage, and let its original go.

    Faces that the ledger has of the same picture stay, with what people said of them. A file that has changed shows
    another picture now: the faces of the one before go, unless another file shows it.
    """
    options = PhotoOptions.load(c.options)
    archive, original = options.source or c.batch_id, params.original
    place = place_of(archive, params.path)
    before = session.scalars(
        select(ScannedPhoto).where(ScannedPhoto.owner == c.owner, ScannedPhoto.place_sha256 == place)
    ).first()
    row = before or ScannedPhoto(id=new_id("pho"), owner=c.owner, place_sha256=place, created_at=moment)
    old = before.pixels_sha256 if before else None
    row.archive, row.path, row.modified = archive, params.path, params.modified
    row.size, row.file_sha256 = (original.size, original.sha256) if original else (0, "")
    row.pixels_sha256, row.phash, row.faces_key = said.pixels_sha256, said.phash, said.faces_key
    row.width, row.height, row.batch_id = said.width, said.height, c.batch_id
    row.orientation = int(str(said.facts.get("orientation") or 1))
    session.add(row)
    session.flush()
    mine = FoundFace.owner == c.owner, FoundFace.pixels_sha256 == said.pixels_sha256, FoundFace.encoder == encoder
    if not session.scalar(select(FoundFace.id).where(*mine).limit(1)):
        session.add_all(
            FoundFace(
                id=new_id("fac"),
                owner=c.owner,
                pixels_sha256=said.pixels_sha256,
                encoder=encoder,
                number=number,
                quality=round(new.quality, 3),
                face=new.seen.dump(),
                data_key=new.data_key,
                embedding=new.embedding,
                crop=new.crop,
                created_at=moment,
            )
            for number, new in enumerate(faces)
        )
    if old and old != said.pixels_sha256:
        drop_faces(session, c.owner, [old])
    if original is not None:
        _let_go(session, c, original, moment)


def drop_faces(session: Session, owner: str, pixels: Sequence[str]) -> None:
    """Remove the faces of pictures that no file shows any more."""
    shown = exists().where(ScannedPhoto.owner == owner, ScannedPhoto.pixels_sha256 == FoundFace.pixels_sha256)
    session.execute(
        delete(FoundFace)
        .where(FoundFace.owner == owner, FoundFace.pixels_sha256.in_(pixels), ~shown)
        .execution_options(synchronize_session=False)
    )


def _let_go(session: Session, c: Claim, original: Original, moment: datetime) -> None:
    """Let the sweeper take the copy of a source photo, if it was made for this scan and nothing else is made of it."""
    scan = session.get_one(Batch, c.batch_id)
    beside = Batch.finished_at.is_(None) | (Batch.finished_at > scan.created_at)
    batches = select(Batch.id).where(Batch.owner == c.owner, Batch.id != scan.id, beside)
    artifact = Item.params[PhotoParams.column_key("original")][Original.column_key("artifact_id")].as_string()
    here = Item.batch_id == scan.id, Item.state.in_(UNENDED), Item.id != c.item_id
    copies = select(Item.id).where(*here, Item.params_sha256 == original.sha256)  # the same file once more
    others = select(Item.id).where(Item.batch_id.in_(batches), artifact == original.artifact_id)
    if session.scalar(copies.limit(1)) is None and session.scalar(others.limit(1)) is None:
        session.execute(
            update(Artifact)
            .where(
                Artifact.id == original.artifact_id, Artifact.state == "live", Artifact.created_at >= scan.created_at
            )
            .values(expires_at=moment)
        )


def known(session: Session, owner: str, archive: str) -> dict[str, Known]:
    """Return what was looked at of an archive, by path."""
    query = select(ScannedPhoto.path, ScannedPhoto.id, ScannedPhoto.size, ScannedPhoto.modified).where(
        ScannedPhoto.owner == owner, ScannedPhoto.archive == archive
    )
    return {path: Known(id=i, size=size, modified=at) for path, i, size, at in session.execute(query).tuples()}


@retrying
def seen(ledger: Ledger, ids: Sequence[str], batch_id: str) -> None:
    """Write down that a scan saw these files again, as they were."""
    for start in range(0, len(ids), AT_ONCE):
        with ledger.write() as session:
            session.execute(
                update(ScannedPhoto)
                .where(ScannedPhoto.id.in_(ids[start : start + AT_ONCE]))
                .values(batch_id=batch_id)
                .execution_options(synchronize_session=False)
            )


def unfinished(session: Session, owner: str, archive: str, preset: str) -> Batch | None:
    """Return the scan of this archive that has not ended, to be gone on with."""
    query = select(Batch).where(
        Batch.owner == owner, Batch.kind == photos.SCAN, Batch.preset == preset, Batch.state.not_in(BATCH_ENDED)
    )
    found = session.scalars(query.order_by(Batch.created_at.desc())).all()
    return next((batch for batch in found if PhotoOptions.load(batch.options).source == archive), None)


def forget(session: Session, owner: str, archive: str) -> int:
    """Remove an archive: its photos, and the faces that no other archive shows; return how many photos there were."""
    where = ScannedPhoto.owner == owner, ScannedPhoto.archive == archive
    pixels = list(session.scalars(select(ScannedPhoto.pixels_sha256).where(*where)))
    session.execute(delete(ScannedPhoto).where(*where).execution_options(synchronize_session=False))
    for start in range(0, len(pixels), AT_ONCE):
        drop_faces(session, owner, pixels[start : start + AT_ONCE])
    return len(pixels)
