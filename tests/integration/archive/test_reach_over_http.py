"""Two owners on one S3 deployment: neither reads or writes through `s3://` what was not granted to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.archive.reach import Reach
from orchestrator.errors import ConflictError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.photos import feeding
from orchestrator.results.delivery import Bucket
from orchestrator.settings import Settings
from orchestrator.storage import content_key, open_store
from tests.unit.orchestrator.played import picture

AWS = {"AWS_ACCESS_KEY_ID": "operator", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
PEOPLE = {"unknown": "cluster", "attested": "mine"}
GRANT = """
[[grant]]
owner = "eve"
url = "s3://eve-scans/"
may = ["read", "write"]
access_key_id = "eve"
secret_access_key = "testing"
"""


@pytest.fixture
def settings(tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in {**AWS, "AWS_ENDPOINT_URL_S3": moto_url}.items():
        monkeypatch.setenv(name, value)
    for bucket in ("fpga", "alice-private", "eve-scans"):
        boto3.client("s3").create_bucket(Bucket=bucket)
    granted = tmp_path / "buckets.toml"
    granted.touch(mode=0o600)
    granted.write_text(GRANT)
    made = Settings(state_dir=tmp_path, store_url_="s3://fpga", buckets_file=granted)
    schema.upgrade(made.database_url)
    return made


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings.database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def eve(settings: Settings, ledger: Ledger) -> TestClient:
    secret, _ = keys.create(ledger, "eve", name="test", scopes=keys.SCOPES)
    return TestClient(create_app(settings), headers={"Authorization": f"Bearer {secret}"})


def put(bucket: str, key: str, data: bytes) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=data)


@pytest.mark.parametrize("source", ["s3://fpga/o/alice/", "s3://fpga/", "s3://alice-private/", "s3://eve-scans-2/"])
def test_an_owner_reads_only_what_was_granted(eve: TestClient, source: str) -> None:
    put("fpga", content_key("alice", "a" * 64, ".png"), picture())
    put("alice-private", "x/secret.png", picture())

    restoring = eve.post("/v1/restorations", json={"source": source, **PEOPLE})
    building = eve.post("/v1/datasets", json={"name": "stolen", "source": source, "people": "faces"})

    assert {restoring.status_code, building.status_code} <= {403, 422}, (restoring.text, building.text)
    codes = {restoring.json()["code"], building.json()["code"]}
    assert codes <= {"bucket_not_granted", "bucket_of_the_system"}


@pytest.mark.parametrize("out", ["s3://fpga/o/alice/planted", "s3://alice-private/out"])
def test_an_owner_writes_only_where_it_was_granted(eve: TestClient, out: str) -> None:
    put("eve-scans", "a.png", picture())

    answer = eve.post("/v1/restorations", json={"source": "s3://eve-scans/", "out": out, **PEOPLE})

    assert answer.status_code in (403, 422)
    assert answer.json()["code"] in ("bucket_not_granted", "bucket_of_the_system")


def test_a_granted_source_is_read_and_so_is_ones_own_upload(
    eve: TestClient, settings: Settings, ledger: Ledger
) -> None:
    put("eve-scans", "a.png", picture())
    sent = eve.post("/v1/uploads", headers={"Upload-Length": str(len(picture()))})
    part = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    eve.patch(sent.headers["location"], content=picture(), headers=part)

    for asked in ({"source": "s3://eve-scans/"}, {"upload": sent.json()["id"]}):
        made = eve.post("/v1/restorations", json={**asked, **PEOPLE})
        assert made.status_code == 202, made.text
        fed = feeding.feed(ledger, open_store(settings), settings, "eve", made.json()["id"], lambda _: None)
        assert fed.photos == 1


def test_a_delivery_never_writes_over_what_another_wrote(settings: Settings) -> None:
    place = Reach(settings=settings, owner="eve").place("s3://eve-scans/out", "write")
    put("eve-scans", "out/results.jsonl", b"somebody else's")
    bucket = Bucket(place, "eve", "bat_1")
    bucket.replace("mine.jsonl", b"first")
    bucket.replace("mine.jsonl", b"second")

    with pytest.raises(ConflictError):
        bucket.replace("results.jsonl", b"ours")
    with pytest.raises(ConflictError):
        Bucket(place, "alice", "bat_2").replace("mine.jsonl", b"another owner")
    with pytest.raises(ConflictError):
        bucket.write("mine.jsonl", b"third", "image/png", None, "")

    read = boto3.client("s3").get_object
    assert read(Bucket="eve-scans", Key="out/results.jsonl")["Body"].read() == b"somebody else's"
    assert read(Bucket="eve-scans", Key="out/mine.jsonl")["Body"].read() == b"second"
