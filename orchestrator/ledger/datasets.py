"""Data sets: versions by content, who is in them, what chunks came to, and the mark that an erase leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, delete, func, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.datasets import Arranged
from orchestrator.errors import ConsentError, NotFoundError
from orchestrator.ledger import artifacts, audit
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.tables.rows import Artifact, Consent, Identity, Stage
from orchestrator.ledger.tables.rows_datasets import (
    DataSet,
    DataSetChunk,
    DataSetIdentity,
    DataSetShard,
    DataSetVersion,
)

SCOPE = "train"
AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class StoredChunk:
    """What a chunk came to: two objects of the byte store, and counts."""

    sha256: str
    shard: Artifact
    facts: Artifact
    counts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """A data set version as it is published; `shards` holds (artifact id, records), `identities` pictures by id."""

    owner: str
    name: str
    content_sha256: str
    preset: str
    encoder_sha256: str
    source: str
    licence: str
    attestation: str | None
    batch_id: str | None
    index_artifact_id: str | None
    facts: dict[str, Any]
    shards: Sequence[tuple[str, int]] = ()
    identities: Mapping[str, int] | None = None


def publish(session: Session, new: NewVersion, moment: datetime) -> str:
    """Write a version in the caller's transaction and return its id; the same content again gives the same version.

    Raises:
        ConsentError: a person of the library who is in it does not allow training, or was erased.
        TransientError: stored bytes were removed before they were recorded.
    """
    check_consent(session, new.owner, list(new.identities or {}), moment)
    data_set = _data_set(session, new.owner, new.name, moment)
    known = session.scalars(
        select(DataSetVersion).where(
            DataSetVersion.data_set_id == data_set.id, DataSetVersion.content_sha256 == new.content_sha256
        )
    ).first()
    if known is not None:
        return known.id
    newest = session.scalar(select(func.max(DataSetVersion.number)).where(DataSetVersion.data_set_id == data_set.id))
    version = DataSetVersion(
        id=new_id("dsv"),
        owner=new.owner,
        data_set_id=data_set.id,
        number=(newest or 0) + 1,
        content_sha256=new.content_sha256,
        preset=new.preset,
        encoder_sha256=new.encoder_sha256,
        source=new.source,
        licence=new.licence,
        attestation=new.attestation,
        batch_id=new.batch_id,
        index_artifact_id=new.index_artifact_id,
        facts=new.facts,
        created_at=moment,
    )
    if new.index_artifact_id is not None:
        artifacts.confirm(session, new.index_artifact_id)
    session.add(version)
    session.flush()
    for position, (artifact_id, records) in enumerate(new.shards):
        session.add(
            DataSetShard(
                data_set_version_id=version.id,
                position=position,
                owner=new.owner,
                artifact_id=artifact_id,
                records=records,
            )
        )
    for identity_id, pictures in (new.identities or {}).items():
        session.add(
            DataSetIdentity(data_set_version_id=version.id, identity_id=identity_id, owner=new.owner, pictures=pictures)
        )
    detail = {"shards": len(new.shards), "identities": len(new.identities or {})}
    audit.write(session, new.owner, "dataset.publish", version.id, detail, moment)
    return version.id


def _data_set(session: Session, owner: str, name: str, moment: datetime) -> DataSet:
    found = session.scalars(
        select(DataSet).where(DataSet.owner == owner, DataSet.name == name).with_for_update()
    ).first()
    if found is None:
        found = DataSet(id=new_id("dst"), owner=owner, name=name, created_at=moment)
        session.add(found)
        session.flush()
    return found


def resolve(session: Session, owner: str, wanted: str) -> DataSetVersion:
    """Return a version by its id or a unique beginning of it, by `name` (the newest) or by `name@number`.

    Raises:
        NotFoundError: there is none.
    """
    name, at, number = wanted.partition("@")
    query = (
        select(DataSetVersion)
        .join(DataSet, DataSet.id == DataSetVersion.data_set_id)
        .where(DataSetVersion.owner == owner)
        .order_by(DataSetVersion.number.desc())
    )
    if wanted.startswith("dsv_"):
        found = session.scalars(query.where(DataSetVersion.id.startswith(wanted, autoescape=True)).limit(2)).all()
        if len(found) > 1:
            raise NotFoundError(f"several data set versions begin with {wanted!r}", code="data_set_not_found")
    elif at and not number.isdigit():
        raise NotFoundError(f"a version is NAME@NUMBER, got {wanted!r}", code="data_set_not_found")
    else:
        query = query.where(DataSet.name == name)
        found = session.scalars(query.where(DataSetVersion.number == int(number)) if at else query.limit(1)).all()
    if not found:
        raise NotFoundError(f"there is no data set version {wanted!r}", code="data_set_not_found")
    return found[0]


def listing(session: Session, owner: str, name: str | None = None) -> Sequence[tuple[DataSetVersion, str]]:
    """Return the versions of this owner with the names of their data sets, newest first within a name."""
    query = (
        select(DataSetVersion, DataSet.name)
        .join(DataSet, DataSet.id == DataSetVersion.data_set_id)
        .where(DataSetVersion.owner == owner)
        .order_by(DataSet.name, DataSetVersion.number.desc())
    )
    return list(session.execute(query.where(DataSet.name == name) if name else query).tuples())


def name_of(session: Session, version: DataSetVersion) -> str:
    """Return the name of a version's data set."""
    return session.get_one(DataSet, version.data_set_id).name


def shards(session: Session, version_id: str) -> Sequence[tuple[DataSetShard, Artifact]]:
    """Return the shards of a version in order."""
    query = (
        select(DataSetShard, Artifact)
        .join(Artifact, Artifact.id == DataSetShard.artifact_id)
        .where(DataSetShard.data_set_version_id == version_id)
        .order_by(DataSetShard.position)
    )
    return list(session.execute(query).tuples())


def identities(session: Session, version_id: str) -> Sequence[DataSetIdentity]:
    """Return the people of the library who are in a version."""
    return session.scalars(
        select(DataSetIdentity)
        .where(DataSetIdentity.data_set_version_id == version_id)
        .order_by(DataSetIdentity.identity_id)
    ).all()


def check_consent(session: Session, owner: str, identity_ids: Sequence[str], moment: datetime) -> None:
    """Check that every one of these people allows training now.

    Raises:
        ConsentError: one does not, or was erased; the message says who by id.
    """
    allowed = consenting(session, owner, identity_ids, moment)
    missing = sorted(set(identity_ids) - allowed)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConsentError(
            f"{', '.join(missing[:3])}{more} do not allow 'train' (any more); nothing was published",
            identities=missing,
        )


def consenting(session: Session, owner: str, identity_ids: Sequence[str], moment: datetime) -> set[str]:
    """Return those of these living people who allow training now."""
    found: set[str] = set()
    for some in _by(identity_ids):
        found |= set(
            session.scalars(
                select(Consent.identity_id)
                .join(Identity, Identity.id == Consent.identity_id)
                .where(
                    Consent.identity_id.in_(some),
                    Consent.scope == SCOPE,
                    Consent.revoked_at.is_(None),
                    (Consent.expires_at.is_(None)) | (Consent.expires_at > moment),
                    Identity.owner == owner,
                    Identity.erased_at.is_(None),
                )
            )
        )
    return found


def keep_chunk(
    session: Session,
    owner: str,
    sha256: str,
    *,
    shard_artifact_id: str,
    facts_artifact_id: str,
    counts: dict[str, Any],
    moment: datetime,
) -> None:
    """Record what a chunk came to, in the caller's transaction; a second time changes nothing.

    Raises:
        TransientError: stored bytes were removed before they were recorded.
    """
    artifacts.confirm(session, shard_artifact_id)
    artifacts.confirm(session, facts_artifact_id)
    row = session.get(DataSetChunk, (owner, sha256))
    if row is None:
        row = DataSetChunk(owner=owner, sha256=sha256)
        session.add(row)
    row.shard_artifact_id, row.facts_artifact_id = shard_artifact_id, facts_artifact_id
    row.facts, row.created_at = counts, moment
    session.flush()


def chunks(session: Session, owner: str, wanted: Sequence[str]) -> dict[str, StoredChunk]:
    """Return what these chunks came to, by hash, as far as they were built and their bytes are still there."""
    shard, facts = Artifact.__table__.alias("shard"), Artifact.__table__.alias("facts")
    found: dict[str, StoredChunk] = {}
    for some in _by(wanted):
        query = (
            select(DataSetChunk)
            .join(shard, shard.c.id == DataSetChunk.shard_artifact_id)
            .join(facts, facts.c.id == DataSetChunk.facts_artifact_id)
            .where(DataSetChunk.owner == owner, DataSetChunk.sha256.in_(some))
            .where(shard.c.state == "live", facts.c.state == "live")
        )
        for row in session.scalars(query):
            found[row.sha256] = StoredChunk(
                sha256=row.sha256,
                shard=session.get_one(Artifact, row.shard_artifact_id),
                facts=session.get_one(Artifact, row.facts_artifact_id),
                counts=row.facts,
            )
    return found


def result_of(session: Session, item_id: str) -> Arranged | None:
    """Return what the finished stage of an item said, or None while there is none."""
    found = session.scalar(select(Stage.result).where(Stage.item_id == item_id, Stage.state == State.COMPLETED))
    return None if found is None else Arranged.load(found)


def set_result(session: Session, stage_id: int, result: Arranged) -> None:
    """Write what a stage says once its version has an id, in the transaction that publishes it."""
    session.execute(update(Stage).where(Stage.id == stage_id).values(result=result.dump()))


def forget(session: Session, identity_id: str) -> list[str]:
    """Drop the results of chunks that show this person and return the artifacts whose bytes must go.

    Later builds then do these chunks again from pictures, if somebody still has them.
    """
    rows = session.execute(
        delete(DataSetChunk)
        .where(_shows(identity_id))
        .returning(DataSetChunk.shard_artifact_id, DataSetChunk.facts_artifact_id)
        .execution_options(synchronize_session=False)
    ).all()
    return [artifact_id for row in rows for artifact_id in row]


def showing(session: Session, identity_id: str) -> int:
    """Return how many results of chunks show this person."""
    return session.scalar(select(func.count()).select_from(DataSetChunk).where(_shows(identity_id))) or 0


def _shows(identity_id: str) -> ColumnElement[bool]:
    return cast(DataSetChunk.facts, Text).like(f'%"{identity_id}"%')


def withdrawn(ledger: Ledger, among: Collection[str]) -> set[str]:
    """Return those of these content hashes whose version holds somebody who withdrew, in a read of its own."""
    with ledger.read() as session:
        return tainted_contents(session, among)


def tainted(session: Session) -> Sequence[DataSetVersion]:
    """Return all versions that hold somebody who withdrew."""
    return session.scalars(select(DataSetVersion).where(DataSetVersion.tainted_at.is_not(None))).all()


def tainted_contents(session: Session, among: Collection[str]) -> set[str]:
    """Return those of these content hashes whose version holds somebody who withdrew."""
    return set(
        session.scalars(
            select(DataSetVersion.content_sha256).where(
                DataSetVersion.content_sha256.in_(among), DataSetVersion.tainted_at.is_not(None)
            )
        )
    )


def taint(session: Session, identity_id: str, moment: datetime, artifact_ids: Collection[str] = ()) -> list[str]:
    """Mark every version that holds this person, or one of these shards; return the ids of those marked now."""
    holding = select(DataSetIdentity.data_set_version_id).where(DataSetIdentity.identity_id == identity_id)
    shown = select(DataSetShard.data_set_version_id).where(DataSetShard.artifact_id.in_(artifact_ids))
    return list(
        session.scalars(
            update(DataSetVersion)
            .where(DataSetVersion.id.in_(holding.union(shown)), DataSetVersion.tainted_at.is_(None))
            .values(tainted_at=moment)
            .returning(DataSetVersion.id)
            .execution_options(synchronize_session=False)
        )
    )


def _by(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a long list into pieces that one statement may name."""
    unique = list(dict.fromkeys(values))
    for start in range(0, len(unique), AT_ONCE):
        yield unique[start : start + AT_ONCE]
