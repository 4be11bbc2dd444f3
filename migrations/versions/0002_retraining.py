"""Retraining: runs, checkpoints, records, files of versions, evaluations, gate decisions.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_file",
        sa.Column("model_version_id", sa.String(length=255), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("artifact_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name=op.f("fk_model_file_artifact_id_artifact")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_model_file_model_version_id_model_version")
        ),
        sa.PrimaryKeyConstraint("model_version_id", "path", name=op.f("pk_model_file")),
    )
    with op.batch_alter_table("model_file", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_file_artifact_id"), ["artifact_id"], unique=False)

    op.create_table(
        "evaluation",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("model_version_id", sa.String(length=255), nullable=False),
        sa.Column("dataset_id", sa.String(length=255), nullable=True),
        sa.Column("batch_id", sa.String(length=255), nullable=True),
        sa.Column("suite", sa.String(length=255), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_evaluation_batch_id_batch")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_evaluation_model_version_id_model_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation")),
    )
    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_evaluation_batch_id"), ["batch_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_evaluation_model_version_id_suite"), ["model_version_id", "suite"], unique=False
        )

    op.create_table(
        "gate_decision",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("model_version_id", sa.String(length=255), nullable=False),
        sa.Column("against_id", sa.String(length=255), nullable=True),
        sa.Column("batch_id", sa.String(length=255), nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["against_id"], ["model_version.id"], name=op.f("fk_gate_decision_against_id_model_version")
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_gate_decision_batch_id_batch")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_gate_decision_model_version_id_model_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gate_decision")),
        sa.UniqueConstraint("batch_id", name=op.f("uq_gate_decision_batch_id")),
    )
    with op.batch_alter_table("gate_decision", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_gate_decision_model_version_id"), ["model_version_id"], unique=False)

    op.create_table(
        "training_run",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("preset", sa.String(length=255), nullable=False),
        sa.Column("dataset_id", sa.String(length=255), nullable=True),
        sa.Column("parent_id", sa.String(length=255), nullable=True),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("batch_id", sa.String(length=255), nullable=False),
        sa.Column("model_version_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_training_run_batch_id_batch")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_training_run_model_version_id_model_version")
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["model_version.id"], name=op.f("fk_training_run_parent_id_model_version")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_run")),
    )
    with op.batch_alter_table("training_run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_training_run_batch_id"), ["batch_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_training_run_owner_created_at"), ["owner", "created_at"], unique=False)

    op.create_table(
        "train_checkpoint",
        sa.Column("run_id", sa.String(length=255), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["training_run.id"], name=op.f("fk_train_checkpoint_run_id_training_run")),
        sa.PrimaryKeyConstraint("run_id", "step", name=op.f("pk_train_checkpoint")),
    )
    op.create_table(
        "train_checkpoint_file",
        sa.Column("run_id", sa.String(length=255), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("artifact_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifact.id"], name=op.f("fk_train_checkpoint_file_artifact_id_artifact")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["training_run.id"], name=op.f("fk_train_checkpoint_file_run_id_training_run")
        ),
        sa.PrimaryKeyConstraint("run_id", "step", "path", name=op.f("pk_train_checkpoint_file")),
    )
    with op.batch_alter_table("train_checkpoint_file", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_train_checkpoint_file_artifact_id"), ["artifact_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_train_checkpoint_file_run_id_step"), ["run_id", "step"], unique=False)

    op.create_table(
        "train_record",
        sa.Column("run_id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("artifact_id", sa.String(length=255), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('step', 'validation', 'sample')", name=op.f("ck_train_record_kind")),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name=op.f("fk_train_record_artifact_id_artifact")),
        sa.ForeignKeyConstraint(["run_id"], ["training_run.id"], name=op.f("fk_train_record_run_id_training_run")),
        sa.PrimaryKeyConstraint("run_id", "kind", "step", name=op.f("pk_train_record")),
    )
    with op.batch_alter_table("train_record", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_train_record_artifact_id"), ["artifact_id"], unique=False)

    with op.batch_alter_table("model_alias_move", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rollback", sa.Boolean(), nullable=True))

    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.add_column(sa.Column("dataset_id", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("code_version", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("seed", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.drop_column("seed")
        batch_op.drop_column("code_version")
        batch_op.drop_column("dataset_id")

    with op.batch_alter_table("model_alias_move", schema=None) as batch_op:
        batch_op.drop_column("rollback")

    with op.batch_alter_table("train_record", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_train_record_artifact_id"))

    op.drop_table("train_record")
    with op.batch_alter_table("train_checkpoint_file", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_train_checkpoint_file_run_id_step"))
        batch_op.drop_index(batch_op.f("ix_train_checkpoint_file_artifact_id"))

    op.drop_table("train_checkpoint_file")
    op.drop_table("train_checkpoint")
    with op.batch_alter_table("training_run", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_training_run_owner_created_at"))
        batch_op.drop_index(batch_op.f("ix_training_run_batch_id"))

    op.drop_table("training_run")
    with op.batch_alter_table("gate_decision", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_gate_decision_model_version_id"))

    op.drop_table("gate_decision")
    with op.batch_alter_table("evaluation", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_evaluation_model_version_id_suite"))
        batch_op.drop_index(batch_op.f("ix_evaluation_batch_id"))

    op.drop_table("evaluation")
    with op.batch_alter_table("model_file", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_file_artifact_id"))

    op.drop_table("model_file")
