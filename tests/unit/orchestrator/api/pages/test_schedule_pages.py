"""The page of schedules: added, run, removed; another owner's are not shown, nor changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.views import listings
from orchestrator.settings import Settings
from tests.unit.orchestrator.played import add_person, lines
from tests.unit.orchestrator.trained import add_dataset

ROW = {"custom_id": "a", "people": "ada"}


@pytest.fixture
def page(settings: Settings, ledger: Ledger) -> Iterator[TestClient]:
    add_person(ledger, "ada", "generate")
    with TestClient(create_app(settings), raise_server_exceptions=False) as made:
        made.get(keys.login_link(ledger, "local", ""))
        yield made


def add(page: TestClient, *rows: dict[str, str], file: str = "night.jsonl", cron: str = "0 2 * * *") -> tuple[int, str]:
    sent = page.post(
        "/schedules",
        data={"name": "night", "cron": cron, "timezone": "Europe/Berlin"},
        files={"manifest": (file, lines(*rows))},
    )
    return sent.status_code, sent.text


def test_a_schedule_is_added_run_and_removed_by_its_owner_alone(
    page: TestClient, settings: Settings, ledger: Ledger
) -> None:
    status, html = add(page, ROW)
    assert (status, 'aria-label="Run night now"' in html) == (200, True)
    assert add(page, ROW)[0] == 200, "the same again is as good"
    assert add(page, ROW, cron="0 3 * * *")[0] == 409
    stranger = TestClient(create_app(settings), raise_server_exceptions=False)
    stranger.get(keys.login_link(ledger, "eve", ""))
    assert 'aria-label="Run night now"' not in stranger.get("/schedules").text
    assert stranger.post("/schedules/night/remove").status_code == 404
    check_that_a_foreign_name_is_unknown(settings, ledger)

    assert page.post("/schedules/night/run").status_code == 200
    with ledger.read() as session:
        assert [one.name for one in listings.batches(session, "local") if one.kind == "generate"] == ["night"]
    assert "made</a>" in page.get("/schedules").text

    assert 'aria-label="Run night now"' not in page.post("/schedules/night/remove").text


def check_that_a_foreign_name_is_unknown(settings: Settings, ledger: Ledger) -> None:
    """Eve asks for local's schedule `night` and for one that never was, and makes a `night` of her own."""
    secret, _ = keys.create(ledger, "eve", name="test")
    eve = TestClient(create_app(settings), headers={"Authorization": f"Bearer {secret}"})
    for method, path in (("POST", "/v1/schedules/{}/run"), ("DELETE", "/v1/schedules/{}")):
        foreign, unknown = (eve.request(method, path.format(name)) for name in ("night", "never"))
        assert (foreign.status_code, unknown.status_code) == (404, 404)
        assert foreign.text.replace("night", "never") == unknown.text
    add_person(ledger, "bob", "generate", owner="eve")
    row = lines({"custom_id": "a", "people": "bob"}).decode()
    made = eve.post("/v1/schedules", json={"name": "night", "cron": "0 2 * * *", "manifest": row})
    assert made.status_code == 201, made.text
    assert [one["name"] for one in eve.get("/v1/schedules").json()["data"]] == ["night"]
    assert eve.delete("/v1/schedules/night").status_code == 204


@pytest.mark.parametrize(
    ("row", "file", "cron", "code"),
    [
        ({"custom_id": "a", "people": "nobody"}, "n.jsonl", "0 2 * * *", "row 1"),
        (ROW, "night.txt", "0 2 * * *", "bad_manifest_name"),
        (ROW, "n.jsonl", "0 99 * * *", "cannot be read"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused_on_the_page(
    page: TestClient, row: dict[str, str], file: str, cron: str, code: str
) -> None:
    status, html = add(page, row, file=file, cron=cron)

    assert status in (400, 409, 422)
    assert code in html
    assert 'aria-label="Run night now"' not in html


def test_training_by_the_clock_is_for_the_owner_of_the_deployment(
    page: TestClient, settings: Settings, ledger: Ledger
) -> None:
    add_dataset(ledger, "clock")
    form = {"name": "weekly", "cron": "0 3 * * 6", "dataset": "clock", "steps": "12", "preset": "mini"}

    assert 'aria-label="Remove weekly"' in page.post("/schedules/training", data=form).text
    stranger = TestClient(create_app(settings), raise_server_exceptions=False)
    stranger.get(keys.login_link(ledger, "eve", ""))
    assert stranger.post("/schedules/training/weekly/remove").status_code == 404
    assert "weekly" not in stranger.get("/schedules").text
    assert 'aria-label="Remove weekly"' not in page.post("/schedules/training/weekly/remove").text
