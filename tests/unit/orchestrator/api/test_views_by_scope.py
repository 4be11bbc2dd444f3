"""A key that only reads learns nobody's name and sees no reference picture; a wrapped key leaves by no way at all."""

from __future__ import annotations

import io
import zipfile

import pytest
from starlette.testclient import TestClient

from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import Played, picture

WRAPPED = b"gAAAAA"
"""What every wrapped key begins with."""
SECRETS = (b"secrethandle", b"Secret Name", b"secret-grantor", b"secretfile")


@pytest.fixture
def batches(client: Client, worker: Played) -> tuple[str, str]:
    """An enrolment, and a portrait of whom it enrolled."""
    me = client()
    facts = {"handle": "secrethandle", "name": "Secret Name", "granted_by": "secret-grantor", "scopes": ["generate"]}
    made = me.post("/v1/identities", data=facts, files={"pictures": ("secretfile.png", picture(), "image/png")})
    assert made.status_code == 202, made.text
    worker.work()
    person = me.get("/v1/identities/secrethandle").json()["id"]
    drawn = me.post("/v1/batches", json={"items": [{"custom_id": "a", "people": [{"identity": person}]}]}).json()["id"]
    worker.work()
    return made.json()["batch_id"], drawn


def everything(api: TestClient, *batches: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for batch in batches:
        items = [item["id"] for item in api.get(f"/v1/batches/{batch}/items").json()["data"]]
        views = ("", "/items", "/results", "/errors", "/results.csv", "/progress", "/pictures")
        paths = [f"/v1/batches/{batch}{view}" for view in views] + [f"/batches/{batch}", f"/batches/{batch}/sheet"]
        paths += [f"/v1/items/{item}" for item in items] + [f"/items/{item}" for item in items]
        for path in paths:
            answer = api.get(path)
            found[path] = answer.content
            if path.endswith("/pictures") and answer.status_code == 200:
                with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                    found[path] = b"".join(archive.read(name) for name in archive.namelist())
    found["/v1/batches"] = api.get("/v1/batches").content
    return found


def test_who_only_reads_learns_nobodys_name(client: Client, batches: tuple[str, str]) -> None:
    told = everything(client(scopes=["read"]), *batches)

    leaks = {path: word for path, answer in told.items() for word in SECRETS if word in answer}
    assert leaks == {}


@pytest.mark.parametrize("scopes", [["read"], ["read", "people", "write"]])
def test_a_wrapped_key_leaves_by_no_way(client: Client, batches: tuple[str, str], scopes: list[str]) -> None:
    told = everything(client(scopes=scopes), *batches)

    assert [path for path, answer in told.items() if WRAPPED in answer] == []


def test_who_keeps_the_library_sees_who_was_added(client: Client, batches: tuple[str, str]) -> None:
    api = client(scopes=["read", "people"])
    (item,) = api.get(f"/v1/batches/{batches[0]}/items").json()["data"]

    assert api.get(f"/v1/items/{item['id']}").json()["params"]["handle"] == "secrethandle"
    assert "secrethandle" in api.get(f"/batches/{batches[1]}/sheet").text


def test_a_sheet_decodes_no_picture_that_was_handed_in(
    client: Client, batches: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a server decoded a picture")

    monkeypatch.setattr("PIL.Image.Image.load", refuse)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)

    assert client().get(f"/batches/{batches[1]}/sheet").status_code == 200
