"""`fpga batch watch` on a database that is killed under it, and on a batch that is paused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from tests.services.postgres import Postgres

ROOT = Path(__file__).parents[3]
SECONDS = 60.0


def submit(ledger: Ledger) -> str:
    item = NewItem(custom_id="a", params={}, params_sha256="0" * 64, seed=1)
    return batches.submit(
        ledger, NewBatch(owner="local", kind="generate", name="t", preset="mini", items=[item])
    ).batch_id


def watching(url: str, folder: Path, batch_id: str, *more: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start the command; the list is what it has said on standard error so far."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": url, "FPGA_STATE_DIR": str(folder / "state")}
    command = [sys.executable, "-m", "orchestrator.cli.app", "batch", "watch", batch_id, *more]
    started = subprocess.Popen(command, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said: list[str] = []

    def line_by_line() -> None:
        assert started.stderr is not None, "it was piped"
        for line in iter(started.stderr.readline, ""):
            said.append(line)

    threading.Thread(target=line_by_line, daemon=True).start()
    return started, said


def wait(said: list[str], words: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not any(words in line for line in list(said)):
        assert time.monotonic() < deadline, (words, said)
        time.sleep(0.1)


@pytest.mark.slow
def test_watch_waits_for_a_database_that_is_killed_and_started_again(
    postgres_server: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    schema.upgrade(postgres_url)
    ledger = Ledger(postgres_url)
    batch_id = submit(ledger)
    ran, said = watching(postgres_url, tmp_path, batch_id)
    try:
        wait(said, "in_progress")
        postgres_server.kill()
        wait(said, "waiting until it does")
        time.sleep(2)
        postgres_server.start()
        wait(said, "it answers again")
        batches.cancel(ledger, "local", batch_id)
        assert ran.wait(SECONDS) == 2
    finally:
        ran.kill()
        ledger.dispose()
    assert len([line for line in said if "waiting until" in line]) == 1, "it is said once"
    assert not any("Traceback" in line for line in said)


def test_watch_ends_with_3_when_the_batch_is_paused_and_stays_if_it_is_told_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    schema.upgrade(url)
    ledger = Ledger(url)
    batch_id = submit(ledger)
    first, _ = watching(url, tmp_path, batch_id)
    second, said = watching(url, tmp_path, batch_id, "--wait-paused")
    try:
        wait(said, "in_progress")
        batches.pause(ledger, "local", batch_id)
        assert first.wait(SECONDS) == 3
        wait(said, "paused")
        assert second.poll() is None
        batches.cancel(ledger, "local", batch_id)
        assert second.wait(SECONDS) == 2
    finally:
        first.kill()
        second.kill()
        ledger.dispose()
