"""Aligned faces of references, sealed: what local identity tokens are read from.

Revision: 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("reference") as table:
        table.add_column(sa.Column("crop", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("reference") as table:
        table.drop_column("crop")
