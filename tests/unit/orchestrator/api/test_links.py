"""Links to bytes: each opens one artifact, to read, for a while, and nothing else. S3's are tried on a real store."""

from __future__ import annotations

import base64
import json
import time

import pytest
from starlette.testclient import TestClient

from orchestrator.api import links
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson, Played


@pytest.fixture
def artifacts(client: Client, person: AddPerson, worker: Played) -> list[str]:
    """Two artifacts of `local`."""
    person("ada", "generate")
    rows = [{"custom_id": name, "people": [{"identity": "ada"}]} for name in ("a", "b")]
    batch = client().post("/v1/batches", json={"items": rows}).json()["id"]
    worker.work()
    items = client().get(f"/v1/batches/{batch}/items").json()["data"]
    return [client().get(f"/v1/items/{item['id']}").json()["output"]["artifact_id"] for item in items]


def test_a_link_reads_one_artifact_and_no_other_way_or_thing(
    client: Client, nobody: TestClient, artifacts: list[str]
) -> None:
    link = client().get(f"/v1/artifacts/{artifacts[0]}/link").json()
    path = link["url"].removeprefix("http://testserver")
    said, _, mac = path.rpartition("/")[2].partition(".")
    owner, _, until = json.loads(base64.urlsafe_b64decode(said + "=="))

    def bent(*facts: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(facts, separators=(",", ":")).encode()).decode().rstrip("=")

    assert len(nobody.get(path).content) == link["size"]
    for wrong in (
        f"/v1/files/{bent(owner, artifacts[1], until)}.{mac}",
        f"/v1/files/{bent(owner, artifacts[0], until + 86400)}.{mac}",
        f"/v1/files/{bent('eve', artifacts[0], until)}.{mac}",
        f"/v1/files/{said}.",
        f"/v1/files/{said}",
        f"/v1/files/.{mac}",
        "/v1/files/",
        "/v1/files",
    ):
        assert nobody.get(wrong).status_code == 404, wrong
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        assert nobody.request(method, path, content=b"x" * (link["size"] + 1)).status_code in (401, 405), method
    assert len(nobody.get(path).content) == link["size"], "it is as it was"


def test_a_link_is_over_after_its_time_and_lives_a_quarter_of_an_hour_at_most(
    client: Client, nobody: TestClient, artifacts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = client()
    path = api.get(f"/v1/artifacts/{artifacts[0]}/link?seconds=900").json()["url"].removeprefix("http://testserver")
    later = time.time() + 901

    assert api.get(f"/v1/artifacts/{artifacts[0]}/link?seconds=901").status_code == 422
    assert nobody.get(path).status_code == 200
    monkeypatch.setattr(links.time, "time", lambda: later)
    over = nobody.get(path)

    assert (over.status_code, over.json()["code"]) == (404, "link_expired")
