"""The index that finds the few stages that were announced lately, so that the bell can be asked many times a second.

Revision: 0010, after 0009.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    announced = sa.text("hinted_at IS NOT NULL")
    op.create_index("ix_stage_hint", "stage", ["hinted_at"], sqlite_where=announced, postgresql_where=announced)


def downgrade() -> None:
    op.drop_index("ix_stage_hint", table_name="stage")
