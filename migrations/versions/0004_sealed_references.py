"""Sealed references: the wrapped data key and the hash of the picture before it was sealed.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("reference") as table:
        table.add_column(sa.Column("data_key", sa.String(length=255), nullable=True))
        table.add_column(sa.Column("picture_sha256", sa.String(length=255), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("reference") as table:
        table.drop_column("picture_sha256")
        table.drop_column("data_key")
