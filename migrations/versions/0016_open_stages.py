"""Looks, sweeps and metrics ask what is open, never what has ended.

On PostgreSQL the indexes are made beside running work, and stages are written so that a heartbeat stays on its page.

Revision: 0016, after 0015.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

HELD = sa.text("state IN ('leased', 'running', 'cancelling')")
OPEN = sa.text("state IN ('queued', 'leased', 'running', 'cancelling')")
STORAGE = "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02"


def upgrade() -> None:
    beside = {"postgresql_concurrently": True} if op.get_bind().dialect.name == "postgresql" else {}
    with op.get_context().autocommit_block():
        if beside:
            op.execute(f"ALTER TABLE stage SET ({STORAGE})")
        op.create_index(
            "ix_stage_held",
            "stage",
            ["worker_id"],
            sqlite_where=HELD,
            postgresql_where=HELD,
            if_not_exists=True,
            **beside,
        )
        op.create_index(
            "ix_stage_open",
            "stage",
            ["queue", "state"],
            sqlite_where=OPEN,
            postgresql_where=OPEN,
            if_not_exists=True,
            **beside,
        )
        op.drop_index("ix_stage_lease", table_name="stage", if_exists=True, **beside)
        op.drop_index("ix_stage_hint", table_name="stage", if_exists=True, **beside)


def downgrade() -> None:
    kept = sa.text("lease_until IS NOT NULL")
    announced = sa.text("hinted_at IS NOT NULL")
    op.create_index("ix_stage_lease", "stage", ["lease_until"], sqlite_where=kept, postgresql_where=kept)
    op.create_index("ix_stage_hint", "stage", ["hinted_at"], sqlite_where=announced, postgresql_where=announced)
    op.drop_index("ix_stage_open", table_name="stage")
    op.drop_index("ix_stage_held", table_name="stage")
