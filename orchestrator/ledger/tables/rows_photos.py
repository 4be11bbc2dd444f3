"""Tables of photo archives: results of stages to use again, whom they show, and people known only by their faces."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Row
from orchestrator.secrets.vault import Envelope


def result_place(owner: str, key: str) -> str:
    """Return the name of the place that the key of a kept result belongs to."""
    return f"result {owner} {key}"


def archive_person_place(person_id: str) -> str:
    """Return the name of the place that the key of somebody of an archive belongs to."""
    return f"archive person {person_id}"


class StageResult(Row):
    """What a stage made of one input, by everything that it depends on; small binary results are in the row.

    `key` is the sha256 over stage name, version of its code, hashes of the networks, parameters, input and numeric
    profile. Where `data` holds embeddings, it is sealed under `data_key`.
    """

    __tablename__ = "stage_result"
    __table_args__ = (Index(None, "artifact_id"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    item_id: Mapped[str] = mapped_column(ForeignKey("item.id"))
    """The item that it was made for."""
    facts: Mapped[dict[str, Any]]
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifact.id"))
    data_key: Mapped[str | None]
    data: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]

    @property
    def envelope(self) -> Envelope:
        """The key, bound to what the result was made of."""
        return Envelope(key=self.data_key, place=result_place(self.owner, self.key))


class StageResultIdentity(Row):
    """Which people of the library a kept result shows: what an erase must take away."""

    __tablename__ = "stage_result_identity"
    __table_args__ = (Index(None, "identity_id"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey("identity.id"), primary_key=True)


class ArchivePerson(Row):
    """Somebody of one archive, known by nothing but the faces in it; `data` is the sealed embedding."""

    __tablename__ = "archive_person"
    __table_args__ = (UniqueConstraint("batch_id", "number"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    number: Mapped[int]
    encoder: Mapped[str]
    faces: Mapped[list[Any]]
    """The best faces, which serve as references: [item id, index of the face, quality]."""
    data_key: Mapped[str | None]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]

    @property
    def envelope(self) -> Envelope:
        """The key, bound to this one of the archive."""
        return Envelope(key=self.data_key, place=archive_person_place(self.id))
