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


def asked(nobody: TestClient, what: str) -> tuple[int, str]:
    answer = nobody.get(f"/health/{what}")
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, answer.json()["status"]


def test_a_server_with_a_database_and_a_sweeper_is_ready_and_needs_no_key(nobody: TestClient, led: None) -> None:
    assert nobody.get("/health/live").status_code == 200
    assert asked(nobody, "ready") == asked(nobody, "work") == (200, "ok")


def test_without_a_sweeper_a_server_answers_people_but_no_work_is_done(nobody: TestClient) -> None:
    assert asked(nobody, "ready") == (200, "ok")
    assert asked(nobody, "work") == (503, "sweeper")


def test_a_sweeper_that_is_gone_takes_no_server_away(nobody: TestClient, ledger: Ledger, led: None) -> None:
    with ledger.write() as session:
        session.execute(update(Leader).values(lease_until=datetime.now(UTC) - timedelta(seconds=1)))

    assert asked(nobody, "ready") == (200, "ok")
    assert asked(nobody, "work") == (503, "sweeper")


@pytest.mark.parametrize(("revision", "answers"), [("0001", False), ("9999", True)])
def test_an_older_database_makes_a_server_unready_a_newer_one_does_not(
    nobody: TestClient, ledger: Ledger, led: None, revision: str, answers: bool
) -> None:
    with ledger.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})

    wanted = (200, "ok") if answers else (503, "database")
    assert asked(nobody, "ready") == asked(nobody, "work") == wanted


def test_a_database_that_does_not_answer_makes_a_server_unready(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url_": "postgresql+psycopg://nobody@127.0.0.1:9/ledger"})
    away.__dict__.pop("database_url", None)  # what was computed before
    server = TestClient(create_app(away))

    assert asked(server, "ready") == asked(server, "work") == (503, "database")


def test_a_queue_over_depth_is_said_until_it_is_shorter_and_takes_no_server_away(
    settings: Settings, client: Client, person: AddPerson, led: None
) -> None:
    person("ada", "generate")
    shallow = TestClient(create_app(settings.model_copy(update={"ready_queue_depth": 2})))
    rows = [{"custom_id": f"i{n}", "people": [{"identity": "ada"}]} for n in range(3)]

    first = client().post("/v1/batches", json={"items": rows[:2]}).json()["id"]
    assert asked(shallow, "work") == (200, "ok")
    client().post("/v1/batches", json={"items": rows[2:]})
    assert asked(shallow, "work") == (503, "queue")
    assert asked(shallow, "ready") == (200, "ok")
    client().post(f"/v1/batches/{first}/cancel")
    assert asked(shallow, "work") == (200, "ok")
