"""The same behaviour suite runs over SQLite and PostgreSQL, on schemas that migrations made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "empty.sqlite3"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, migrated_sqlite: Path) -> Iterator[Ledger]:
    if request.param == "sqlite":
        path = tmp_path / "ledger.sqlite3"
        shutil.copy(migrated_sqlite, path)
        url = f"sqlite:///{path}"
    else:
        url = request.getfixturevalue("postgres_url")
        schema.upgrade(url)
    opened = Ledger(url)
    yield opened
    opened.dispose()
