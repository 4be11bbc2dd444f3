"""The table of reviews: what a person says of an item, beside what the machine says."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Row


class Review(Row):
    """One item's review as it stands; every change of it is in the audit log."""

    __tablename__ = "review"
    __table_args__ = (
        CheckConstraint("decision IS NULL OR decision IN ('approved', 'rejected')", name="decision"),
        Index(None, "batch_id"),
    )

    item_id: Mapped[str] = mapped_column(ForeignKey("item.id"), primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    owner: Mapped[str]
    decision: Mapped[str | None]
    """None where it was only starred or given a note."""
    starred: Mapped[bool] = mapped_column(default=False)
    note: Mapped[str] = mapped_column(Text, default="")
    by: Mapped[str]
    """Id of the key that it was given with, or the owner at the command line."""
    at: Mapped[datetime]
