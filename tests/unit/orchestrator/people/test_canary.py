"""A canary in every door: after an erase no byte tells of the person, and nothing of anybody else is missing."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select, text
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.base import Row
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.privacy import erasure, register
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Item, Stage
from orchestrator.people import identities
from orchestrator.photos import feeding
from orchestrator.runtime import schedules
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store
from tests.unit.orchestrator.played import Played

HANDLE, NAME, NOTE, GRANTOR = "canaryhandle", "Canary Fullname", "canary note in a prompt", "canary grantor"
PART = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def noise(seed: int) -> bytes:
    """Return a picture whose bytes are nobody else's."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


HERS, ANOTHERS = noise(1), noise(2)
SCHEDULED = {
    "jsonl": "\n".join(
        json.dumps(row)
        for row in (
            {"custom_id": "a", "people": [{"identity": HANDLE}], "prompt": NOTE},
            {"custom_id": "b", "people": f"bruno;{HANDLE}", "prompt": NOTE},
            {"custom_id": "c", "people": "bruno", "prompt": f"beside {NAME}"},
            {"custom_id": "d", "people": "bruno", "prompt": "a plain prompt"},
        )
    ),
    "csv": f'custom_id;people;prompt\r\na;{HANDLE}@left;{NOTE}\r\nd;bruno;"two\r\nlines"\r\n',
}
CANARIES = {
    "handle": HANDLE.encode(),
    "name": NAME.encode(),
    "note": NOTE.encode(),
    "grantor": GRANTOR.encode(),
    "picture": HERS[100:164],
}


@dataclass(frozen=True)
class World:
    settings: Settings
    ledger: Ledger
    store: ByteStore
    api: TestClient
    folder: Path

    @property
    def worker(self) -> Played:
        return Played(ledger=self.ledger, store=self.store, settings=self.settings)

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Yield every byte that is kept: files, objects of the store, rows of every table."""
        for path in self.settings.state_dir.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(self.settings.state_dir)), path.read_bytes()
        for listed in self.store.list():
            yield listed.key, self.store.get(listed.key)
        with self.ledger.read() as session:
            for table in Row.metadata.sorted_tables:
                for row in session.execute(text(f'SELECT * FROM "{table.name}"')):
                    yield f"table {table.name}", repr(tuple(row)).encode()

    def found(self) -> dict[str, list[str]]:
        kept = list(self.everything())
        return {what: sorted({where for where, data in kept if canary in data}) for what, canary in CANARIES.items()}


@pytest.fixture(params=["sqlite and local", "postgresql and s3"])
def world(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    if request.param == "postgresql and s3":
        for name, value in {**AWS, "AWS_ENDPOINT_URL_S3": request.getfixturevalue("moto_url")}.items():
            monkeypatch.setenv(name, value)
        bucket = f"canary-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
        boto3.client("s3").create_bucket(Bucket=bucket)
        (settings.state_dir / "ledger.sqlite3").unlink()
        url = request.getfixturevalue("postgres_url")
        from cryptography.fernet import Fernet
        from pydantic import SecretStr

        from orchestrator.people.receipts import new_key

        settings = settings.model_copy(
            update={
                "database_url_": url,
                "store_url_": f"s3://{bucket}",
                "data_keys": SecretStr(Fernet.generate_key().decode()),
                "signing_keys": SecretStr(new_key()),
            }
        )
        schema.upgrade(url)
    ledger = Ledger(settings.database_url)
    secret, _ = keys.create(ledger, "local", name="test", scopes=keys.SCOPES)
    api = TestClient(create_app(settings), headers={"Authorization": f"Bearer {secret}"})
    yield World(settings, ledger, open_store(settings), api, tmp_path)
    ledger.dispose()


def enrol(world: World, handle: str, picture: bytes, **more: str) -> str:
    facts = {"handle": handle, "scopes": ["generate", "restore", "swap", "train"], **more}
    made = world.api.post(
        "/v1/identities", data=facts, files={"pictures": (f"{handle}.png", picture, "image/png")}, headers=once("enrol")
    )
    assert made.status_code == 202, made.text
    world.worker.work()
    return str(world.api.get(f"/v1/identities/{handle}").json()["id"])


def once(what: str) -> dict[str, str]:
    once.count += 1  # type: ignore[attr-defined]  # a counter of its own
    return {"Idempotency-Key": f"{what}-{once.count}"}  # type: ignore[attr-defined]  # likewise


once.count = 0  # type: ignore[attr-defined]  # likewise


def sent(world: World, data: bytes) -> str:
    begun = world.api.post("/v1/uploads", headers={"Upload-Length": str(len(data))})
    assert world.api.patch(begun.headers["location"], content=data, headers=PART).status_code == 204
    return str(begun.json()["id"])


def portrait(who: str, custom_id: str, prompt: str) -> dict[str, Any]:
    return {"custom_id": custom_id, "prompt": prompt, "people": [{"identity": who}]}


def fill(world: World, hers: str) -> None:
    """Put her through every door that needs no networks."""
    api = world.api
    api.post(
        "/v1/identities",  # handed in twice: the second is refused, and its answer kept
        data={"handle": HANDLE, "name": NAME, "scopes": "generate"},
        files={"pictures": ("a.png", HERS, "image/png")},
        headers=once("again"),
    )
    rows = [portrait(HANDLE, "hers", NOTE), portrait("bruno", "his", "a plain prompt")]
    drawn = api.post("/v1/batches", json={"name": "night", "items": rows}, headers=once("batch"))
    assert drawn.status_code == 202, drawn.text
    world.worker.work()
    wrong = [portrait(HANDLE, "wrong", NOTE) | {"people": [{"identity": HANDLE}, {"identity": HANDLE}]}]
    api.post("/v1/batches", json={"items": wrong}, headers=once("wrong"))
    api.post("/v1/batches?skip_invalid=true", json={"skip_invalid": True, "items": wrong + rows[1:]})
    sent(world, HERS)  # an upload that nobody uses
    swap = {"task": "swap", "to": [HANDLE, "bruno"]}
    for data in (HERS, ANOTHERS):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("one.png", data)
        made = api.post("/v1/restorations", json={**swap, "upload": sent(world, archive.getvalue())})
        assert made.status_code == 202, made.text
        feeding.feed(world.ledger, world.store, world.settings, "local", made.json()["id"], lambda _: None)
    # what workers would have said of her photos
    with world.ledger.write() as session:
        for item in session.scalars(select(Item).where(Item.custom_id.contains(HANDLE))).all():
            from orchestrator.ledger.tables.rows import ItemIdentity

            session.merge(ItemIdentity(item_id=item.id, identity_id=hers, owner="local"))
            for stage in session.scalars(select(Stage).where(Stage.item_id == item.id)):
                stage.result = {"faces": [{"kps5": [[1, 2]], "person": {"identity": hers}}]}
    for form, rows in SCHEDULED.items():
        schedules.add_portraits(
            world.ledger,
            world.store,
            owner="local",
            name=f"nightly-{form}",
            timing=schedules.Timing(cron="0 2 * * *"),
            manifest=rows.encode(),
            format=form,  # type: ignore[arg-type]  # both of them
            options=SubmitOptions(),
        )
    pictures = world.folder / "pictures" / HANDLE
    pictures.mkdir(parents=True)
    (pictures / "a.png").write_bytes(HERS)
    wanted = BuildRequest(source=str(pictures.parent), name="weekly", preset="mini", licence="own", people="folder")
    datasets.build(world.ledger, world.store, world.settings, wanted, owner="local")


def test_after_an_erase_no_byte_tells_of_the_person_and_nobody_else_misses_one(world: World) -> None:
    hers = enrol(world, HANDLE, HERS, name=NAME, granted_by=GRANTOR)
    bruno = enrol(world, "bruno", ANOTHERS)
    fill(world, hers)
    planted = world.found()
    assert all(planted.values()), f"each canary sat somewhere: {planted}"
    his = kept_of(world, bruno)

    receipt = world.api.delete(f"/v1/identities/{hers}")

    assert receipt.status_code == 200, receipt.text
    said = receipt.json()
    assert said["verified"]["objects_left"] == said["verified"]["rows_that_name"] == 0
    assert {what: where for what, where in world.found().items() if where} == {}
    assert kept_of(world, bruno) == his
    assert said["scheduled_rows"] == 4
    assert scheduled(world) == {
        "nightly-jsonl": SCHEDULED["jsonl"].splitlines()[3],
        "nightly-csv": SCHEDULED["csv"].replace(f"a;{HANDLE}@left;{NOTE}\r\n", ""),
    }


def scheduled(world: World) -> dict[str, str]:
    """Return the manifest of each schedule that still runs."""
    listed = schedules.listing(world.ledger, "local")
    return {one.name: world.store.get(str(one.task["key"])).decode() for one in listed if one.active}


def test_a_schedule_that_showed_nobody_else_stands_still_after_an_erase(world: World) -> None:
    hers = enrol(world, HANDLE, HERS, name=NAME)
    facts = {"name": "nightly", "cron": "0 2 * * *", "manifest": json.dumps(portrait(HANDLE, "a", NOTE))}
    assert world.api.post("/v1/schedules", json=facts).status_code in (200, 201)
    assert scheduled(world)

    assert world.api.delete(f"/v1/identities/{hers}").json()["scheduled_rows"] == 1

    assert scheduled(world) == {}
    assert world.found()["note"] == []


def kept_of(world: World, identity_id: str) -> list[tuple[str, str]]:
    """Return what can be read of somebody: reference pictures and portraits, by their hashes."""
    person = world.api.get(f"/v1/identities/{identity_id}").json()
    found = []
    for reference in person["references"]:
        answer = world.api.get(f"/v1/identities/{identity_id}/references/{reference['id']}/picture")
        found.append(("reference", hashlib.sha256(answer.content).hexdigest()))
    for used in person["used_in"]:
        for line in world.api.get(f"/v1/batches/{used['batch_id']}/results").text.splitlines():
            if f'"{identity_id}"' in line and '"output": {' in line:
                found.append(("portrait", hashlib.sha256(line.encode()).hexdigest()))
    return sorted(found)


def test_no_column_can_be_added_without_a_decision_about_people() -> None:
    assert register.undecided() == []


def test_an_enrolment_that_failed_is_forgotten_by_itself(world: World) -> None:
    facts = {"handle": HANDLE, "name": NAME, "granted_by": GRANTOR, "scopes": "generate"}
    made = world.api.post("/v1/identities", data=facts, files={"pictures": ("a.png", HERS, "image/png")})
    batches.cancel(world.ledger, "local", made.json()["batch_id"])
    assert world.found()["name"]

    from datetime import timedelta

    assert erasure.forget_failed(world.ledger, before=timedelta(0)) == 1
    world.ledger.settle()

    assert world.found()["name"] == world.found()["handle"] == world.found()["grantor"] == []
    assert identities.list_people(world.ledger, "local") == []
