"""The index of claims has their order, so that a claim costs the same however many stages wait.

Revision: 0009, after 0008.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_stage_claim", table_name="stage")
    op.create_index("ix_stage_claim", "stage", ["batch_id", "queue", "state", "alone", "ordinal", "id"])


def downgrade() -> None:
    op.drop_index("ix_stage_claim", table_name="stage")
    op.create_index("ix_stage_claim", "stage", ["batch_id", "queue", "state", "next_at"])
