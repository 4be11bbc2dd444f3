"""The page of schedules: added, run, removed; another owner's are not shown, nor changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import ScheduledPortraits
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.views import listings
from orchestrator.runtime import schedules
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


def test_the_form_offers_every_option_of_a_submit_and_keeps_what_was_chosen(
    page: TestClient, settings: Settings, ledger: Ledger
) -> None:
    html = page.get("/schedules").text
    offered = set(SubmitOptions.model_fields) - {"growing"}
    assert {name for name in offered if f'name="{name}"' in html} == offered

    chosen = {"lane": "interactive", "priority": "2", "seed": "9", "paused": "true", "stop_after": "3", "style": ""}
    timing = {"name": "night", "cron": "0 2 * * *", "timezone": "UTC"}
    sent = page.post(
        "/schedules", data={**timing, **chosen}, files={"manifest": ("n.jsonl", lines(ROW))}, follow_redirects=False
    )
    assert sent.status_code == 303
    (one,) = schedules.listing(ledger, "local")
    kept = ScheduledPortraits.load(one.task).options
    assert (kept.lane, kept.priority, kept.seed, kept.paused, kept.stop_after) == ("interactive", 2, 9, True, 3)

    wrong = page.post("/schedules", data={**timing, "priority": "9"}, files={"manifest": ("n.jsonl", lines(ROW))})
    assert wrong.status_code == 422
    assert 'name="priority" value="9"' in wrong.text


def test_a_batch_under_way_is_named_by_a_change(ledger: Ledger, settings: Settings, page: TestClient) -> None:
    add(page, ROW)
    page.post("/schedules/night/run")
    (one,) = schedules.listing(ledger, "local")
    assert one.under_way is not None
    data = {"name": "night", "cron": "0 4 * * *", "timezone": "UTC", "replace": "true"}
    page.post("/schedules", data=data, files={"manifest": ("n.jsonl", lines(ROW))})
    (changed,) = schedules.listing(ledger, "local")
    assert (changed.cron, changed.under_way) == ("0 4 * * *", one.under_way)
