"""Training runs, measurements, data sets and schedules over HTTP: the same functions as the command line."""

from __future__ import annotations

import json
import threading

import pytest

from orchestrator.datasets import shipped
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from tests.unit.orchestrator.api.conftest import Client


@pytest.fixture
def version(ledger: Ledger, settings: Settings) -> str:
    """The shipped preset with its data set."""
    weights = settings.models_dir / "mini" / "weights.json"
    facts = json.loads(weights.read_text())
    facts["files"][shipped.RECOGNISER] = {"sha256": "c" * 64, "tensor_sha256": "c" * 64}
    weights.write_text(json.dumps(facts))
    shipped.register(ledger, settings, "mini")
    return "mini@champion"


def test_a_run_begins_is_paused_goes_on_and_is_cancelled(client: Client, version: str) -> None:
    me = client()
    begun = me.post("/v1/training-runs", json={"recipe": {"dataset": "mini-world", "steps": 4, "name": "weekly"}})
    assert begun.status_code == 202, begun.text
    place = begun.headers["location"]

    assert me.get("/v1/training-runs").json()["data"][0]["id"] == begun.json()["id"]
    states = [me.post(f"{place}/{move}").json()["state"] for move in ("pause", "resume", "cancel")]

    assert states == ["paused", "in_progress", "cancelled"]
    assert me.get(f"{place}/records").json()["records"] == []
    assert me.post(f"{place}/explode").status_code == 422
    assert client(owner="eve").get(place).status_code == 404


def test_a_run_is_followed_until_it_has_ended(client: Client, version: str) -> None:
    me = client()
    begun = me.post("/v1/training-runs", json={"recipe": {"dataset": "mini-world", "steps": 4, "name": "weekly"}})
    place = begun.headers["location"]
    threading.Timer(1.0, me.post, args=(f"{place}/cancel",)).start()

    told = me.get(f"{place}/events").text

    states = [json.loads(line[6:])["state"] for line in told.splitlines() if line.startswith("data: ")]
    assert (states[0], states[-1]) == ("in_progress", "cancelled")
    assert client(owner="eve").get(f"{place}/events").status_code == 404


def test_a_wrong_recipe_and_a_key_without_the_scope_are_refused(client: Client, version: str) -> None:
    body = {"recipe": {"dataset": "mini-world", "steps": -1}}

    assert client().post("/v1/training-runs", json=body).status_code == 422
    assert client(scopes=["read", "write"]).post("/v1/training-runs", json=body).status_code == 403


def test_a_measurement_is_a_batch_and_versions_tell_where_they_come_from(client: Client, version: str) -> None:
    me = client()

    begun = me.post("/v1/evaluations", json={"model": version, "count": 4})

    assert (begun.status_code, begun.json()["kind"]) == (202, "evaluate")
    assert me.get("/v1/evaluations", params={"model": version}).json()["data"] == []
    (origin,) = me.get(f"/v1/models/{version}/lineage").json()["data"]
    assert origin["preset"] == "mini"
    assert "location" not in origin
    assert me.get("/v1/models/diff", params={"left": version, "right": version}).status_code == 200
    assert me.get("/v1/models/none@champion/lineage").status_code == 404


def test_data_sets_are_listed_shown_and_built_from_what_the_server_may_read(client: Client, version: str) -> None:
    me = client()

    assert [one["name"] for one in me.get("/v1/datasets").json()["data"]] == ["mini-world"]
    assert me.get("/v1/datasets/mini-world").json()["name"] == "mini-world"
    begun = me.post("/v1/datasets", json={"name": "faces", "source": "render:3:8", "chunk_pictures": 4})
    assert begun.status_code == 202, begun.text
    for body in ({"name": "x", "source": "/etc"}, {"name": "x"}, {"name": "x", "source": "render:1:2", "upload": "u"}):
        assert me.post("/v1/datasets", json=body).status_code == 422


def test_schedules_need_no_prefect_server(client: Client) -> None:
    answer = client().get("/v1/schedules")

    assert (answer.status_code, answer.json()["data"]) == (200, [])
