"""All tables of the ledger. Behaviour lives elsewhere: legal moves of states in lifecycle.py, queries by noun.

Every row has an owner. States are words of docs/architecture.md, kept as text with a check, so that a dump can be
read without this code. There are no relationships: a query says what it loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Number, Row
from orchestrator.ledger.engine.states import BATCH_STATES, LEASED, STATES, UNENDED, State
from orchestrator.secrets.vault import Envelope


def _one_of(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(v)) for v in values)})"


HELD_NOW = _one_of("state", LEASED)
"""Condition of the small index of what workers hold now."""
OPEN_NOW = _one_of("state", UNENDED)
"""Condition of the index of what has not ended; a year of completed stages is not in it."""

STUCK = _one_of("state", (State.HELD,))
"""Condition of the small index of items that wait for a person."""


class Batch(Row):
    """What a client submits: many items under one preset."""

    __tablename__ = "batch"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        CheckConstraint(_one_of("state", BATCH_STATES), name="state"),
        Index(None, "state", "owner"),
        Index(None, "owner", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    state: Mapped[str]
    lane: Mapped[str] = mapped_column(default="bulk")
    priority: Mapped[int] = mapped_column(default=0)
    preset: Mapped[str]
    model_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_version.id"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("batch.id"))
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[str | None]
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    total: Mapped[int] = mapped_column(default=0)
    rejected_rows: Mapped[list[Any]] = mapped_column(default=list)
    open: Mapped[bool] = mapped_column(default=False, server_default=false())
    """More items may come: an open batch does not end by itself, it is closed first."""
    flow_run_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    """W3C trace context of the submit: workers go on with the trace, since a hint carries nothing."""
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    served_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Item(Row):
    """One portrait, photo or identity of a batch."""

    __tablename__ = "item"
    __table_args__ = (
        UniqueConstraint("batch_id", "custom_id"),
        UniqueConstraint("batch_id", "position"),
        CheckConstraint(_one_of("state", STATES), name="state"),
        Index(None, "batch_id", "state"),
        Index("ix_item_held", "batch_id", sqlite_where=text(STUCK), postgresql_where=text(STUCK)),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    owner: Mapped[str]
    position: Mapped[int]
    custom_id: Mapped[str]
    state: Mapped[str]
    stages: Mapped[list[str]]
    params: Mapped[dict[str, Any]]
    params_sha256: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[float] = mapped_column(default=0.0)
    redraws: Mapped[int] = mapped_column(default=0)
    output_id: Mapped[str | None]
    verdict: Mapped[str | None]
    similarity: Mapped[float | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None] = mapped_column(Text)
    error_stage: Mapped[str | None]
    error_attempt: Mapped[int | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ItemIdentity(Row):
    """Which people an item shows: where an identity is used, and what an erase must take away."""

    __tablename__ = "item_identity"
    __table_args__ = (Index(None, "identity_id"),)

    item_id: Mapped[str] = mapped_column(ForeignKey("item.id"), primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey("identity.id"), primary_key=True)
    owner: Mapped[str]


class Stage(Row):
    """One durable step of an item, and the lease on it: a token that only rises fences every earlier holder."""

    __tablename__ = "stage"
    __table_args__ = (
        UniqueConstraint("item_id", "name", "round"),
        CheckConstraint(_one_of("state", STATES), name="state"),
        CheckConstraint(
            "state NOT IN ('leased', 'running') OR (worker_id IS NOT NULL AND lease_until IS NOT NULL)",
            name="lease",
        ),
        Index("ix_stage_claim", "batch_id", "queue", "state", "alone", "ordinal", "id"),
        # by worker, not by time: a heartbeat then changes no indexed column, and its row stays on its page
        Index("ix_stage_held", "worker_id", sqlite_where=text(HELD_NOW), postgresql_where=text(HELD_NOW)),
        Index(
            "ix_stage_due_open",
            "queue",
            "state",
            "next_at",
            sqlite_where=text(OPEN_NOW),
            postgresql_where=text(OPEN_NOW),
        ),
    )

    id: Mapped[Number] = mapped_column(primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("item.id"))
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    owner: Mapped[str]
    name: Mapped[str]
    round: Mapped[int] = mapped_column(default=0)
    ordinal: Mapped[int]
    queue: Mapped[str]
    state: Mapped[str]
    token: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    signs: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many signs of life the work has given; `progress_at` is when the last one was seen."""
    progress_at: Mapped[datetime | None]
    crashes: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    alone: Mapped[bool] = mapped_column(default=False)
    """Set after it was in a group that died: it runs by itself until it is cleared or convicted."""
    next_at: Mapped[datetime]
    hinted_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Attempt(Row):
    """One try of a stage by one worker; written before the work starts."""

    __tablename__ = "attempt"
    __table_args__ = (Index(None, "worker_id"),)

    stage_id: Mapped[Number] = mapped_column(ForeignKey("stage.id"), primary_key=True)
    token: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    worker_id: Mapped[str]
    group_size: Mapped[int]
    aside: Mapped[float] = mapped_column(server_default="0")
    """Seconds between start and end in which it made room for others."""
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None] = mapped_column(Text)


class Artifact(Row):
    """Stored bytes under their sha256. The row is written before the bytes, so that garbage can be found by query."""

    __tablename__ = "artifact"
    __table_args__ = (
        UniqueConstraint("owner", "sha256"),
        CheckConstraint(_one_of("state", ("pending", "live", "deleting", "deleted")), name="state"),
        Index(None, "state", "expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    sha256: Mapped[str]
    key: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    state: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class Output(Row):
    """One picture that an item made; at most one for each round, whatever happened on the way."""

    __tablename__ = "output"
    __table_args__ = (
        UniqueConstraint("item_id", "round"),
        Index(None, "batch_id"),
        Index(None, "artifact_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("item.id"))
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    owner: Mapped[str]
    round: Mapped[int]
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))
    token: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    model_version_id: Mapped[str] = mapped_column(ForeignKey("model_version.id"))
    record: Mapped[dict[str, Any]]
    verdict: Mapped[str | None]
    similarity: Mapped[float | None]
    scores: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Identity(Row):
    """A person. `handle` is what manifests say; `name` is for people's eyes and leaves the database nowhere."""

    __tablename__ = "identity"
    __table_args__ = (
        Index(
            "uq_identity_owner_handle",
            "owner",
            "handle",
            unique=True,
            sqlite_where=text("erased_at IS NULL"),
            postgresql_where=text("erased_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    handle: Mapped[str | None]
    name: Mapped[str | None]
    created_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]


def reference_place(identity_id: str) -> str:
    """Return the name of the place that keys of a person's references belong to."""
    return f"reference {identity_id}"


class Reference(Row):
    """A reference picture of an identity with the face that was found in it, one row for each recogniser.

    Rows of older recognisers stay, so that batches of older model versions can be reproduced.
    """

    __tablename__ = "reference"
    __table_args__ = (UniqueConstraint("identity_id", "artifact_id", "encoder"), Index(None, "artifact_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey("identity.id"))
    owner: Mapped[str]
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))
    encoder: Mapped[str]
    """sha256 of the recogniser that made the embedding: vectors of two recognisers must never meet."""
    data_key: Mapped[str | None]
    """Key of picture and embedding, wrapped by the vault's; without one they were stored before sealing existed."""
    picture_sha256: Mapped[str | None]
    """Of the picture before it was sealed: the same one is not added to a person twice."""
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    crop: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The aligned face as PNG, sealed like the embedding: what local identity tokens are read from."""
    face: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    @property
    def envelope(self) -> Envelope:
        """The key, bound to whose reference it is."""
        return Envelope(key=self.data_key, place=reference_place(self.identity_id))


class Consent(Row):
    """What a person allowed, for how long, and by which text."""

    __tablename__ = "consent"
    __table_args__ = (
        CheckConstraint(_one_of("scope", ("generate", "restore", "swap", "train")), name="scope"),
        Index(None, "identity_id", "scope"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey("identity.id"))
    owner: Mapped[str]
    scope: Mapped[str]
    granted_by: Mapped[str]
    text_sha256: Mapped[str | None]
    granted_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ModelVersion(Row):
    """A set of weights by its tensor hash, with what is known of how it was made."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("preset", "tensor_sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    preset: Mapped[str]
    number: Mapped[int]
    tensor_sha256: Mapped[str]
    location: Mapped[str] = mapped_column(Text)
    licence: Mapped[str]
    manifest: Mapped[dict[str, Any]]
    """`files` with their hashes, `made` (command, config), `verdict` (thresholds measured for these weights)."""
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("model_version.id"))
    dataset_id: Mapped[str | None]
    code_version: Mapped[str | None]
    seed: Mapped[int | None] = mapped_column(BigInteger)
    tainted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class ModelAlias(Row):
    """Which version a name such as `champion` means now."""

    __tablename__ = "model_alias"

    preset: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    model_version_id: Mapped[str] = mapped_column(ForeignKey("model_version.id"))
    moved_at: Mapped[datetime]


class ModelAliasMove(Row):
    """History of an alias: who moved it, when, from where, and why."""

    __tablename__ = "model_alias_move"
    __table_args__ = (Index(None, "preset", "alias"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    preset: Mapped[str]
    alias: Mapped[str]
    from_id: Mapped[str | None] = mapped_column(ForeignKey("model_version.id"))
    to_id: Mapped[str] = mapped_column(ForeignKey("model_version.id"))
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    rollback: Mapped[bool | None]
    """True where the move went back to an earlier version."""
    moved_at: Mapped[datetime]


class Worker(Row):
    """One process that runs stages, as it last reported."""

    __tablename__ = "worker"
    __table_args__ = (
        CheckConstraint(_one_of("state", ("starting", "ready", "draining", "gone")), name="state"),
        Index(None, "state", "heartbeat_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    host: Mapped[str]
    boot_id: Mapped[str]
    pid: Mapped[int]
    pid_started: Mapped[str]
    """Start time of the process as the kernel counts it; a reused pid has another one."""
    device: Mapped[str]
    queues: Mapped[list[str]]
    state: Mapped[str]
    drain: Mapped[bool] = mapped_column(default=False)
    warm: Mapped[str | None]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]


class Turn(Row):
    """When an owner was last served in a lane: a claim asks this, and not all the batches that the owner ever had."""

    __tablename__ = "turn"

    owner: Mapped[str] = mapped_column(primary_key=True)
    lane: Mapped[str] = mapped_column(primary_key=True)
    served_at: Mapped[datetime]


class Wakeup(Row):
    """A message that was sent to wake a worker and that none has taken yet."""

    __tablename__ = "wakeup"

    id: Mapped[Number] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(default="")
    queue: Mapped[str]
    sent_at: Mapped[datetime]


class Leader(Row):
    """Who may sweep now."""

    __tablename__ = "leader"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    holder: Mapped[str]
    lease_until: Mapped[datetime]


class Outbox(Row):
    """An effect on the outside that a committed change asks for; delivered at least once by the sweeper."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(
            "ix_outbox_due",
            "next_at",
            sqlite_where=text("sent_at IS NULL"),
            postgresql_where=text("sent_at IS NULL"),
        ),
    )

    id: Mapped[Number] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    ref: Mapped[str]
    body: Mapped[dict[str, Any]]
    tries: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    next_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]


class Audit(Row):
    """Who did what to whom; append-only, each row holds the hash of the one before it."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "ref"),)

    id: Mapped[Number] = mapped_column(primary_key=True)
    owner: Mapped[str]
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    ref: Mapped[str]
    detail: Mapped[dict[str, Any]]
    previous: Mapped[str]
    hash: Mapped[str]


class AuditHead(Row):
    """Where the chain of audit rows ends; one row."""

    __tablename__ = "audit_head"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    audit_id: Mapped[Number]
    hash: Mapped[str]
