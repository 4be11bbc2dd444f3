"""The schema is made by Alembic alone, goes down and up again, and equals the mapped rows, on both databases."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.base import Row
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, outcomes
from tests.integration.ledger.helpers import LEASE, end, submit


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


def test_head_equals_the_rows_after_up_down_and_up(url: str) -> None:
    config = schema.config(url)

    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    ledger = Ledger(url)
    assert set(inspect(ledger.engine).get_table_names()) == {"alembic_version"}
    command.upgrade(config, "head")
    command.check(config)

    assert set(inspect(ledger.engine).get_table_names()) == {"alembic_version", *Row.metadata.tables}
    current, head = schema.revisions(ledger)
    assert current == head is not None
    ledger.dispose()


def test_a_second_upgrade_changes_nothing(url: str) -> None:
    schema.upgrade(url)
    schema.upgrade(url)

    command.check(schema.config(url))


def test_the_newest_migration_runs_beside_workers_at_work(postgres_url: str) -> None:
    """A worker that began under the schema of before goes on: nothing that it reads or writes goes or stays locked."""
    scripts = ScriptDirectory.from_config(schema.config(postgres_url))
    head = scripts.get_revision("head")
    command.upgrade(schema.config(postgres_url), str(head.down_revision))
    ledger = Ledger(postgres_url)
    migrated = threading.Event()
    done: list[int] = []

    def work() -> None:
        after = 0
        while after < 5:
            submit(ledger, 8)
            held = claims.claim(
                ledger, worker_id="w", queues=["gpu.generate"], limit=4, lease_seconds=LEASE, begin=True
            )
            assert outcomes.publish_all(ledger, [(c, end) for c in held]) == []
            done.extend(c.stage_id for c in held)
            after += migrated.is_set()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        while len(done) < 20 and not working.done():
            time.sleep(0.01)
        command.upgrade(schema.config(postgres_url), "head")
        migrated.set()
        working.result(timeout=60)

    assert len(done) == len(set(done)) >= 40
    assert schema.revisions(ledger)[0] == head.revision
    ledger.dispose()
