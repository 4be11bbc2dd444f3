"""The bell: which stages to announce on the broker, and never more than a small window of them.

A hint only wakes a worker; losing one costs the time until it is sent again, a second one finds nothing to claim.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from orchestrator.errors import TransientError
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.queue import workers
from orchestrator.ledger.tables.rows import Audit, Batch, Stage

log = logging.getLogger(__name__)
MESSAGE_VERSION = 1
NEWEST = select(func.max(Audit.id))
Send = Callable[[str, dict[str, object]], None]
"""Sends one message, `send(queue, body)`; raises OSError when the broker cannot be reached."""


class Requests:
    """Tells, for the price of one tiny statement, whether anything was asked of the system: whatever is, is audited."""

    def __init__(self, ledger: Ledger) -> None:
        self._engine = ledger.engine
        self._connection: Connection | None = None
        self._seen: int | None = None

    def came(self) -> bool:
        """Say whether there was a request since the last call.

        Raises:
            TransientError: the database does not answer.
        """
        try:
            if self._connection is None:
                # no transaction: on PostgreSQL its begin and end would cost more than the statement
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            newest = self._connection.scalar(NEWEST)
            self._connection.rollback()
        except DBAPIError as error:
            self._connection = None
            raise TransientError(f"the database did not answer: {error.orig}", code="database_unavailable") from error
        before, self._seen = self._seen, newest
        return newest != before


@retrying
def take(ledger: Ledger, *, ttl_seconds: float) -> list[tuple[str, int]]:
    """Choose (queue, stage id) pairs to announce: due, not announced lately, at most two for each live worker.

    Writes only where there is something to announce, so that it can be asked many times a second.
    """
    with ledger.read() as session:
        moment = now(session)
        ttl = timedelta(seconds=ttl_seconds)
        # one that lies further ahead was sent before the clock was turned back
        heard = Stage.hinted_at.between(moment - ttl, moment + ttl)
        chosen = _choose(session, moment, heard)
    if not chosen:
        return []
    with ledger.write() as session:
        mine = session.scalars(
            update(Stage)
            .where(Stage.id.in_([stage_id for _, stage_id in chosen]), _unheard(heard))
            .values(hinted_at=moment)
            .returning(Stage.id)
        ).all()
    return [(queue, stage_id) for queue, stage_id in chosen if stage_id in mine]


def _unheard(heard: ColumnElement[bool]) -> ColumnElement[bool]:
    return or_(Stage.hinted_at.is_(None), ~heard)


def _choose(session: Session, moment: datetime, heard: ColumnElement[bool]) -> list[tuple[str, int]]:
    slots = Counter(queue for worker in workers.living(session, moment) for queue in worker.queues)
    outstanding = dict(
        session.execute(select(Stage.queue, func.count()).where(Stage.state == "queued", heard).group_by(Stage.queue))
        .tuples()
        .all()
    )
    chosen: list[tuple[str, int]] = []
    for queue in slots:
        room = 2 * slots[queue] - outstanding.get(queue, 0)
        if room <= 0:
            continue
        due = (
            select(Stage.id)
            .join(Batch, Batch.id == Stage.batch_id)
            .where(
                Stage.queue == queue,
                Stage.state == "queued",
                Stage.next_at <= moment,
                Batch.state == "in_progress",
                _unheard(heard),
            )
            .order_by(Stage.next_at)
            .limit(room)
        )
        chosen += [(queue, stage_id) for stage_id in session.scalars(due)]
    return chosen


def ring(ledger: Ledger, send: Send, *, ttl_seconds: float) -> int:
    """Announce what is due and return how many hints went out; a silent broker is only worth a log line."""
    sent = 0
    for queue, stage_id in take(ledger, ttl_seconds=ttl_seconds):
        try:
            send(queue, {"v": MESSAGE_VERSION, "queue": queue, "stage_id": stage_id})
        except (OSError, TransientError) as error:
            log.warning("broker does not answer", extra={"queue": queue, "error": type(error).__name__})
            break
        sent += 1
    return sent
