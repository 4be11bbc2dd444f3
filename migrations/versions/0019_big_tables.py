"""Big tables: one index of what is open for two, one of what is held, room on pages for what is written twice.

Workers of the version before go on while it runs; on PostgreSQL indexes are made beside their work.

Revision: 0019, after 0018.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

OPEN = sa.text("state IN ('queued', 'leased', 'running', 'cancelling')")
STUCK = sa.text("state IN ('held')")
VACUUM = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02"
STORAGE = {"batch": f"fillfactor = 80, {VACUUM}", "attempt": f"fillfactor = 80, {VACUUM}", "item": VACUUM}


def upgrade() -> None:
    big = op.get_bind().dialect.name == "postgresql"
    beside = {"postgresql_concurrently": True} if big else {}
    with op.get_context().autocommit_block():
        if big:
            op.execute("SET statement_timeout = 0")
            for table, options in STORAGE.items():
                op.execute(f"ALTER TABLE {table} SET ({options})")
        for name, table, columns, where in (
            ("ix_stage_due_open", "stage", ["queue", "state", "next_at"], OPEN),
            ("ix_item_held", "item", ["batch_id"], STUCK),
        ):
            op.create_index(
                name, table, columns, sqlite_where=where, postgresql_where=where, if_not_exists=True, **beside
            )
        for name in ("ix_stage_due", "ix_stage_open"):
            op.drop_index(name, table_name="stage", if_exists=True, **beside)


def downgrade() -> None:
    op.drop_index("ix_item_held", table_name="item")
    op.create_index("ix_stage_due", "stage", ["queue", "state", "next_at"])
    op.create_index("ix_stage_open", "stage", ["queue", "state"], sqlite_where=OPEN, postgresql_where=OPEN)
    op.drop_index("ix_stage_due_open", table_name="stage")
