"""Tables of data sets: names, versions by content, their shards, who is in them, and results of chunks to use again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Row


class DataSet(Row):
    """A name under which versions follow each other."""

    __tablename__ = "data_set"
    __table_args__ = (UniqueConstraint("owner", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    created_at: Mapped[datetime]


class DataSetVersion(Row):
    """What a data set held at one time: named by the hash of its content, never changed."""

    __tablename__ = "data_set_version"
    __table_args__ = (UniqueConstraint("data_set_id", "number"), UniqueConstraint("data_set_id", "content_sha256"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    data_set_id: Mapped[str] = mapped_column(ForeignKey("data_set.id"))
    number: Mapped[int]
    content_sha256: Mapped[str]
    preset: Mapped[str]
    encoder_sha256: Mapped[str]
    """Recogniser of its embeddings: vectors of two recognisers must never meet."""
    source: Mapped[str] = mapped_column(Text)
    licence: Mapped[str]
    attestation: Mapped[str | None] = mapped_column(Text)
    """What somebody answers for about the people who are not in the library."""
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batch.id"))
    index_artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifact.id"))
    """Parquet file with a row for each face; None for a version that is a recipe of the renderer."""
    facts: Mapped[dict[str, Any]]
    tainted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class DataSetShard(Row):
    """One tar file of a version."""

    __tablename__ = "data_set_shard"
    __table_args__ = (Index(None, "artifact_id"),)

    data_set_version_id: Mapped[str] = mapped_column(ForeignKey("data_set_version.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))
    records: Mapped[int]


class DataSetIdentity(Row):
    """A person of the library who is in a version."""

    __tablename__ = "data_set_identity"
    __table_args__ = (Index(None, "identity_id"),)

    data_set_version_id: Mapped[str] = mapped_column(ForeignKey("data_set_version.id"), primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey("identity.id"), primary_key=True)
    owner: Mapped[str]
    pictures: Mapped[int]


class DataSetChunk(Row):
    """What came of one chunk of pictures, by the hash of everything that it depends on; later builds use it again."""

    __tablename__ = "data_set_chunk"
    __table_args__ = (Index(None, "shard_artifact_id"), Index(None, "facts_artifact_id"))

    owner: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(primary_key=True)
    shard_artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))
    facts_artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
