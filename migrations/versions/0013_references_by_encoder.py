"""A reference may be embedded by several recognisers: one row for each.

Revision: 0013, after 0012.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

OLD, NEW = "uq_reference_identity_id_artifact_id", "uq_reference_identity_id_artifact_id_encoder"


def upgrade() -> None:
    with op.batch_alter_table("reference") as table:
        table.drop_constraint(op.f(OLD), type_="unique")
        table.create_unique_constraint(op.f(NEW), ["identity_id", "artifact_id", "encoder"])


def downgrade() -> None:
    op.execute(
        "DELETE FROM reference WHERE id NOT IN (SELECT MAX(id) FROM reference GROUP BY identity_id, artifact_id)"
    )
    with op.batch_alter_table("reference") as table:
        table.drop_constraint(op.f(NEW), type_="unique")
        table.create_unique_constraint(op.f(OLD), ["identity_id", "artifact_id"])
