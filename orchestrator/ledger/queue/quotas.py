"""How much one owner may have waiting, asked where items and uploads enter, in the transaction that enters them.

No door can forget it: command line, HTTP, photos, schedules, redo, retry and append all come through `batches.enter`
or `batches.append`. The limits come with the ledger that a process opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from orchestrator.contracts.base import JsonObject
from orchestrator.contracts.portraits import PortraitParams
from orchestrator.errors import LimitError
from orchestrator.ledger.engine.session import Quota
from orchestrator.ledger.engine.states import UNENDED, BatchState
from orchestrator.ledger.tables.rows import Batch, Item
from orchestrator.ledger.tables.rows_api import Upload

DAY = timedelta(days=1)


def check_items(session: Session, owner: str, kind: str, params: Sequence[JsonObject], moment: datetime) -> None:
    """Refuse items that are more than their owner may have waiting, or ask for more pixels than a day allows.

    Raises:
        LimitError: `quota_items` or `quota_pixels`; nothing was entered.
    """
    quota = _quota(session, owner)
    if quota is None or not params:
        return
    waiting = open_items(session, owner) if quota.items else 0
    if quota.items and waiting + len(params) > quota.items:
        raise LimitError(
            f"{waiting} items wait already, {len(params)} more are over the limit of {quota.items}",
            code="quota_items",
            retry_after=60,
        )
    if not quota.pixels_day or kind != "generate":
        return
    asked = pixels_since(session, owner, moment - DAY)
    if asked >= quota.pixels_day:
        raise LimitError(
            f"{asked / 1e6:.0f} megapixels were asked for in 24 hours, the limit is {quota.pixels_day / 1e6:.0f}",
            code="quota_pixels",
            retry_after=3600,
        )


def check_upload(session: Session, owner: str, size: int) -> None:
    """Refuse a file that is more than its owner may have on the way or unused.

    Raises:
        LimitError: `quota_upload_bytes`.
    """
    quota = _quota(session, owner)
    if quota is None or not quota.upload_bytes:
        return
    held = select(func.sum(Upload.size)).where(Upload.owner == owner, Upload.state.in_(("open", "complete")))
    there = session.scalar(held) or 0
    if there + size > quota.upload_bytes:
        raise LimitError(
            f"uploads hold {there} bytes already, {size} more are over the limit of {quota.upload_bytes}; "
            "delete some, or wait until they are used",
            code="quota_upload_bytes",
            retry_after=3600,
        )


def open_items(session: Session, owner: str) -> int:
    """Return how many items of an owner wait or run."""
    query = (
        select(func.count())
        .select_from(Item)
        .join(Batch, Batch.id == Item.batch_id)
        .where(
            Batch.owner == owner,
            Batch.state.in_((BatchState.IN_PROGRESS, BatchState.PAUSED)),
            Item.state.in_(UNENDED),
        )
    )
    return session.scalar(query) or 0


def pixels_since(session: Session, owner: str, moment: datetime) -> int:
    """Return how many pixels an owner has asked for since a moment."""
    sides = [Item.params[PortraitParams.column_key(side)].as_integer() for side in ("width", "height")]
    query = (
        select(func.sum(sides[0] * sides[1]))
        .join(Batch, Batch.id == Item.batch_id)
        .where(Batch.owner == owner, Batch.kind == "generate", Batch.created_at >= moment)
    )
    return int(session.scalar(query) or 0)


def _quota(session: Session, owner: str) -> Quota | None:
    """Return the limits that hold in this session, or None; from now on nobody else asks for this owner.

    SQLite has one writer anyhow. On PostgreSQL two that enter at once would both see room for one.
    """
    quota: Quota | None = session.info.get(Quota.__name__)
    if quota is not None and session.get_bind().dialect.name == "postgresql":
        session.execute(
            text("SELECT pg_advisory_xact_lock(hashtext('fpga.quota'), hashtext(:owner))"), {"owner": owner}
        )
    return quota
