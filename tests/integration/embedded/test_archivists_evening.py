"""The archivist's evening as a user has it: `fpga up`, `fpga restore`, and a Prefect server that dies in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fpga_models.lab.synthetic.archive import write_archive
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.settings import Settings

FPGA = Path(sys.executable).with_name("fpga")
OWNER = "local"
WITHOUT_TREE = {"results.jsonl", "errors.jsonl", "files.jsonl"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A running stack, by its state directory."""
    folder = tmp_path / "state"
    environment = os.environ | {"FPGA_TORCH_THREADS": "1"}
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [FPGA, "--state-dir", folder, "up"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while subprocess.run([FPGA, "--state-dir", folder, "doctor"], capture_output=True, check=False).returncode:
            assert up.poll() is None, (tmp_path / "up.log").read_text()
            assert time.monotonic() < deadline, "the stack was not well within five minutes"
            time.sleep(1)
        yield folder
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(up.pid, signal.SIGKILL)


def prefect_servers(state: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"FPGA_STATE_DIR={state}".encode() in (entry / "environ").read_bytes().split(b"\0")
            if ours and b"prefect\0server\0start" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for_photos(state: Path, restoring: subprocess.Popen[bytes], count: int) -> None:
    """Wait until so many photos of a batch are done."""
    ledger = Ledger(Settings(state_dir=state).database_url)
    deadline = time.monotonic() + 300
    try:
        while True:
            with ledger.read() as session:
                found = [batches.counts(session, batch.id) for batch in batches.listing(session, OWNER)]
            if any(counts["completed"] >= count for counts in found):
                return
            assert restoring.poll() is None, "the command ended before"
            assert time.monotonic() < deadline, "no photo was done within five minutes"
            time.sleep(0.1)
    finally:
        ledger.dispose()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_archive_comes_back_though_prefect_dies_and_says_what_could_not_be_done(state: Path, tmp_path: Path) -> None:
    truths = write_archive(tmp_path / "album.zip", count=24, seed=9, damaged=0.25)
    wanted = {truth.path for truth in truths if truth.expected == "photo"}
    broken = {truth.path: truth.expected for truth in truths if truth.expected not in ("photo", "skipped")}
    command: list[str | Path] = [
        FPGA,
        "--state-dir",
        state,
        "restore",
        tmp_path / "album.zip",
        "--out",
        tmp_path / "out",
    ]
    with (tmp_path / "restore.out").open("wb") as out, (tmp_path / "restore.err").open("wb") as err:
        restoring = subprocess.Popen([*command, "--attest", "drawn people"], stdout=out, stderr=err)
    wait_for_photos(state, restoring, 1)
    killed = prefect_servers(state)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert restoring.poll() is None, "the server died in the middle"

    assert restoring.wait(800) == 2, (tmp_path / "restore.err").read_text()
    assert killed, "there was a Prefect server to kill"
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files - WITHOUT_TREE == wanted
    lines = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert {line["custom_id"]: line["error"]["code"] for line in lines} == broken
    assert all(line["error"]["message"] and line["error"]["stage"] for line in lines)
