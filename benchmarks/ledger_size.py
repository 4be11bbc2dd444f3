"""What the ledger's hot questions cost when it has a year behind it, as pages that PostgreSQL reads.

python -m benchmarks.ledger_size URL --ended 100000 --running 50 --paused 1000000

fills an empty database with ended batches, running ones and one large paused one, and prints the pages of a claim, of
a look for work to announce, and of a scrape. `tests/integration/ledger/test_history.py` holds the bounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, event, text

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import claims, wakeups, workers
from orchestrator.ledger.views import health, listings

BATCHES = """
INSERT INTO batch (id, owner, kind, name, state, lane, priority, preset, options, total, rejected_rows, open,
                   created_at, served_at, started_at, finished_at)
SELECT CAST(:mark AS varchar) || '_' || n, 'owner' || n % :owners, 'generate', 'b', CAST(:state AS varchar), 'bulk',
       0, 'mini', '{}', :items, '[]', false,
       now() - interval '1 hour', now() - interval '1 minute', now() - interval '1 hour',
       CASE WHEN CAST(:state AS varchar) = 'completed' THEN now() END
FROM generate_series(1, :count) AS n
"""
ITEMS = """
INSERT INTO item (id, batch_id, owner, position, custom_id, state, stages, params, params_sha256, seed, cost, redraws,
                  created_at)
SELECT batch.id || '_' || n, batch.id, batch.owner, n, 'c' || n,
       CASE WHEN batch.state = 'completed' THEN 'completed' ELSE 'queued' END, '[]', '{}', '', n, 0, 0, now()
FROM batch, generate_series(1, :items) AS n WHERE batch.id LIKE CAST(:mark AS varchar) || '\\_%'
"""
STAGES = """
INSERT INTO stage (item_id, batch_id, owner, name, round, ordinal, queue, state, token, progress, signs, crashes,
                   failures, alone, next_at, queued_at)
SELECT item.id, item.batch_id, item.owner, 'generate', 0, 0, 'gpu.generate',
       CASE WHEN item.state = 'completed' THEN 'completed' ELSE 'queued' END, 0, 0, 0, 0, 0, false,
       now() - interval '1 minute', now()
FROM item WHERE item.batch_id LIKE CAST(:mark AS varchar) || '\\_%'
"""


GROUP = 8
"""So many stages a claim takes."""


def fill(ledger: Ledger, mark: str, state: str, *, count: int, items: int, owners: int = 20) -> None:
    """Write `count` batches of `items` drawings each, all in one state, as old clients would have left them."""
    given = {"mark": mark, "state": state, "count": count, "items": items, "owners": owners}
    with ledger.write() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in (BATCHES, ITEMS, STAGES):
            session.execute(text(statement), given)


def settle(ledger: Ledger) -> None:
    """Let PostgreSQL see what was written, as its own housekeeping would."""
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")
        for table in ("batch", "item", "stage", "turn", "wakeup"):
            connection.exec_driver_sql(f"VACUUM ANALYZE {table}")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The pages that one statement read, in tables, indexes and the checks of its foreign keys, and its time."""

    pages: int
    seconds: float
    statement: str


FETCHED = """
SELECT coalesce(sum(pg_stat_get_xact_blocks_fetched(oid)), 0) FROM pg_class WHERE relnamespace = 'public'::regnamespace
"""
"""Pages of our own tables and indexes that this connection asked for and has not reported yet."""


def cost(ledger: Ledger, act: Callable[[], object]) -> list[Cost]:
    """Do something once and return what each of its statements cost, as PostgreSQL counted while it was done."""
    found: list[Cost] = []
    before: tuple[int, float] = (0, 0.0)

    def fetched(connection: Connection) -> int:
        cursor = connection.connection.cursor()
        cursor.execute(FETCHED)
        (pages,) = cursor.fetchone() or (0,)
        return int(pages)

    def begin(connection: Connection, *_: object) -> None:
        nonlocal before
        before = fetched(connection), time.perf_counter()

    def end(connection: Connection, _: object, statement: str, *__: object) -> None:
        took = time.perf_counter() - before[1]
        pages = fetched(connection) - before[0]
        if pages:
            found.append(Cost(pages=pages, seconds=took, statement=" ".join(statement.split())[:90]))

    event.listen(ledger.engine, "before_cursor_execute", begin)
    event.listen(ledger.engine, "after_cursor_execute", end)
    act()
    event.remove(ledger.engine, "before_cursor_execute", begin)
    event.remove(ledger.engine, "after_cursor_execute", end)
    return found


def questions(ledger: Ledger) -> dict[str, Callable[[], object]]:
    """The hot questions by name."""

    def scrape() -> None:
        with ledger.read() as session:
            moment = now(session)
            listings.queues(session)
            health.open_batches(session)
            health.oldest_due(session, moment)
            health.demand(session, moment)
            health.backlog(session, moment, grace_seconds=60)

    def claim() -> object:
        return claims.claim(
            ledger, worker_id="w", queues=["gpu.generate", "cpu.io"], limit=GROUP, lease_seconds=60, begin=True
        )

    return {"claim": claim, "look": lambda: wakeups.take(ledger, ttl_seconds=900), "scrape": scrape}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--ended", type=int, default=100_000)
    parser.add_argument("--running", type=int, default=50)
    parser.add_argument("--paused", type=int, default=1_000_000, help="stages that wait in one paused batch")
    given = parser.parse_args()
    schema.upgrade(given.url)
    ledger = Ledger(given.url)
    fill(ledger, "ended", "completed", count=given.ended, items=1)
    fill(ledger, "paused", "paused", count=1, items=given.paused)
    fill(ledger, "running", "in_progress", count=given.running, items=100)
    settle(ledger)
    workers.register(ledger, owner="o", device="cpu", queues=["gpu.generate", "cpu.io"])
    asked = questions(ledger)
    asked["claim"]()  # the first of an owner writes the row of its turn
    for name, act in asked.items():
        costs = cost(ledger, act)
        pages, seconds = sum(one.pages for one in costs), sum(one.seconds for one in costs)
        sys.stdout.write(f"{name}: {pages} pages, {seconds * 1000:.1f} ms\n")
        for one in costs:
            sys.stdout.write(f"  {one.pages:8d} {one.seconds * 1000:8.1f} ms  {one.statement}\n")


if __name__ == "__main__":
    main()
