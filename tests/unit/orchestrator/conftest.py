"""A migrated SQLite ledger, a local store and the test preset, all in the test's own folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.ledger import identities, schema
from orchestrator.ledger.base import new_id
from orchestrator.ledger.rows import Identity
from orchestrator.ledger.session import Ledger
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store
from tests.unit.orchestrator.played import AddPerson, Played

PRESETS = Path(__file__).parents[2] / "presets"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at the newest revision, made once by the migrations; tests work on copies."""
    path = tmp_path_factory.mktemp("migrated") / "ledger.sqlite3"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    models = tmp_path / "models"
    shutil.copytree(PRESETS, models)
    (models / "mini" / "weights.json").write_text(
        json.dumps({"format": 1, "model_sha256": "a" * 64, "made": {"command": "none"}, "files": {}})
    )
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    shutil.copy(migrated, state / "ledger.sqlite3")
    return Settings(state_dir=state, models_dir=models)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings.database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def store(settings: Settings) -> ByteStore:
    return open_store(settings)


@pytest.fixture
def person(ledger: Ledger) -> AddPerson:
    """Write a person with consents and without pictures, as if a worker had enrolled one; returns the id."""

    def add(handle: str, *scopes: str, expires_at: datetime | None = None) -> str:
        with ledger.write() as session:
            moment = datetime.now(UTC)
            row = Identity(id=new_id("idn"), owner="local", handle=handle, name=None, created_at=moment)
            session.add(row)
            session.flush()
            for scope in scopes:
                identities.grant(
                    session,
                    "local",
                    row.id,
                    scope=scope,
                    granted_by="test",
                    text_sha256=None,
                    expires_at=expires_at,
                    moment=moment,
                )
            return row.id

    return add


@pytest.fixture
def worker(ledger: Ledger, store: ByteStore, settings: Settings) -> Played:
    return Played(ledger=ledger, store=store, settings=settings)
