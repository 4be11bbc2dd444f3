"""Photo archives: batches that stay open, kept results of stages and whom they show, people of an archive.

Revision: 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("batch") as table:
        table.add_column(sa.Column("open", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "stage_result",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("stage", sa.String(length=255), nullable=False),
        sa.Column("item_id", sa.String(length=255), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("artifact_id", sa.String(length=255), nullable=True),
        sa.Column("data_key", sa.String(length=255), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name=op.f("fk_stage_result_artifact_id_artifact")),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_stage_result_item_id_item")),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_stage_result")),
    )
    op.create_index(op.f("ix_stage_result_artifact_id"), "stage_result", ["artifact_id"])
    op.create_table(
        "stage_result_identity",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("identity_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["identity_id"], ["identity.id"], name=op.f("fk_stage_result_identity_identity_id_identity")
        ),
        sa.PrimaryKeyConstraint("owner", "key", "identity_id", name=op.f("pk_stage_result_identity")),
    )
    op.create_index(op.f("ix_stage_result_identity_identity_id"), "stage_result_identity", ["identity_id"])
    op.create_table(
        "archive_person",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("batch_id", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("encoder", sa.String(length=255), nullable=False),
        sa.Column("faces", sa.JSON(), nullable=False),
        sa.Column("data_key", sa.String(length=255), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_archive_person_batch_id_batch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive_person")),
        sa.UniqueConstraint("batch_id", "number", name=op.f("uq_archive_person_batch_id_number")),
    )


def downgrade() -> None:
    op.drop_table("archive_person")
    op.drop_index(op.f("ix_stage_result_identity_identity_id"), table_name="stage_result_identity")
    op.drop_table("stage_result_identity")
    op.drop_index(op.f("ix_stage_result_artifact_id"), table_name="stage_result")
    op.drop_table("stage_result")
    with op.batch_alter_table("batch") as table:
        table.drop_column("open")
