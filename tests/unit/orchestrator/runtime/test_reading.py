"""Archives are read by the sweeper's process: without Prefect, each for itself, on from where it was stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select, update

from orchestrator.contracts.photos import RestoreOptions
from orchestrator.errors import StoreUnavailableError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch, Leader, Outbox
from orchestrator.photos import feeding, restore
from orchestrator.runtime.reading import Readers
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

ROOT = Path(__file__).parents[4]
OPTIONS = RestoreOptions(unknown="cluster", attested="rendered pictures")


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        grey = np.full((8, 8, 3), number % 251, np.uint8)
        grey[0, 0, 0] = number // 251
        Image.fromarray(grey).save(folder / f"{number:04d}.png")
    return folder


def wait(until: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)


def submit(ledger: Ledger, settings: Settings, source: Path, **more: str) -> str:
    return restore.submit(ledger, settings, source=str(source), options=OPTIONS, owner="local", **more).batch_id  # type: ignore[arg-type]  # only `out` is given


def batch(ledger: Ledger, batch_id: str) -> Batch:
    with ledger.read() as session:
        return batches.get(session, "local", batch_id)


def asked(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return [one.id for one in photos.to_serve(session)]


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def readers(ledger: Ledger, store: ByteStore, settings: Settings, stop: threading.Event) -> Iterator[Readers]:
    made = Readers(ledger, store, settings, stop)
    yield made
    stop.set()
    made.close()


def test_a_source_is_read_and_the_batch_closed_though_no_prefect_is_anywhere(
    ledger: Ledger, settings: Settings, readers: Readers, tmp_path: Path
) -> None:
    batch_id = submit(ledger, settings, pictures(tmp_path / "album", 70))
    assert asked(ledger) == [batch_id]

    readers.look()
    wait(lambda: not batch(ledger, batch_id).open)

    assert batch(ledger, batch_id).total == 70
    assert batch(ledger, batch_id).options["read"] == {"photos": 70, "known": 0, "skipped": {}, "passed": {}}
    batches.cancel(ledger, "local", batch_id)
    time.sleep(0.1)
    readers._due.clear()
    readers.look()
    wait(lambda: asked(ledger) == [])


def test_a_source_that_is_gone_ends_its_own_batch_and_a_broken_one_stops_no_other(
    ledger: Ledger, settings: Settings, readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = submit(ledger, settings, pictures(tmp_path / "gone", 2))
    broken = submit(ledger, settings, pictures(tmp_path / "broken", 2))
    good = submit(ledger, settings, pictures(tmp_path / "good", 5))
    shutil.rmtree(tmp_path / "gone")
    feed = feeding.feed

    def raising(*given: Any, **more: Any) -> object:
        if broken in given:
            raise ZeroDivisionError(broken)
        return feed(*given, **more)

    monkeypatch.setattr(feeding, "feed", raising)

    for _ in range(3):
        readers.look()
    wait(lambda: not batch(ledger, good).open and not batch(ledger, gone).open)

    assert batch(ledger, good).total == 5
    assert [row["field"] for row in batch(ledger, gone).rejected_rows] == ["source"]
    assert batch(ledger, broken).open
    assert broken in asked(ledger), "it is tried again, later each time"
    assert readers._in_vain[broken] == 1


def test_what_waits_for_room_takes_no_place_and_goes_on_when_it_was_resumed(
    ledger: Ledger, settings: Settings, readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = submit(ledger, settings, pictures(tmp_path / "album", 3))

    def no_room(*_: object, **__: object) -> None:
        raise StoreUnavailableError("no room", code="disk_full")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.photos.feeding.keep_original", no_room)
        readers.look()
        wait(lambda: batch(ledger, full).state == "paused" and full not in readers._in_hand)
    assert batch(ledger, full).reason == "no room [disk_full]"
    readers._due.clear()
    assert readers.look() == 0, "whoever resumes it has made room"

    batches.resume(ledger, "local", full)
    readers.look()

    wait(lambda: not batch(ledger, full).open)
    assert batch(ledger, full).total == 3


def test_what_cannot_be_written_where_it_was_asked_for_stands_on_the_batch(
    ledger: Ledger, settings: Settings, readers: Readers, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file, no folder")
    batch_id = submit(ledger, settings, pictures(tmp_path / "album", 1), out=str(tmp_path / "out"))
    readers.look()
    wait(lambda: not batch(ledger, batch_id).open)
    batches.cancel(ledger, "local", batch_id)
    wait(lambda: batch_id not in readers._in_hand)
    readers._due.clear()

    readers.look()

    wait(lambda: asked(ledger) == [])
    reason = batch(ledger, batch_id).reason
    assert reason is not None
    assert "not written" in reason


def test_archives_that_flows_read_before_are_taken_over(
    ledger: Ledger, settings: Settings, readers: Readers, tmp_path: Path
) -> None:
    batch_id = submit(ledger, settings, pictures(tmp_path / "album", 2))
    with ledger.write() as session:  # as an earlier version left it
        session.execute(update(Batch).values(flow_run_id="of-before"))
        for row in session.scalars(select(Outbox).where(Outbox.kind == photos.SERVE)):
            session.delete(row)

    readers.look()

    wait(lambda: not batch(ledger, batch_id).open)


@pytest.mark.slow
def test_a_sweeper_killed_in_the_middle_is_followed_by_another_that_reads_on_and_nothing_is_there_twice(
    ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    batch_id = submit(ledger, settings, pictures(tmp_path / "album", 1500))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FPGA_STATE_DIR": str(settings.state_dir)}
    environment |= {"FPGA_SWEEP_SECONDS": "0.1", "FPGA_MODELS_DIR": str(settings.models_dir)}

    def sweep() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "orchestrator.runtime.sweeping"], env=environment)

    first = sweep()
    wait(lambda: batch(ledger, batch_id).total > 0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert batch(ledger, batch_id).open, "it was killed in the middle"
    assert batch(ledger, batch_id).total < 1500
    with ledger.write() as session:  # the time that its leases would take to lapse
        session.execute(update(Leader).values(lease_until=batch(ledger, batch_id).created_at))

    second = sweep()
    try:
        wait(lambda: not batch(ledger, batch_id).open, 120)
    finally:
        second.terminate()
        second.wait(30)
    with ledger.read() as session:
        paths = [item.params["path"] for item in batches.items(session, batch_id)]
    assert sorted(paths) == [f"{number:04d}.png" for number in range(1500)]
