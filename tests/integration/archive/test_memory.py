"""The process that reads an archive and keeps its originals stays small, however large the archive is."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.ledger.engine import schema
from tests.memory import run_measured

GIB = 1 << 30
PROGRAM = """
import json, sys
from pathlib import Path
from orchestrator.archive import Photo, open_source
from orchestrator.archive.originals import keep_original
from orchestrator.ledger.engine.session import Ledger
from orchestrator.storage.local import LocalStore

source, database, store, keep_every = sys.argv[1:]
ledger, store = Ledger(database), LocalStore(Path(store))
photos = size = 0
with open_source(source) as opened:
    for number, member in enumerate(opened.members()):
        assert isinstance(member, Photo), member
        if number % int(keep_every):
            while piece := member.stream.read(1 << 20):
                size += len(piece)
        else:
            kept = keep_original(ledger, store, "local", member)
            size += kept.size
            store.delete(kept.key)  # the disk of a test machine is small
        photos += 1
print(json.dumps({"photos": photos, "bytes": size}))
"""


def jpeg(number: int, trailing: bytes = b"") -> bytes:
    """A small photo, different for every number."""
    out = io.BytesIO()
    Image.new("RGB", (48, 32), (number % 256, number // 256 % 256, 90)).save(out, "JPEG")
    return out.getvalue() + number.to_bytes(4) + trailing


def small(count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(count):
        yield f"{number // 500:03}/IMG_{number:05}.jpg", jpeg(number)


def large(total: int, each: int = 64 << 20) -> Iterator[tuple[str, bytes]]:
    noise = os.urandom(each)
    for number in range(total // each):
        yield f"scans/{number:03}.jpg", jpeg(number, noise)


def write(path: Path, members: Iterator[tuple[str, bytes]]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members:
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def read(source: Path, folder: Path, keep_every: int) -> dict[str, int]:
    database = f"sqlite:///{folder / 'ledger.sqlite3'}"
    schema.upgrade(database)
    command = [sys.executable, "-c", PROGRAM, str(source), database, str(folder / "store"), str(keep_every)]
    ran, peak = run_measured(command, seconds=1500)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, int] = {**json.loads(ran.stdout), "peak": peak}
    metrics = f"{found['photos']} photos, {found['bytes'] / GIB:.2f} GiB, peak {found['peak'] / 2**20:.0f} MiB"
    print(f"{source.name}: {metrics}")  # noqa: T201 the figures are what the test is for
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["small.zip", "small.tar.gz"])
def test_twenty_thousand_small_photos_fit_into_a_gibibyte(name: str, tmp_path: Path) -> None:
    found = read(write(tmp_path / name, small(20_000)), tmp_path, keep_every=10)

    assert found["photos"] == 20_000
    assert found["peak"] < GIB


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["large.zip"])
def test_four_gibibytes_fit_into_a_gibibyte(name: str, tmp_path: Path) -> None:
    source = write(tmp_path / name, large(4 * GIB))
    try:
        found = read(source, tmp_path, keep_every=1)
    finally:
        source.unlink()

    assert (found["photos"], found["bytes"] >= 4 * GIB) == (64, True)
    assert found["peak"] < GIB
