"""Who was served when, and which messages were sent and not taken, as rows; signs of life are counted.

Revision: 0015, after 0014.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "turn",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("lane", sa.String(length=255), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "lane", name=op.f("pk_turn")),
    )
    op.execute(
        "INSERT INTO turn (owner, lane, served_at) "
        "SELECT owner, lane, max(served_at) FROM batch WHERE served_at IS NOT NULL GROUP BY owner, lane"
    )
    op.create_table(
        "wakeup",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wakeup")),
    )
    op.add_column("stage", sa.Column("signs", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("stage", "signs")
    op.drop_table("wakeup")
    op.drop_table("turn")
