"""Effects on the outside world that belong to a committed change: written with it, delivered after, at least once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchestrator.ledger.tables.rows import Outbox

MAX_DELAY_SECONDS = 600


def add(session: Session, owner: str, kind: str, ref: str, body: dict[str, Any], moment: datetime) -> None:
    """Ask for an effect inside the caller's transaction."""
    session.add(Outbox(owner=owner, kind=kind, ref=ref, body=body, created_at=moment, next_at=moment))


def due(session: Session, moment: datetime, *, kinds: Sequence[str], limit: int = 50) -> Sequence[Outbox]:
    """Return the effects whose time has come, oldest first."""
    query = (
        select(Outbox)
        .where(Outbox.sent_at.is_(None), Outbox.next_at <= moment, Outbox.kind.in_(kinds))
        .order_by(Outbox.next_at, Outbox.id)
        .limit(limit)
    )
    return session.scalars(query).all()


def stuck(session: Session, kind: str, before: datetime) -> str | None:
    """Return why the first effect of a kind that was asked for before that time could not be delivered, or None."""
    query = (
        select(Outbox.error)
        .where(Outbox.sent_at.is_(None), Outbox.kind == kind, Outbox.tries > 0, Outbox.created_at < before)
        .order_by(Outbox.id)
        .limit(1)
    )
    return session.scalar(query)


def sent(session: Session, outbox_id: int, moment: datetime) -> None:
    """Mark an effect as delivered."""
    session.execute(update(Outbox).where(Outbox.id == outbox_id).values(sent_at=moment, error=None))


def postponed(session: Session, outbox_id: int, tries: int, error: str, moment: datetime) -> None:
    """Note a failed delivery and try again later: 5, 10, 20 ... at most 600 seconds."""
    delay = timedelta(seconds=min(MAX_DELAY_SECONDS, 5 * 2 ** min(tries, 10)))
    session.execute(
        update(Outbox).where(Outbox.id == outbox_id).values(tries=tries + 1, error=error[:500], next_at=moment + delay)
    )
