"""The bell: what to announce on the broker, and never more than a small window of it.

A hint only wakes a worker; losing one costs the time until it is sent again, a second one finds nothing to claim.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, exists, func, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from orchestrator.errors import TransientError
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BatchState, State
from orchestrator.ledger.queue import workers
from orchestrator.ledger.tables.rows import Audit, Batch, Stage, Wakeup

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
        self._version: object = None

    def came(self) -> bool:
        """Say whether there was a request since the last call.

        Raises:
            TransientError: the database does not answer.
        """
        try:
            if self._connection is None:
                # no transaction: on PostgreSQL its begin and end would cost more than the statement
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if self._unchanged(self._connection):
                return False
            newest = self._connection.scalar(NEWEST)
            self._connection.rollback()
        except DBAPIError as error:
            self._connection = None
            raise TransientError(f"the database did not answer: {error.orig}", code="database_unavailable") from error
        before, self._seen = self._seen, newest
        return newest != before

    def _unchanged(self, connection: Connection) -> bool:
        """Say whether nobody committed anything to an SQLite file since the last call; that costs no statement."""
        if connection.dialect.name != "sqlite":
            return False
        cursor = connection.connection.cursor()
        try:
            cursor.execute("PRAGMA data_version")
            before, self._version = self._version, cursor.fetchone()
        finally:
            cursor.close()
        return self._version == before


@retrying
def take(ledger: Ledger, *, ttl_seconds: float) -> list[tuple[str, int]]:
    """Choose (queue, number) of the messages to send: so many as have due work, never more than two a live worker.

    What was sent and not taken is a row, so that a worker that is busy for long finds no heap of messages behind it.
    Writes only where there is something to announce, so that it can be asked many times a second.
    """
    with ledger.read() as session:
        chosen = _choose(session, now(session), timedelta(seconds=ttl_seconds))
    if not chosen:
        return []
    with ledger.write() as session:
        moment = now(session)
        age = timedelta(seconds=ttl_seconds)
        session.execute(delete(Wakeup).where(~Wakeup.sent_at.between(moment - age, moment + age)))
        rows = [Wakeup(queue=queue, sent_at=moment) for queue in chosen]
        session.add_all(rows)
        session.flush()
        return [(row.queue, row.id) for row in rows]


def _choose(session: Session, moment: datetime, age: timedelta) -> list[str]:
    living = workers.living(session, moment)
    slots = Counter(queue for worker in living for queue in worker.queues)
    # one that lies further ahead was sent before the clock was turned back
    fresh = Wakeup.sent_at.between(moment - age, moment + age)
    count = select(Wakeup.queue, func.count()).where(fresh).group_by(Wakeup.queue)
    outstanding = dict(session.execute(count).tuples().all())
    rest = 2 * len(living) - sum(outstanding.values())
    chosen: list[str] = []
    for queue in slots:
        room = min(2 * slots[queue] - outstanding.get(queue, 0), rest - len(chosen))
        if room > 0:
            chosen += [queue] * due(session, queue, moment, room)
    return chosen


def due(session: Session, queue: str, moment: datetime, most: int) -> int:
    """Count due stages of a queue up to a bound, by batch: what waits in paused ones is never looked at."""
    here = Stage.batch_id == Batch.id, Stage.queue == queue, Stage.state == State.QUEUED, Stage.next_at <= moment
    some = select(literal(1)).where(*here).limit(most).correlate(Batch).subquery()
    count = select(func.count()).select_from(some).correlate(Batch).scalar_subquery()
    first = exists().where(*here)
    found = select(count).select_from(Batch).where(Batch.state == BatchState.IN_PROGRESS, first).limit(most)
    counts: Sequence[int] = session.scalars(found).all()
    return min(most, sum(counts))


@retrying
def taken(ledger: Ledger, number: int) -> None:
    """Note that a worker has taken a message, so that another may be sent."""
    with ledger.write() as session:
        session.execute(delete(Wakeup).where(Wakeup.id == number))


@retrying
def lost(ledger: Ledger, queues: Sequence[str]) -> None:
    """Forget what was sent to these queues: an idle worker found work there that no message told it of."""
    with ledger.write() as session:
        session.execute(delete(Wakeup).where(Wakeup.queue.in_(queues)))


def ring(ledger: Ledger, send: Send, *, ttl_seconds: float) -> int:
    """Announce what is due and return how many messages went out; a silent broker is only worth a log line."""
    sent = 0
    for queue, number in take(ledger, ttl_seconds=ttl_seconds):
        try:
            # on the wire it is still called stage_id: workers of the version before know no other name
            send(queue, {"v": MESSAGE_VERSION, "queue": queue, "stage_id": number})
        except (OSError, TransientError) as error:
            log.warning("broker does not answer", extra={"queue": queue, "error": type(error).__name__})
            break
        sent += 1
    return sent
