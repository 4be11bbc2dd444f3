"""Scans: photos of archives, the faces in them, and the people that these faces were grouped into.

Revision: 0020, after 0019.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

WORD = sa.String(length=255)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "scanned_photo",
        sa.Column("id", WORD, nullable=False),
        sa.Column("owner", WORD, nullable=False),
        sa.Column("place_sha256", WORD, nullable=False),
        sa.Column("archive", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified", MOMENT, nullable=True),
        sa.Column("file_sha256", WORD, nullable=False),
        sa.Column("pixels_sha256", WORD, nullable=False),
        sa.Column("phash", WORD, nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("orientation", sa.Integer(), nullable=False),
        sa.Column("faces_key", WORD, nullable=False),
        sa.Column("batch_id", WORD, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_scanned_photo_batch_id_batch")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scanned_photo")),
        sa.UniqueConstraint("owner", "place_sha256", name=op.f("uq_scanned_photo_owner_place_sha256")),
    )
    op.create_index(op.f("ix_scanned_photo_owner_pixels_sha256"), "scanned_photo", ["owner", "pixels_sha256"])
    op.create_table(
        "found_person",
        sa.Column("id", WORD, nullable=False),
        sa.Column("owner", WORD, nullable=False),
        sa.Column("encoder", WORD, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("of", WORD, nullable=True),
        sa.Column("handle", WORD, nullable=True),
        sa.Column("name", WORD, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["of"], ["found_person.id"], name=op.f("fk_found_person_of_found_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_found_person")),
    )
    op.create_index(op.f("ix_found_person_owner_handle"), "found_person", ["owner", "handle"])
    op.create_index(op.f("ix_found_person_of"), "found_person", ["of"])
    op.create_table(
        "found_face",
        sa.Column("id", WORD, nullable=False),
        sa.Column("owner", WORD, nullable=False),
        sa.Column("pixels_sha256", WORD, nullable=False),
        sa.Column("encoder", WORD, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("person_id", WORD, nullable=True),
        sa.Column("decided", sa.Boolean(), nullable=False),
        sa.Column("refused", sa.JSON(), nullable=False),
        sa.Column("quality", sa.Double(), nullable=False),
        sa.Column("face", sa.JSON(), nullable=False),
        sa.Column("data_key", WORD, nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("crop", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["found_person.id"], name=op.f("fk_found_face_person_id_found_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_found_face")),
        sa.UniqueConstraint(
            "owner", "pixels_sha256", "encoder", "number", name=op.f("uq_found_face_owner_pixels_sha256_encoder_number")
        ),
    )
    op.create_index(op.f("ix_found_face_person_id"), "found_face", ["person_id"])


def downgrade() -> None:
    op.drop_table("found_face")
    op.drop_table("found_person")
    op.drop_table("scanned_photo")
