"""How long an attempt made room for others in its middle.

Revision: 0021, after 0020.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt", sa.Column("aside", sa.Double(), server_default="0", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("attempt") as table:
        table.drop_column("aside")
