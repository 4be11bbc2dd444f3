"""Tables of the HTTP border: keys, answers kept for repeated requests, uploads on their way, receivers of events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Row
from orchestrator.secrets.vault import Envelope


class ApiKey(Row):
    """Something that lets its bearer in: a key of a program, a browser's session, or a link that opens one session.

    Only the sha256 of the secret is kept; it has 256 random bits, so nothing slower is needed.
    """

    __tablename__ = "api_key"
    __table_args__ = (
        CheckConstraint("kind IN ('key', 'session', 'login')", name="kind"),
        Index(None, "owner", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    parent_id: Mapped[str | None]
    """Of a session: the key or the link that opened it. It lives no longer than such a key does."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class KeptAnswer(Row):
    """The first answer to a request with an idempotency key; `status` is empty while that request still runs."""

    __tablename__ = "kept_answer"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    status: Mapped[int | None]
    location: Mapped[str | None]
    body: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Upload(Row):
    """Bytes that a client is sending: `received` of `size` are here, in the local spool or as parts of the store."""

    __tablename__ = "upload"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'complete', 'aborted')", name="state"),
        Index(None, "owner", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    media_type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    received: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str]
    parts_id: Mapped[str | None] = mapped_column(Text)
    """Id of the multipart upload where the store takes the parts itself."""
    artifact_id: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class UploadPart(Row):
    """A part of an upload that counts: where it begins, and the object that holds its bytes.

    What was stored and refused, since another part was faster, has no row and is in no file.
    """

    __tablename__ = "upload_part"

    upload_id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    owner: Mapped[str]
    key: Mapped[str] = mapped_column(Text)


def webhook_place(webhook_id: str, url: str) -> str:
    """Return the name of the place that the key of a receiver's secret belongs to."""
    return f"webhook {webhook_id} {url}"


class Webhook(Row):
    """A receiver of events; its secret is sealed under `data_key`."""

    __tablename__ = "webhook"
    __table_args__ = (Index(None, "owner"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[str]]
    data_key: Mapped[str]
    secret: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]

    @property
    def envelope(self) -> Envelope:
        """The key, bound to the address that is to get what it signs."""
        return Envelope(key=self.data_key, place=webhook_place(self.id, self.url))


class Delivery(Row):
    """One event on its way to one receiver; the id is the event's id at the receiver, the same at every try."""

    __tablename__ = "delivery"
    __table_args__ = (Index("ix_delivery_due", "state", "next_at"), Index(None, "webhook_id", "created_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    webhook_id: Mapped[str]
    event: Mapped[str]
    body: Mapped[dict[str, Any]]
    state: Mapped[str]
    tries: Mapped[int] = mapped_column(default=0)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    next_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
