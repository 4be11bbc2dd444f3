"""Health for load balancers and people: alive is one thing, ready for new work another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update
from starlette.testclient import TestClient

from orchestrator.api.app import create_app
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import sweeper
from orchestrator.ledger.tables.rows import Leader
from orchestrator.settings import Settings
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson


@pytest.fixture
def led(ledger: Ledger) -> None:
    assert sweeper.lead(ledger, holder="test", owner="local", seconds=600)


def ready(nobody: TestClient) -> tuple[int, str]:
    answer = nobody.get("/health/ready")
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, answer.json()["status"]


def test_a_server_with_a_database_and_a_sweeper_is_ready_and_needs_no_key(nobody: TestClient, led: None) -> None:
    assert nobody.get("/health/live").status_code == 200
    assert ready(nobody) == (200, "ok")


def test_without_a_sweeper_a_server_lives_but_is_not_ready(nobody: TestClient) -> None:
    assert nobody.get("/health/live").status_code == 200
    assert ready(nobody) == (503, "sweeper")


def test_a_sweeper_that_is_gone_turns_readiness_red(nobody: TestClient, ledger: Ledger, led: None) -> None:
    with ledger.write() as session:
        session.execute(update(Leader).values(lease_until=datetime.now(UTC) - timedelta(seconds=1)))

    assert ready(nobody) == (503, "sweeper")


def test_a_database_of_another_revision_turns_readiness_red(nobody: TestClient, ledger: Ledger, led: None) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))

    assert ready(nobody) == (503, "database")


def test_a_database_that_does_not_answer_turns_readiness_red(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url_": "postgresql+psycopg://nobody@127.0.0.1:9/ledger"})
    away.__dict__.pop("database_url", None)  # what was computed before

    assert ready(TestClient(create_app(away))) == (503, "database")


def test_a_queue_over_depth_turns_readiness_red_until_it_is_shorter(
    settings: Settings, client: Client, person: AddPerson, led: None
) -> None:
    person("ada", "generate")
    shallow = TestClient(create_app(settings.model_copy(update={"ready_queue_depth": 2})))
    rows = [{"custom_id": f"i{n}", "people": [{"identity": "ada"}]} for n in range(3)]

    first = client().post("/v1/batches", json={"items": rows[:2]}).json()["id"]
    assert ready(shallow) == (200, "ok")
    client().post("/v1/batches", json={"items": rows[2:]})
    assert ready(shallow) == (503, "queue")
    client().post(f"/v1/batches/{first}/cancel")
    assert ready(shallow) == (200, "ok")
