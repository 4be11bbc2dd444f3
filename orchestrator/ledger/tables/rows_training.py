"""Tables of retraining: runs, their checkpoints and records, files of trained versions, evaluations, gate decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Row


class TrainingRun(Row):
    """One retraining from its plan to its version; batches come and go (resume after a failure), the run stays."""

    __tablename__ = "training_run"
    __table_args__ = (Index(None, "owner", "created_at"), Index(None, "batch_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    preset: Mapped[str]
    dataset_id: Mapped[str | None]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("model_version.id"))
    plan: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    """The newest batch that works on this run."""
    model_version_id: Mapped[str | None] = mapped_column(ForeignKey("model_version.id"))
    created_at: Mapped[datetime]


class TrainCheckpoint(Row):
    """A whole checkpoint in the byte store; the row is written last, so what has a row is complete."""

    __tablename__ = "train_checkpoint"

    run_id: Mapped[str] = mapped_column(ForeignKey("training_run.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    created_at: Mapped[datetime]


class TrainCheckpointFile(Row):
    """One file of a checkpoint."""

    __tablename__ = "train_checkpoint_file"
    __table_args__ = (Index(None, "run_id", "step"), Index(None, "artifact_id"))

    run_id: Mapped[str] = mapped_column(ForeignKey("training_run.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))


class TrainRecord(Row):
    """What a run said about one of its steps: losses, rate, memory, or a validation picture."""

    __tablename__ = "train_record"
    __table_args__ = (
        CheckConstraint("kind IN ('step', 'validation', 'sample')", name="kind"),
        Index(None, "artifact_id"),
    )

    run_id: Mapped[str] = mapped_column(ForeignKey("training_run.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    facts: Mapped[dict[str, Any]]
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifact.id"))
    at: Mapped[datetime]


class ModelFile(Row):
    """One file of a version that lies in the byte store."""

    __tablename__ = "model_file"
    __table_args__ = (Index(None, "artifact_id"),)

    model_version_id: Mapped[str] = mapped_column(ForeignKey("model_version.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"))


class Evaluation(Row):
    """Measured figures of one version: comparable with those of the same suite, seed, count and data set."""

    __tablename__ = "evaluation"
    __table_args__ = (Index(None, "model_version_id", "suite"), Index(None, "batch_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    model_version_id: Mapped[str] = mapped_column(ForeignKey("model_version.id"))
    dataset_id: Mapped[str | None]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batch.id"))
    suite: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int]
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class GateDecision(Row):
    """What the rules said about a version, check by check, against the version that was live then."""

    __tablename__ = "gate_decision"
    __table_args__ = (UniqueConstraint("batch_id"), Index(None, "model_version_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    model_version_id: Mapped[str] = mapped_column(ForeignKey("model_version.id"))
    against_id: Mapped[str | None] = mapped_column(ForeignKey("model_version.id"))
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batch.id"))
    passed: Mapped[bool]
    rules: Mapped[dict[str, Any]]
    checks: Mapped[list[Any]]
    alias: Mapped[str | None] = mapped_column(Text)
    """Which alias moved to the version because of it, if one did."""
    decided_at: Mapped[datetime]
