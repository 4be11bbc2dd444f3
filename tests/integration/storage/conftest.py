"""The stores under test: the same suite runs over a directory, S3 over HTTP (moto), and a real S3 store (Swift)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store
from orchestrator.testing import MemoryStore
from tests.services.fault_proxy import FaultProxy, fault_proxy
from tests.services.swift import Swift

AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}

SESSION = boto3.Session(region_name="us-east-1")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One empty store: how a process reaches it, and how a test spoils what is in it."""

    environment: dict[str, str]
    overwrite: Callable[[str, bytes], None]
    """Put other bytes at a key, behind the store's back."""
    opened: ByteStore | None = None
    """Of a store that has no settings."""

    def open(self) -> ByteStore:
        """Open the store with the settings of this process, which has `environment` set."""
        return self.opened or open_store(Settings())


def local_place(folder: Path) -> Place:
    root = folder / "store"
    return Place(
        environment={"FPGA_STORE_URL": root.as_uri()}, overwrite=lambda key, data: void((root / key).write_bytes(data))
    )


def s3_place(environment: dict[str, str]) -> Place:
    client = SESSION.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}),
    )
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    return Place(
        environment=environment | {"FPGA_STORE_URL": f"s3://{bucket}/some/prefix", "FPGA_S3_ADDRESSING_STYLE": "path"},
        overwrite=lambda key, data: void(client.put_object(Bucket=bucket, Key=f"some/prefix/{key}", Body=data)),
    )


def void(_: object) -> None:
    """Drop a value."""


@pytest.fixture(params=["memory", "local", "s3", pytest.param("swift", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty place of each kind, reachable through this process's environment."""
    if request.param == "memory":
        twin = MemoryStore()
        made = Place(environment={}, overwrite=twin.objects.__setitem__, opened=twin)
    elif request.param == "local":
        made = local_place(tmp_path)
    elif request.param == "s3":
        made = s3_place({**AWS, "AWS_ENDPOINT_URL_S3": request.getfixturevalue("moto_url")})
    else:
        swift: Swift = request.getfixturevalue("swift_server")
        made = s3_place(swift.environment_for_clients())
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def store(place: Place) -> ByteStore:
    """The store of the place, opened."""
    return place.open()


@pytest.fixture
def proxy(moto_url: str) -> Iterator[FaultProxy]:
    """A spoiling proxy in front of moto."""
    with fault_proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: FaultProxy, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty S3 place that is reached through the proxy."""
    made = s3_place({**AWS, "AWS_ENDPOINT_URL_S3": moto_url})
    environment = made.environment | {"AWS_ENDPOINT_URL_S3": proxy.url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Place(environment=environment, overwrite=made.overwrite)
