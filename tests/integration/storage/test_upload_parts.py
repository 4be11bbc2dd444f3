"""Files that clients hand to an S3 store by links: cut, resumed, spoiled, given up; on moto and on Swift."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows_api import Upload
from orchestrator.photos import uploads
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, PartStore
from tests.integration.storage.conftest import AWS, Place, s3_place
from tests.services.swift import Swift

MIB = 2**20
DATA = os.urandom(5 * MIB + 1000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["s3", pytest.param("swift", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty bucket, reachable through this process's environment."""
    if request.param == "s3":
        made = s3_place({**AWS, "AWS_ENDPOINT_URL_S3": request.getfixturevalue("moto_url")})
    else:
        swift: Swift = request.getfixturevalue("swift_server")
        made = s3_place(swift.environment_for_clients())
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(uploads, "PART_BYTES", 5 * MIB)  # the least that S3 takes
    return made


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "ledger.sqlite3"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(place: Place, tmp_path: Path, migrated: Path) -> Settings:
    shutil.copy(migrated, tmp_path / "ledger.sqlite3")
    return Settings(state_dir=tmp_path)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings.database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def api(settings: Settings, ledger: Ledger) -> TestClient:
    secret, _ = keys.create(ledger, "local", name="test")
    return TestClient(
        create_app(settings), headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False
    )


def begin(api: TestClient, *, sha256: str = SHA256, size: int = len(DATA)) -> str:
    said = ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in (("filename", "a"), ("sha256", sha256)))
    made = api.post("/v1/uploads", headers={"Upload-Length": str(size), "Upload-Metadata": said})
    assert made.status_code == 201, made.text
    return str(made.headers["location"])


def links(api: TestClient, at: str, **asked: Any) -> dict[str, Any]:
    found = api.post(f"{at}/parts", json=asked)
    assert found.status_code == 200, found.text
    told: dict[str, Any] = found.json()
    return told


def put(link: dict[str, Any], part_size: int, data: bytes = DATA) -> None:
    at = (link["number"] - 1) * part_size
    sent = httpx.put(link["url"], content=data[at : at + link["size"]], timeout=30)
    assert sent.status_code == 200, sent.text


def test_parts_that_the_store_was_handed_make_the_file(api: TestClient, store: ByteStore, ledger: Ledger) -> None:
    at = begin(api)
    told = links(api, at)
    assert (told["parts"], told["part_size"]) == (2, 5 * MIB)
    assert [one["size"] for one in told["data"]] == [5 * MIB, 1000]

    for link in reversed(told["data"]):
        put(link, told["part_size"])
    done = api.post(f"{at}/complete")

    assert (done.status_code, done.json()["state"], done.json()["sha256"]) == (200, "complete", SHA256), done.text
    _, artifact = uploads.whole(ledger, "local", done.json()["id"])
    assert store.get(artifact.key) == DATA
    assert list(store.list("uploads/")) == []
    assert api.post(f"{at}/complete").json() == done.json(), "again changes nothing"


def test_a_cut_upload_goes_on_with_the_parts_that_are_missing(api: TestClient) -> None:
    at = begin(api)
    told = links(api, at)
    put(told["data"][1], told["part_size"])
    early = api.post(f"{at}/complete")

    again = links(api, at)

    assert (early.status_code, early.json()["code"]) == (409, "upload_unfinished")
    assert "the first is 1" in early.json()["detail"]
    assert ([one["number"] for one in again["data"]], again["received"]) == ([1], 1000)
    for link in again["data"]:
        put(link, again["part_size"])
    assert links(api, at)["missing"] == 0
    assert api.post(f"{at}/complete").json()["state"] == "complete"


def test_a_file_that_is_not_what_was_said_is_given_up_with_its_parts(
    api: TestClient, store: ByteStore, ledger: Ledger
) -> None:
    at = begin(api)
    told = links(api, at)
    spoiled = DATA[:-1] + bytes([DATA[-1] ^ 1])
    for link in told["data"]:
        put(link, told["part_size"], spoiled)

    refused = api.post(f"{at}/complete")

    assert (refused.status_code, refused.json()["code"]) == (422, "checksum_mismatch")
    assert api.get(at).status_code == 404
    uploads.remove_overdue(ledger, store)
    assert list(store.list()) == []


def test_what_is_given_up_or_never_finished_leaves_nothing_in_the_store(
    api: TestClient, store: ByteStore, ledger: Ledger
) -> None:
    assert isinstance(store, PartStore)
    left, forgotten = begin(api), begin(api)
    for at in (left, forgotten):
        put(links(api, at)["data"][0], 5 * MIB)
    time.sleep(1.1)  # Swift rounds times up to the next second
    assert store.sweep_stale(0, spare=uploads.PREFIX) == 0, "whoever began them looks after them"

    assert api.delete(left).status_code == 204
    with ledger.write() as session:
        session.execute(update(Upload).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    uploads.remove_overdue(ledger, store)

    assert store.sweep_stale(0) == 0, "both are gone"
    assert list(store.list()) == []


def test_a_server_that_died_after_the_parts_were_put_together_is_followed_by_another(
    api: TestClient, store: ByteStore, ledger: Ledger
) -> None:
    assert isinstance(store, PartStore)
    at = begin(api)
    told = links(api, at)
    for link in told["data"]:
        put(link, told["part_size"])
    upload = uploads.look(ledger, "local", at.rpartition("/")[2])
    key = f"uploads/{upload.id}/{0:016d}-{upload.size}-direct"
    store.finish_parts(key, str(upload.parts_id), store.parts(key, str(upload.parts_id)))

    assert api.post(f"{at}/complete").json()["state"] == "complete"


def test_parts_go_one_way_and_never_both(api: TestClient) -> None:
    part = {"Content-Type": "application/offset+octet-stream"}
    direct, here = begin(api), begin(api)
    links(api, direct)
    assert api.patch(here, content=DATA[:100], headers={**part, "Upload-Offset": "0"}).status_code == 204

    by_us = api.patch(direct, content=DATA[:100], headers={**part, "Upload-Offset": "0"})
    by_the_store = api.post(f"{here}/parts")

    assert (by_us.status_code, by_us.json()["code"]) == (409, "upload_in_parts")
    assert (by_the_store.status_code, by_the_store.json()["code"]) == (409, "upload_offset")
    assert api.post(f"{here}/complete").json()["code"] == "upload_unfinished"
    wrong = api.post(f"{direct}/parts", json={"numbers": [3]})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "part_number")


@pytest.mark.slow
def test_a_real_store_takes_a_link_for_its_part_its_length_and_its_time_alone(
    swift_server: Swift, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, migrated: Path
) -> None:
    place = s3_place(swift_server.environment_for_clients())
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    store = place.open()
    assert isinstance(store, PartStore)
    parts_id = store.begin_parts("a/b", media_type="text/plain")
    link = store.part_url("a/b", parts_id, 1, size=10, expires_seconds=60)
    short = store.part_url("a/b", parts_id, 1, size=10, expires_seconds=1)
    time.sleep(2.5)

    answers = {
        "longer": httpx.put(link, content=b"x" * 11).status_code,
        "another part": httpx.put(link.replace("partNumber=1", "partNumber=2"), content=b"x" * 10).status_code,
        "another object": httpx.put(link.replace("a/b?", "a/c?"), content=b"x" * 10).status_code,
        "read": httpx.get(link).status_code,
        "late": httpx.put(short, content=b"x" * 10).status_code,
    }

    assert set(answers.values()) == {403}, json.dumps(answers)
    assert httpx.put(link, content=b"x" * 10).status_code == 200
    assert {n: part.size for n, part in store.parts("a/b", parts_id).items()} == {1: 10}
    store.give_up_parts("a/b", parts_id)
    store.give_up_parts("a/b", parts_id)
