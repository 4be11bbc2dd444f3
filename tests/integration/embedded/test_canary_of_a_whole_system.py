"""A canary through every door of a whole system, real worker and Prefect included: after an erase no byte is left."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import select, text
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.embedded import programs
from orchestrator.errors import NotFoundError
from orchestrator.ledger.engine.base import Row
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Reference
from orchestrator.ledger.tables.rows_photos import StageResult
from orchestrator.people.receipts import new_key
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
PEOPLE = ROOT / "examples" / "people"
HANDLE, NAME, NOTE, GRANTOR = "zenobia-q", "Zenobia Quillfeather", "in her note a quail", "Mother Quillfeather"
UP = """
from orchestrator import logs
from orchestrator.embedded.stack import Stack
from orchestrator.settings import get_settings
logs.setup(get_settings())
with Stack(get_settings()) as stack:
    stack.wait_ready(400, prefect=True)
    print("ready", flush=True)
    stack.run_forever()
"""
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
PART = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
DONE = ("completed", "completed_with_errors", "failed", "cancelled")


@dataclass(frozen=True)
class World:
    settings: Settings
    ledger: Ledger
    store: ByteStore
    api: TestClient

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Yield every byte that is kept: files (Prefect's database and logs are some), objects, rows of every table."""
        for path in self.settings.state_dir.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(self.settings.state_dir)), path.read_bytes()
        for listed in self.store.list():
            with suppress(NotFoundError):  # let go of since it was listed: a running system does
                yield listed.key, self.store.get(listed.key)
        with self.ledger.read() as session:
            for table in Row.metadata.sorted_tables:
                for row in session.execute(text(f'SELECT * FROM "{table.name}"')).tuples():
                    yield f"table {table.name}", b"\n".join(_bytes(cell) for cell in row)

    def found(self, canaries: dict[str, bytes]) -> dict[str, list[str]]:
        kept = list(self.everything())
        return {what: sorted({where for where, data in kept if canary in data}) for what, canary in canaries.items()}

    def ended(self, batch_id: str) -> str:
        deadline = time.monotonic() + 400
        while (state := self.api.get(f"/v1/batches/{batch_id}").json()["state"]) not in DONE:
            assert time.monotonic() < deadline, f"{batch_id} is {state}"
            time.sleep(0.3)
        return str(state)


def _bytes(cell: object) -> bytes:
    return bytes(cell) if isinstance(cell, bytes | memoryview) else str(cell).encode()


@pytest.fixture(params=["sqlite and local", "postgresql and s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    settings = Settings(state_dir=tmp_path / "state", sweep_seconds=0.3, torch_threads=1, log_level="debug")
    if request.param == "postgresql and s3":
        for name, value in {**AWS, "AWS_ENDPOINT_URL_S3": request.getfixturevalue("moto_url")}.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="canary-of-all")
        settings = settings.model_copy(
            update={
                "database_url_": request.getfixturevalue("postgres_url"),
                "store_url_": "s3://canary-of-all",
                "data_keys": SecretStr(Fernet.generate_key().decode()),
                "signing_keys": SecretStr(new_key()),
            }
        )
    stack = subprocess.Popen(
        [sys.executable, "-c", UP],
        cwd=ROOT,
        env=programs.environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert stack.stdout is not None
        assert stack.stdout.readline() == "ready\n"
        ledger = Ledger(settings.database_url)
        secret, _ = keys.create(ledger, "local", name="test", scopes=keys.SCOPES)
        api = TestClient(create_app(settings), headers={"Authorization": f"Bearer {secret}"})
        yield World(settings, ledger, open_store(settings), api)
        ledger.dispose()
    finally:
        stack.terminate()
        try:
            stack.wait(60)
        except subprocess.TimeoutExpired:
            stack.kill()


def pictures_of(person: str) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted((PEOPLE / person).glob("*.png"))]


def enrol(world: World, handle: str, person: str, **more: str) -> str:
    files = [("pictures", (name, data, "image/png")) for name, data in pictures_of(person)]
    facts = {"handle": handle, "scopes": ["generate", "restore", "swap", "train"], **more}
    made = world.api.post("/v1/identities", data=facts, files=files)
    assert made.status_code == 202, made.text
    assert world.ended(made.json()["batch_id"]) == "completed"
    return str(world.api.get(f"/v1/identities/{handle}").json()["id"])


def sent(world: World, data: bytes) -> str:
    begun = world.api.post("/v1/uploads", headers={"Upload-Length": str(len(data))})
    assert world.api.patch(begun.headers["location"], content=data, headers=PART).status_code == 204
    return str(begun.json()["id"])


def portrait(who: str, custom_id: str, prompt: str) -> dict[str, Any]:
    return {"custom_id": custom_id, "prompt": prompt, "people": [{"identity": who}], "steps": 4, "small_faces": "keep"}


def fill(world: World, folder: Path) -> None:
    """Put her through the doors, and wait until workers have done their part."""
    api = world.api
    rows = [portrait(HANDLE, "hers", NOTE), portrait("bruno", "his", "a plain prompt")]
    batches = [api.post("/v1/batches", json={"name": "night", "items": rows})]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for person in ("ada", "bruno"):
            file.writestr(f"{person}.png", pictures_of(person)[0][1])
    for more in ({"task": "restore"}, {"task": "swap", "to": [HANDLE, "bruno"]}):
        batches.append(api.post("/v1/restorations", json={**more, "upload": sent(world, archive.getvalue())}))
    manifest = json.dumps(portrait(HANDLE, "nightly", NOTE))
    made = api.post("/v1/schedules", json={"name": "nightly", "cron": "0 2 * * *", "manifest": manifest})
    assert made.status_code in (200, 201), made.text
    sent(world, pictures_of("ada")[1][1])  # an upload that nobody uses
    for batch in batches:
        assert batch.status_code == 202, batch.text
        assert world.ended(batch.json()["id"]).startswith("completed"), batch.text
    (folder / HANDLE).mkdir(parents=True)
    for name, data in pictures_of("ada"):
        (folder / HANDLE / name).write_bytes(data)
    wanted = BuildRequest(source=str(folder), name="weekly", preset="mini", licence="own", people="folder")
    built = datasets.build(world.ledger, world.store, world.settings, wanted, owner="local")
    assert world.ended(built.batch_id).startswith("completed")


def canaries(world: World, hers: str) -> dict[str, bytes]:
    """Return bytes by which anything of her would be known: words, pixels, embeddings open and sealed, keys."""
    with world.ledger.read() as session:
        row = session.scalars(select(Reference).where(Reference.identity_id == hers)).first()
        assert row is not None
        opened = Vault.of(world.settings).open(row.envelope, row.embedding)
        kept = session.scalars(select(StageResult).where(StageResult.data.is_not(None))).all()
        assert kept, "faces of photos were kept, sealed"
    assert np.frombuffer(opened, np.float32).shape == (512,)
    return {
        "handle": HANDLE.encode(),
        "name": b"Quillfeather",
        "note": NOTE.encode(),
        "picture": pictures_of("ada")[0][1][200:264],
        "another picture": pictures_of("ada")[1][1][200:264],
        "sealed embedding": row.embedding[100:200],
        "data key": str(row.data_key).encode()[50:],
        "embedding": opened[64:128],
    }


def his(world: World, bruno: str) -> list[tuple[str, int]]:
    """Return what of bruno can be read: references, and the portrait that shows him alone."""
    api = world.api
    shown = api.get(f"/v1/identities/{bruno}").json()
    asked: list[Callable[[], Any]] = [
        lambda one=one: api.get(f"/v1/identities/{bruno}/references/{one['id']}/picture")  # type: ignore[misc]  # bound now
        for one in shown["references"]
    ]
    found = [(f"reference {n}", len(ask().content)) for n, ask in enumerate(asked)]
    for batch in api.get("/v1/batches").json()["data"]:
        for line in api.get(f"/v1/batches/{batch['id']}/results").text.splitlines():
            one = json.loads(line)
            if one["custom_id"] == "his":
                found.append(("portrait", len(world.store.get(one["output"]["key"]))))
    return sorted(found)


def test_after_an_erase_no_byte_of_a_whole_system_tells_of_the_person(world: World, tmp_path: Path) -> None:
    hers = enrol(world, HANDLE, "ada", name=NAME, granted_by=GRANTOR)
    bruno = enrol(world, "bruno", "bruno")
    fill(world, tmp_path / "given")
    known = canaries(world, hers)
    planted = world.found(known)
    assert all(where for what, where in planted.items() if what != "embedding"), f"each sat somewhere: {planted}"
    assert planted["embedding"] == [], "embeddings are sealed at rest"
    before = his(world, bruno)
    assert [what for what, _ in before].count("portrait") == 1

    receipt = world.api.delete(f"/v1/identities/{hers}")

    assert receipt.status_code == 200, receipt.text
    deadline = time.monotonic() + 60
    while any((left := world.found(known)).values()) and time.monotonic() < deadline:
        time.sleep(1)  # the sweeper lets go of what a worker stored in that moment
    assert {what: where for what, where in left.items() if where} == {}
    assert his(world, bruno) == before
