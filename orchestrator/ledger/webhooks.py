"""Receivers of events, and what is on its way to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from orchestrator.errors import NotFoundError
from orchestrator.ledger import audit
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.tables.rows_api import Delivery, Webhook

MOST_TRIES = 16
LONGEST_SECONDS = 6 * 3600
"""Back-off 5, 10, 20 ... s up to this: about a day in all, then the event is `failed` and can be replayed."""


@retrying
def add(
    ledger: Ledger, *, webhook_id: str, owner: str, url: str, events: Sequence[str], data_key: str | None, secret: str
) -> Webhook:
    """Enter a receiver."""
    with ledger.write() as session:
        moment = now(session)
        row = Webhook(
            id=webhook_id,
            owner=owner,
            url=url,
            events=list(events),
            data_key=data_key,
            secret=secret,
            created_at=moment,
        )
        session.add(row)
        session.flush()
        audit.write(session, owner, "webhook.create", row.id, {"events": list(events)}, moment)
        return row


def get(session: Session, owner: str, webhook_id: str) -> Webhook:
    """Return a receiver of this owner.

    Raises:
        NotFoundError: there is none.
    """
    query = select(Webhook).where(Webhook.owner == owner, Webhook.id == webhook_id, Webhook.removed_at.is_(None))
    row = session.scalars(query).first()
    if row is None:
        raise NotFoundError(f"there is no webhook {webhook_id!r}", code="webhook_not_found")
    return row


def listing(session: Session, owner: str) -> Sequence[Webhook]:
    """Return an owner's receivers, oldest first."""
    query = select(Webhook).where(Webhook.owner == owner, Webhook.removed_at.is_(None)).order_by(Webhook.id)
    return session.scalars(query).all()


@retrying
def remove(ledger: Ledger, owner: str, webhook_id: str) -> None:
    """Take a receiver away; what was on its way to it is dropped.

    Raises:
        NotFoundError: there is none.
    """
    with ledger.write() as session:
        row = get(session, owner, webhook_id)
        row.removed_at = now(session)
        session.execute(
            update(Delivery)
            .where(Delivery.webhook_id == row.id, Delivery.state == "due")
            .values(state="failed", error="the webhook was removed")
        )
        audit.write(session, owner, "webhook.remove", row.id, {}, row.removed_at)


def announce(session: Session, owner: str, event: str, data: dict[str, Any], moment: datetime) -> None:
    """Put an event on its way to every receiver that wants it, inside the caller's transaction."""
    for row in listing(session, owner):
        if event in row.events:
            put(session, row, event, data, moment)


def put(session: Session, receiver: Webhook, event: str, data: dict[str, Any], moment: datetime) -> Delivery:
    """Put an event on its way to one receiver."""
    row = Delivery(
        id=new_id("msg"),
        owner=receiver.owner,
        webhook_id=receiver.id,
        event=event,
        body={"type": event, "timestamp": moment.isoformat(), "data": data},
        state="due",
        created_at=moment,
        next_at=moment,
    )
    session.add(row)
    session.flush()
    return row


def due(session: Session, moment: datetime, limit: int = 50) -> Sequence[tuple[Delivery, Webhook]]:
    """Return the oldest event of each receiver that is ready: its events stay in the order of what they tell."""
    order = (Delivery.created_at, Delivery.id)
    place = func.row_number().over(partition_by=Delivery.webhook_id, order_by=order)
    waiting = select(Delivery.id, place.label("place")).where(Delivery.state == "due").subquery()
    query = (
        select(Delivery, Webhook)
        .join(waiting, waiting.c.id == Delivery.id)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .where(waiting.c.place == 1, Delivery.next_at <= moment)
        .order_by(Delivery.next_at)
        .limit(limit)
    )
    return list(session.execute(query).tuples())


def follow_the_clock(session: Session, moment: datetime) -> None:
    """Make due what a clock, since turned back, had put out of reach."""
    latest = moment + timedelta(seconds=LONGEST_SECONDS)
    session.execute(update(Delivery).where(Delivery.state == "due", Delivery.next_at > latest).values(next_at=moment))


def deliveries(session: Session, webhook_id: str, limit: int = 50) -> Sequence[Delivery]:
    """Return the newest events of a receiver."""
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    return session.scalars(query.order_by(Delivery.created_at.desc(), Delivery.id.desc()).limit(limit)).all()


@retrying
def sent(ledger: Ledger, delivery_id: str, status: int) -> None:
    """Note that an event was taken."""
    with ledger.write() as session:
        session.execute(
            update(Delivery)
            .where(Delivery.id == delivery_id)
            .values(state="sent", status=status, error=None, tries=Delivery.tries + 1, sent_at=now(session))
        )


@retrying
def postpone(ledger: Ledger, delivery: Delivery, error: str, status: int | None) -> None:
    """Note a failed try and set the time of the next, or give the event up."""
    with ledger.write() as session:
        seconds = min(LONGEST_SECONDS, 5 * 2**delivery.tries)
        over = delivery.tries + 1 >= MOST_TRIES
        session.execute(
            update(Delivery)
            .where(Delivery.id == delivery.id, Delivery.state == "due")
            .values(
                state="failed" if over else "due",
                tries=delivery.tries + 1,
                status=status,
                error=error[:500],
                next_at=now(session) + timedelta(seconds=seconds),
            )
        )


@retrying
def replay(ledger: Ledger, owner: str, webhook_id: str, delivery_id: str | None = None) -> int:
    """Send events again, under their old ids: one, or all that were given up; return how many.

    Raises:
        NotFoundError: there is no such webhook, or no such event of it.
    """
    with ledger.write() as session:
        row = get(session, owner, webhook_id)
        which = Delivery.id == delivery_id if delivery_id else Delivery.state.in_(("failed", "due"))
        found = session.scalars(
            update(Delivery)
            .where(Delivery.webhook_id == row.id, which)
            .values(state="due", tries=0, next_at=now(session), sent_at=None)
            .returning(Delivery.id)
        ).all()
        if delivery_id and not found:
            raise NotFoundError(f"there is no delivery {delivery_id!r}", code="delivery_not_found")
        return len(found)
