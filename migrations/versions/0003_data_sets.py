"""Data sets: versions by content, their shards and people, results of chunks.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "data_set",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_set")),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_data_set_owner_name")),
    )
    op.create_table(
        "data_set_chunk",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=255), nullable=False),
        sa.Column("shard_artifact_id", sa.String(length=255), nullable=False),
        sa.Column("facts_artifact_id", sa.String(length=255), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["facts_artifact_id"], ["artifact.id"], name=op.f("fk_data_set_chunk_facts_artifact_id_artifact")
        ),
        sa.ForeignKeyConstraint(
            ["shard_artifact_id"], ["artifact.id"], name=op.f("fk_data_set_chunk_shard_artifact_id_artifact")
        ),
        sa.PrimaryKeyConstraint("owner", "sha256", name=op.f("pk_data_set_chunk")),
    )
    with op.batch_alter_table("data_set_chunk", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_data_set_chunk_facts_artifact_id"), ["facts_artifact_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_data_set_chunk_shard_artifact_id"), ["shard_artifact_id"], unique=False)

    op.create_table(
        "data_set_version",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("data_set_id", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content_sha256", sa.String(length=255), nullable=False),
        sa.Column("preset", sa.String(length=255), nullable=False),
        sa.Column("encoder_sha256", sa.String(length=255), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("licence", sa.String(length=255), nullable=False),
        sa.Column("attestation", sa.Text(), nullable=True),
        sa.Column("batch_id", sa.String(length=255), nullable=True),
        sa.Column("index_artifact_id", sa.String(length=255), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("tainted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_data_set_version_batch_id_batch")),
        sa.ForeignKeyConstraint(
            ["data_set_id"], ["data_set.id"], name=op.f("fk_data_set_version_data_set_id_data_set")
        ),
        sa.ForeignKeyConstraint(
            ["index_artifact_id"], ["artifact.id"], name=op.f("fk_data_set_version_index_artifact_id_artifact")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_set_version")),
        sa.UniqueConstraint(
            "data_set_id", "content_sha256", name=op.f("uq_data_set_version_data_set_id_content_sha256")
        ),
        sa.UniqueConstraint("data_set_id", "number", name=op.f("uq_data_set_version_data_set_id_number")),
    )
    op.create_table(
        "data_set_identity",
        sa.Column("data_set_version_id", sa.String(length=255), nullable=False),
        sa.Column("identity_id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["data_set_version_id"],
            ["data_set_version.id"],
            name=op.f("fk_data_set_identity_data_set_version_id_data_set_version"),
        ),
        sa.ForeignKeyConstraint(
            ["identity_id"], ["identity.id"], name=op.f("fk_data_set_identity_identity_id_identity")
        ),
        sa.PrimaryKeyConstraint("data_set_version_id", "identity_id", name=op.f("pk_data_set_identity")),
    )
    with op.batch_alter_table("data_set_identity", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_data_set_identity_identity_id"), ["identity_id"], unique=False)

    op.create_table(
        "data_set_shard",
        sa.Column("data_set_version_id", sa.String(length=255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("artifact_id", sa.String(length=255), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name=op.f("fk_data_set_shard_artifact_id_artifact")),
        sa.ForeignKeyConstraint(
            ["data_set_version_id"],
            ["data_set_version.id"],
            name=op.f("fk_data_set_shard_data_set_version_id_data_set_version"),
        ),
        sa.PrimaryKeyConstraint("data_set_version_id", "position", name=op.f("pk_data_set_shard")),
    )
    with op.batch_alter_table("data_set_shard", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_data_set_shard_artifact_id"), ["artifact_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("data_set_shard", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_data_set_shard_artifact_id"))

    op.drop_table("data_set_shard")
    with op.batch_alter_table("data_set_identity", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_data_set_identity_identity_id"))

    op.drop_table("data_set_identity")
    op.drop_table("data_set_version")
    with op.batch_alter_table("data_set_chunk", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_data_set_chunk_shard_artifact_id"))
        batch_op.drop_index(batch_op.f("ix_data_set_chunk_facts_artifact_id"))

    op.drop_table("data_set_chunk")
    op.drop_table("data_set")
