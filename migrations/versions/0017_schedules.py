"""Schedules and what became of their times: until now deployments of a Prefect server.

Revision: 0017, after 0016.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("cron", sa.String(length=255), nullable=False),
        sa.Column("timezone", sa.String(length=255), nullable=False),
        sa.Column("catch_up", sa.String(length=255), nullable=False),
        sa.Column("overlap", sa.String(length=255), nullable=False),
        sa.Column("task", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('portraits', 'training')", name=op.f("ck_schedule_kind")),
        sa.CheckConstraint("catch_up IN ('latest', 'all', 'none')", name=op.f("ck_schedule_catch_up")),
        sa.CheckConstraint("overlap IN ('skip', 'queue', 'allow')", name=op.f("ck_schedule_overlap")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("owner", "kind", "name", name=op.f("uq_schedule_owner_kind_name")),
    )
    op.create_table(
        "schedule_run",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("schedule_id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=255), nullable=False),
        sa.Column("code", sa.String(length=255), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.String(length=255), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('made', 'waiting', 'skipped', 'missed', 'failed')", name=op.f("ck_schedule_run_outcome")
        ),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule.id"], name=op.f("fk_schedule_run_schedule_id_schedule")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_run")),
        sa.UniqueConstraint("schedule_id", "due_at", name=op.f("uq_schedule_run_schedule_id_due_at")),
    )
    op.create_index(op.f("ix_schedule_run_schedule_id_id"), "schedule_run", ["schedule_id", "id"])


def downgrade() -> None:
    op.drop_table("schedule_run")
    op.drop_table("schedule")
