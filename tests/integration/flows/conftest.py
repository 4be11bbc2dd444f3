"""One embedded stack for all flow tests: real private Prefect server, its worker and the sweeper; no Celery worker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.embedded.stack import Stack
from orchestrator.ledger import identities
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Identity
from orchestrator.runtime.prefect.client import PrefectApi, connect
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store
from tests.unit.orchestrator.played import Played

PRESETS = Path(__file__).parents[2] / "presets"


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("flows")
    models = folder / "models"
    shutil.copytree(PRESETS, models)
    (models / "mini" / "weights.json").write_text(
        json.dumps({"format": 1, "model_sha256": "a" * 64, "made": {"command": "none"}, "files": {}})
    )
    return Settings(state_dir=folder / "state", models_dir=models, sweep_seconds=0.3)


@pytest.fixture(scope="session")
def stack(settings: Settings) -> Iterator[Stack]:
    with Stack(settings, workers=0) as running:
        running.wait_ready(240, prefect=True)
        yield running


@pytest.fixture(scope="session")
def ledger(stack: Stack, settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings.database_url)
    with opened.write() as session:
        moment = datetime.now(UTC)
        row = Identity(id=new_id("idn"), owner="local", handle="ada", name=None, created_at=moment)
        session.add(row)
        session.flush()
        identities.grant(
            session,
            "local",
            row.id,
            scope="generate",
            granted_by="test",
            text_sha256=None,
            expires_at=None,
            moment=moment,
        )
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def store(settings: Settings) -> ByteStore:
    return open_store(settings)


@pytest.fixture
def worker(ledger: Ledger, store: ByteStore, settings: Settings) -> Played:
    return Played(ledger=ledger, store=store, settings=settings)


@pytest.fixture
def api(stack: Stack, settings: Settings) -> Iterator[PrefectApi]:
    with connect(settings) as connection:
        yield connection
