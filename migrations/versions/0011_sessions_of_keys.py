"""What opened a browser's session, so that it dies with its key; sessions from before open nothing any more.

Revision: 0011, after 0010.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("parent_id", sa.String(length=255), nullable=True))


def downgrade() -> None:
    op.drop_column("api_key", "parent_id")
