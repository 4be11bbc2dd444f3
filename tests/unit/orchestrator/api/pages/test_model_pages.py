"""Pages of models and training: verdicts, lineage, side by side, promote, roll back; runs are begun and stopped."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import registry, retraining, training
from orchestrator.settings import Settings
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.api.pages.test_pages import browser
from tests.unit.orchestrator.played import AddPerson, Played, lines
from tests.unit.orchestrator.trained import add_dataset, begin, finish, measure


@pytest.fixture
def page(app: FastAPI, ledger: Ledger) -> TestClient:
    return browser(app, ledger)


@pytest.fixture
def live(ledger: Ledger, settings: Settings) -> str:
    """The first champion, measured."""
    version = registry.ensure_registered(ledger, settings)
    measure(ledger, version, 0.7)
    return version


def trained(ledger: Ledger, settings: Settings, mean: float, sha256: str = "c" * 64, **recipe: object) -> str:
    run = begin(ledger, settings, "faces" if recipe.pop("again", False) else add_dataset(ledger), **recipe)
    version = finish(ledger, run, sha256, mean)
    retraining.conclude(ledger, run.batch_id)
    return version


def test_a_refused_version_is_promoted_only_against_the_gate_with_a_reason(
    page: TestClient, ledger: Ledger, settings: Settings, live: str
) -> None:
    worse = trained(ledger, settings, 0.4)
    assert "gate: refused" in page.get("/models").text
    html = page.get(f"/models/{worse}").text
    assert "is below 0.5000, the least value allowed" in html

    refused = page.post(f"/models/{worse}/promote", data={"reason": "a <i>hunch</i>"})
    forced = page.post(f"/models/{worse}/promote", data={"reason": "a <i>hunch</i>", "override": "true"})

    assert (refused.status_code, "gate_refused" in refused.text) == (409, True)
    assert "a &lt;i&gt;hunch&lt;/i&gt; (against the gate)" in forced.text
    assert registry.champion(ledger, settings, "mini") == worse


def test_a_version_that_passed_is_rolled_back_with_a_reason(
    page: TestClient, ledger: Ledger, settings: Settings, live: str
) -> None:
    better = trained(ledger, settings, 0.8)
    assert registry.champion(ledger, settings, "mini") == better

    back = page.post("/models/rollback", data={"preset": "mini", "reason": "eyes got worse"})
    again = page.post("/models/rollback", data={"preset": "mini", "reason": "once more"})

    assert back.url.path == f"/models/{live}"
    assert "eyes got worse" in page.get("/models").text
    assert (again.status_code, "nothing_to_roll_back" in again.text) == (409, True)


def test_two_versions_stand_side_by_side_with_figures_and_pictures(
    page: TestClient,
    client: Client,
    ledger: Ledger,
    settings: Settings,
    live: str,
    person: AddPerson,
    worker: Played,
) -> None:
    person("ada", "generate")
    other = trained(ledger, settings, 0.8)
    client().post(
        f"/v1/batches?model={live}",
        content=lines({"custom_id": "cover", "people": "ada", "seed": 3}),
        headers={"Content-Type": "application/jsonl"},
    )
    worker.work()

    html = page.get("/models/compare", params={"model": [live, other]}).text

    assert "0.7 <small" in html
    assert "[0.77, 0.83]" in html
    assert '<b class="bad">worse</b>' in html, "beside the new champion"
    assert "worse by 1" in html
    assert 'aria-label="face_sim.mean of each version"' in html
    assert "have not drawn the same request" in html
    one = page.get("/models/compare", params={"model": [live]}, follow_redirects=False)
    assert one.headers["location"] == f"/models/{live}"
    assert page.get("/models/compare", params={"model": [live, "mdl_none"]}).status_code == 404


def test_versions_that_were_not_measured_alike_say_so(
    page: TestClient, ledger: Ledger, settings: Settings, live: str
) -> None:
    other = trained(ledger, settings, 0.8)

    html = page.get("/models/compare", params={"model": [live, other], "suite": "restore"}).text

    assert "not measured alike" in html
    queued = page.post(f"/models/{live}/measure", data={"suite": "restore", "count": 4}, follow_redirects=False)
    assert queued.headers["location"].startswith("/batches/")


def test_a_run_is_begun_paused_resumed_and_cancelled(
    page: TestClient, ledger: Ledger, settings: Settings, live: str
) -> None:
    dataset = add_dataset(ledger)
    form = {"dataset": dataset, "steps": 12, "preset": "mini", "name": "<u>night</u>"}

    begun = page.post("/training", data=form)
    run = begun.url.path

    assert "&lt;u&gt;night&lt;/u&gt;" in begun.text
    assert "<b>paused</b>" in page.post(f"{run}/pause").text
    assert "<b>in progress</b>" in page.post(f"{run}/resume").text
    assert "<b>cancelled</b>" in page.post(f"{run}/cancel").text
    assert page.post(f"{run}/cancel").status_code == 409
    assert [one["state"] for one in training.list_runs(ledger, "local")] == ["cancelled"]
    assert page.post(f"{run}/explode").status_code == 422


def test_a_run_that_cannot_begin_is_refused_on_the_form(
    page: TestClient, ledger: Ledger, settings: Settings, live: str
) -> None:
    refused = page.post("/training", data={"dataset": "nothing", "steps": 12, "preset": "mini"})

    assert refused.status_code == 404
    assert 'role="alert"' in refused.text


def test_who_may_only_read_sees_but_does_not_move(client: Client, live: str) -> None:
    reader = client(scopes=["read"])

    assert reader.get(f"/models/{live}").status_code == 200
    assert reader.post(f"/models/{live}/promote", data={"reason": "x"}).status_code == 403
    assert reader.post("/training", data={"dataset": "d", "steps": 1, "preset": "mini"}).status_code == 403
