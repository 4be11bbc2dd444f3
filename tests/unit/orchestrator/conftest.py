"""A migrated SQLite ledger, a local store and the test preset, all in the test's own folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store
from tests.unit.orchestrator.played import AddPerson, Played, add_person

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
    return partial(add_person, ledger)


@pytest.fixture
def worker(ledger: Ledger, store: ByteStore, settings: Settings) -> Played:
    return Played(ledger=ledger, store=store, settings=settings)
