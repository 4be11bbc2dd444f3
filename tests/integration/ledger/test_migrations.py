"""The schema is made by Alembic alone, goes down and up again, and equals the mapped rows, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.base import Row
from orchestrator.ledger.engine.session import Ledger


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
