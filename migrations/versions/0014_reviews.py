"""Reviews: what a person says of an item.

Revision: 0014, after 0013.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review",
        sa.Column("item_id", sa.String(length=255), nullable=False),
        sa.Column("batch_id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("decision", sa.String(length=255), nullable=True),
        sa.Column("starred", sa.Boolean(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("decision IS NULL OR decision IN ('approved', 'rejected')", name=op.f("ck_review_decision")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_review_batch_id_batch")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_review_item_id_item")),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_review")),
    )
    op.create_index(op.f("ix_review_batch_id"), "review", ["batch_id"])


def downgrade() -> None:
    op.drop_table("review")
