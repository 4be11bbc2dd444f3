"""Every operation of the document against who must not: no key, a wrong or expired one, another owner, too few scopes.

The list of operations is the OpenAPI document, so a new one is tried from the day it stands there.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator.datasets import shipped
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.api.test_uploads import PART, uploaded
from tests.unit.orchestrator.played import Played, picture

OPEN = {"health_live", "health_ready", "health_work", "get_file"}
"""Operations that need no key; a file's link is its own permission."""
ENDLESS = "watch_queue"
"""A stream that ends only with its listener."""
SHARED = {"model_id", "preset"}
"""Versions of models belong to the deployment."""
OWN_WORDS = {"client_id", "name", "token"}
"""Not ids: a name that each owner gives for himself, schedules' names, a link's own permission."""
WORDS = {"move": "pause", "scope": "generate"}
ITEMS = ("item", "batch")
SAMPLES, ROUNDS = 6, 8
SAME_SECONDS = 0.010


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the document."""

    name: str
    method: str
    path: str
    scope: str | None

    @property
    def parts(self) -> list[str]:
        """The variable parts of its path."""
        return re.findall(r"{([^}]*)}", self.path)


@dataclass(frozen=True, kw_only=True)
class World:
    """What one owner has: an id for each variable part, and ids that stand in bodies."""

    ids: dict[str, str]
    secrets: tuple[str, ...]
    """Words that nobody else may ever read."""
    upload: str
    photos_batch: str

    def body(self, name: str) -> dict[str, Any]:
        """Return what a request of this operation carries, so that nothing but the id is wrong with it."""
        rows = {"items": [{"custom_id": "more", "people": [{"identity": "ada"}]}]}
        return {
            "add_items": {"json": rows},
            "add_photo": {"json": {"upload": self.upload, "path": "a.jpg"}},
            "redo_item": {"json": {}},
            "order_batch": {"json": {}},
            "review_items": {"json": {"items": [self.ids["item_id"]], "decision": "rejected"}},
            **{f"{word}_{what}": {"json": {"reason": "seen"}} for word in ("release", "reject") for what in ITEMS},
            "grant_consent": {"json": {"scopes": ["train"]}},
            "grant_consent_of_person": {"json": {"scopes": ["train"]}},
            "name_person": {"json": {"name": "Somebody"}},
            "give_faces": {"json": {"faces": ["fac_0"]}},
            "merge_people": {"json": {"others": ["fnd_0"]}},
            "send_upload_part": {"content": b"67890", "headers": {**PART, "Upload-Offset": "5"}},
        }.get(name, {})

    def filled(self, operation: Operation, ids: dict[str, str] | None = None) -> str:
        """Return the operation's path with ids of this world, or with others."""
        known = self.ids | WORDS | {"model_id": "mini@champion", "preset": "mini"} | (ids or {})
        return re.sub(r"{([^}]*)}", lambda found: known.get(found[1], "word"), operation.path)


@pytest.fixture
def operations(app: FastAPI) -> list[Operation]:
    return [
        Operation(
            name=said["operationId"],
            method=method.upper(),
            path=path,
            scope=next(iter(said["security"][0].values()))[0] if said.get("security") else None,
        )
        for path, methods in app.openapi()["paths"].items()
        for method, said in methods.items()
    ]


@pytest.fixture
def world(client: Client, worker: Played, ledger: Ledger, settings: Settings) -> World:
    """One of everything that belongs to `local`."""
    weights = settings.models_dir / "mini" / "weights.json"
    facts = json.loads(weights.read_text())
    facts["files"][shipped.RECOGNISER] = {"sha256": "c" * 64, "tensor_sha256": "c" * 64}
    weights.write_text(json.dumps(facts))
    shipped.register(ledger, settings, "mini")
    me = client()
    given = {"handle": "ada", "name": "Ada Lovelace", "scopes": ["generate"]}
    assert me.post("/v1/identities", data=given, files={"pictures": ("a.png", picture(), "image/png")}).is_success
    worker.work()
    person = me.get("/v1/identities/ada").json()
    rows = {"items": [{"custom_id": "private-row", "people": [{"identity": "ada"}]}], "name": "private-batch"}
    batch = me.post("/v1/batches", json={**rows, "growing": True}).json()["id"]
    worker.work()
    item = me.get(f"/v1/batches/{batch}/items").json()["data"][0]["id"]
    webhook = me.post("/v1/webhooks", json={"url": "https://example.com/private", "events": ["ping"]}).json()["id"]
    begun = me.post("/v1/uploads", headers={"Upload-Length": "10"})
    me.patch(begun.headers["location"], content=b"12345", headers={**PART, "Upload-Offset": "0"})
    run = me.post("/v1/training-runs", json={"recipe": {"dataset": "mini-world", "steps": 4, "name": "private-run"}})
    ids = {
        "batch_id": batch,
        "item_id": item,
        "artifact_id": me.get(f"/v1/items/{item}").json()["output"]["artifact_id"],
        "identity_id": person["id"],
        "reference_id": person["references"][0]["id"],
        "run_id": run.json()["id"],
        "upload_id": begun.json()["id"],
        "webhook_id": webhook,
        "version": me.get("/v1/datasets").json()["data"][0]["id"],
    }
    photos = me.post("/v1/restorations", json={"attested": "our own photos", "name": "private-photos"}).json()["id"]
    return World(
        ids=ids,
        secrets=("private", "Lovelace", photos, *ids.values()),
        upload=uploaded(me, picture()),
        photos_batch=photos,
    )


def told(answer: Any, *ids: str) -> tuple[int, str, str]:
    """Return what an answer says, without the ids that were asked for."""
    problem = answer.json() if answer.content else {"code": "", "detail": ""}
    detail = problem["detail"]
    for one in ids:
        detail = detail.replace(one, "ID")
    return answer.status_code, problem["code"], detail


def missing(real: str) -> str:
    """Return an id of the same kind that nobody ever had."""
    return real[:4] + "0" * (len(real) - 4)


def owned(operations: list[Operation]) -> list[Operation]:
    """Return the operations on one thing that belongs to somebody."""
    return [one for one in operations if set(one.parts) - SHARED - OWN_WORDS - set(WORDS)]


def state(me: TestClient, world: World, operations: list[Operation]) -> dict[str, str]:
    """Return everything that its owner can read of a world, but what changes with time alone."""
    moving = ("get_artifact_link", "get_batch_progress", "watch_")
    return {
        one.name: me.get(world.filled(one)).text
        for one in owned(operations)
        if one.method == "GET" and not one.name.startswith(moving)
    }


def test_no_operation_answers_who_brings_no_valid_key(
    operations: list[Operation], world: World, client: Client, nobody: TestClient, expired: TestClient
) -> None:
    before = state(client(), world, operations)
    answers = {}
    for one in operations:
        if one.name in OPEN:
            continue
        path, body = world.filled(one), world.body(one.name)
        answers[one.name] = [
            nobody.request(one.method, path, **body).status_code,
            *(
                nobody.request(one.method, path, **body | {"headers": {**body.get("headers", {}), **wrong}}).status_code
                for wrong in ({"Authorization": "Bearer fpga_guessed"}, {"Authorization": "Basic Zm9vOmJhcg=="})
            ),
            expired.request(one.method, path, **body).status_code,
        ]

    assert len(answers) > 60
    assert {name: found for name, found in answers.items() if found != [401] * 4} == {}
    assert {one.name for one in operations if one.scope is None} == OPEN
    assert state(client(), world, operations) == before


@pytest.mark.parametrize("scope", ["read", "people"])
def test_a_key_opens_exactly_what_the_document_says_of_its_scope(
    operations: list[Operation], world: World, client: Client, scope: str
) -> None:
    api = client(scopes=[scope])
    before = state(client(), world, operations)

    closed, opened = {}, {}
    for one in operations:
        if one.scope is None or one.name == ENDLESS or one.name.startswith("watch_"):
            continue
        if one.scope == scope and one.method != "GET" and one.name != "dry_run_batch":
            continue  # it would do what it says
        status = api.request(one.method, world.filled(one), **world.body(one.name)).status_code
        (opened if one.scope == scope else closed)[one.name] = status

    assert {name: status for name, status in closed.items() if status != 403} == {}
    assert {name: status for name, status in opened.items() if status in (401, 403)} == {}
    assert (len(opened) >= 3, len(closed) > 20) == (True, True)
    assert state(client(), world, operations) == before


def test_another_owner_is_told_of_nothing_and_changes_nothing(
    operations: list[Operation], world: World, client: Client
) -> None:
    me, eve = client(), client("eve")
    before = state(me, world, operations)
    wrong, tried = {}, 0
    for one in owned(operations):
        nobodys = {part: missing(world.ids[part]) for part in one.parts if part in world.ids}
        body = world.body(one.name)
        foreign = told(eve.request(one.method, world.filled(one), **body), *world.ids.values())
        unknown = told(eve.request(one.method, world.filled(one, nobodys), **body), *nobodys.values())
        tried += 1
        if foreign != unknown or foreign[0] != 404:
            wrong[one.name] = (foreign, unknown)

    assert wrong == {}
    assert tried > 30
    assert state(me, world, operations) == before


def test_no_list_of_another_owner_holds_a_word_of_it(operations: list[Operation], world: World, client: Client) -> None:
    eve = client("eve", scopes=["read", "write", "people", "models"])
    lists = [one for one in operations if one.method == "GET" and not one.parts and one.name not in {ENDLESS, *OPEN}]

    leaked = {(one.name, word) for one in lists for word in world.secrets if word in eve.request("GET", one.path).text}

    # versions of models are everybody's, and say the id of what they were made of; it opens nothing
    assert leaked == {("list_models", world.ids["version"])}
    assert len(lists) >= 10


def test_an_id_of_another_owner_in_a_body_is_an_id_that_never_was(world: World, client: Client) -> None:
    eve = client("eve")
    photos = eve.post("/v1/restorations", json={"attested": "mine"}).json()["id"]
    webhook = eve.post("/v1/webhooks", json={"url": "https://example.com/", "events": ["ping"]}).json()["id"]
    delivery = client().post(f"/v1/webhooks/{world.ids['webhook_id']}/ping").json()["id"]
    asked: dict[str, tuple[str, Callable[[str], dict[str, Any]], str]] = {
        "restore": ("/v1/restorations", lambda at: {"upload": at, "attested": "mine"}, world.upload),
        "photo": (f"/v1/batches/{photos}/photos", lambda at: {"upload": at, "path": "a.jpg"}, world.upload),
        "data set": ("/v1/datasets", lambda at: {"name": "x", "upload": at}, world.upload),
        "training": ("/v1/training-runs", lambda at: {"recipe": {"dataset": at, "steps": 4}}, world.ids["version"]),
        "measure": (
            "/v1/evaluations",
            lambda at: {"model": "mini@champion", "dataset": at, "suites": ["held_out"]},
            world.ids["version"],
        ),
        "portrait": ("/v1/batches", lambda at: {"items": [{"people": [{"identity": at}]}]}, world.ids["identity_id"]),
        "replay": (f"/v1/webhooks/{webhook}/replay", lambda at: {"delivery_id": at}, delivery),
    }

    for what, (path, body, real) in asked.items():
        foreign, unknown = eve.post(path, json=body(real)), eve.post(path, json=body(missing(real)))
        assert told(foreign, real) == told(unknown, missing(real)), what
        assert foreign.status_code in (404, 422), (what, foreign.text)
        assert foreign.text.replace(real, "ID") == unknown.text.replace(missing(real), "ID"), what


def test_a_name_of_ones_own_never_meets_that_of_another_owner(world: World, client: Client) -> None:
    rows = b'{"custom_id": "a", "people": [{"identity": "ada"}]}'
    jsonl = {"Content-Type": "application/jsonl"}
    mine = client().put("/v1/batches/by-key/tonight", content=rows, headers=jsonl)

    theirs = client("eve").put("/v1/batches/by-key/tonight", content=rows, headers=jsonl)

    assert mine.status_code == 202
    assert theirs.status_code == 422, "there is no ada in their library"
    assert mine.json()["id"] not in theirs.text


def test_missing_and_foreign_ids_take_the_same_time(operations: list[Operation], world: World, client: Client) -> None:
    """Medians, asked for in turns; a busy machine gets more rounds, a real difference stays in all of them."""
    eve = client("eve")
    apart: dict[str, float] = {}
    for one in owned(operations):
        nobodys = {part: missing(world.ids[part]) for part in one.parts if part in world.ids}
        paths = world.filled(one), world.filled(one, nobodys)
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for number in range(2 * SAMPLES):
                began = time.perf_counter()
                eve.request(one.method, paths[number % 2], **world.body(one.name))
                seconds[number % 2].append(time.perf_counter() - began)
            apart[one.name] = statistics.median(seconds[0]) - statistics.median(seconds[1])
            if abs(apart[one.name]) <= SAME_SECONDS:
                break

    worst = max(apart, key=lambda name: abs(apart[name]))
    print(f"{len(apart)} operations, widest apart {worst}: {1000 * apart[worst]:+.2f} ms")  # noqa: T201 for the report
    assert {name: found for name, found in apart.items() if abs(found) > SAME_SECONDS} == {}
