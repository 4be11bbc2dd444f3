"""Tables of what runs by the clock: schedules, and what became of each of their times."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, true
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Row


class Schedule(Row):
    """A cron line, a place whose clock it goes by, and what to do then; `task` is the contract of its kind."""

    __tablename__ = "schedule"
    __table_args__ = (
        UniqueConstraint("owner", "kind", "name"),
        CheckConstraint("kind IN ('portraits', 'training')", name="kind"),
        CheckConstraint("catch_up IN ('latest', 'all', 'none')", name="catch_up"),
        CheckConstraint("overlap IN ('skip', 'queue', 'allow')", name="overlap"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    cron: Mapped[str]
    timezone: Mapped[str]
    catch_up: Mapped[str]
    overlap: Mapped[str]
    task: Mapped[dict[str, Any]]
    active: Mapped[bool] = mapped_column(default=True, server_default=true())
    looked_at: Mapped[datetime]
    """Times up to here have been dealt with."""
    created_at: Mapped[datetime]


class ScheduleRun(Row):
    """One time of a schedule: the batch that was made for it, or why none was."""

    __tablename__ = "schedule_run"
    __table_args__ = (
        UniqueConstraint("schedule_id", "due_at"),
        CheckConstraint("outcome IN ('made', 'waiting', 'skipped', 'missed', 'failed')", name="outcome"),
        Index(None, "schedule_id", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedule.id"))
    owner: Mapped[str]
    due_at: Mapped[datetime]
    outcome: Mapped[str]
    code: Mapped[str | None]
    message: Mapped[str | None] = mapped_column(Text)
    batch_id: Mapped[str | None]
    at: Mapped[datetime]
