"""Writers that are killed in the middle, and disks that fill up: nothing half-written is ever readable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import StoreUnavailableError
from orchestrator.storage import ByteStore
from tests.integration.storage.conftest import Place, local_place
from tests.services.fault_proxy import FaultProxy

REPOSITORY = Path(__file__).parents[3]

PUT_AND_STALL = """
import io, sys, time
from orchestrator.settings import Settings
from orchestrator.storage import open_store
class Stalling(io.RawIOBase):
    given = 0
    def read(self, size=-1):
        if self.given:
            print("half", flush=True)
            time.sleep(60)
        self.given = size
        return bytes(size)
open_store(Settings()).put("a/b", Stalling(), media_type="image/png")
"""

PUT_IN_PARTS = """
from orchestrator.storage.s3 import S3Store
store = S3Store(bucket={bucket!r}, prefix="some/prefix", addressing_style="path", multipart_threshold=5 << 20)
store.put("a/b", bytes(11 << 20), media_type="image/png")
"""

PUT_WITH_SMALL_FILES_ONLY = """
import resource, sys
from orchestrator.errors import FpgaError
from orchestrator.settings import Settings
from orchestrator.storage import open_store
store = open_store(Settings())
store.put("a/small", bytes(1000), media_type="image/png")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.put("a/large", bytes(3_000_000), media_type="image/png")
except FpgaError as error:
    print(type(error).__name__, error.code, error.retryable)
store.put("a/small-again", bytes(1000), media_type="image/png")
"""


def child(program: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **environment, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = local_place(tmp_path)
    monkeypatch.setenv("FPGA_STORE_URL", place.environment["FPGA_STORE_URL"])
    return place


def test_a_local_writer_killed_half_way_leaves_nothing_readable(local: Place) -> None:
    writer = child(PUT_AND_STALL, local.environment)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    store = local.open()
    assert store.head("a/b") is None
    writer.kill()
    writer.communicate()
    assert store.head("a/b") is None
    assert list(store.list()) == []
    assert store.sweep_stale(3600) == 0, "a young temporary file may have a living writer"
    assert store.sweep_stale(0) == 1
    assert store.sweep_stale(0) == 0


def test_an_s3_writer_killed_half_way_leaves_nothing_readable(proxied: Place, proxy: FaultProxy) -> None:
    store = proxied.open()
    proxy.plan("stall")
    program = PUT_AND_STALL[: PUT_AND_STALL.index("class")] + (
        "open_store(Settings()).put('a/b', bytes(3_000_000), media_type='image/png')"
    )
    writer = child(program, proxied.environment)
    assert proxy.spoiled.wait(120), "the writer is in the middle of its request"
    assert store.head("a/b") is None
    writer.kill()
    writer.communicate()
    assert store.head("a/b") is None
    assert list(store.list()) == []
    assert store.put("a/b", b"next try", media_type="image/png").size == 8


def test_a_killed_upload_in_parts_is_swept_and_never_readable(proxied: Place, proxy: FaultProxy) -> None:
    store = proxied.open()
    bucket = proxied.environment["FPGA_STORE_URL"].split("/")[2]
    proxy.rule = lambda request: "stall" if "partNumber=2" in request else "pass"
    writer = child(PUT_IN_PARTS.format(bucket=bucket), proxied.environment)
    assert proxy.spoiled.wait(120), "a part is in the middle of its request"
    writer.kill()
    writer.communicate()
    assert store.head("a/b") is None
    assert list(store.list()) == []
    assert store.sweep_stale(0) == 1
    assert store.sweep_stale(0) == 0


def test_a_full_disk_is_named_and_nothing_half_written_stays(local: Place) -> None:
    writer = child(PUT_WITH_SMALL_FILES_ONLY, local.environment)
    said, _ = writer.communicate(timeout=60)
    assert said == "StoreUnavailableError store_full True\n"
    assert writer.returncode == 0
    store = local.open()
    assert sorted(listed.key for listed in store.list()) == ["a/small", "a/small-again"]
    assert store.sweep_stale(0) == 0, "the writer took its temporary file away itself"


def test_a_full_s3_store_is_named(proxied: Place, proxy: FaultProxy) -> None:
    store: ByteStore = proxied.open()
    proxy.plan(507)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put("a/b", b"data", media_type="image/png")
    assert caught.value.code == "store_full"
    assert store.head("a/b") is None
