"""One owner floods a real server: he is told to wait, and another owner's work is done as if he were not there.

Scaled down from fifty thousand submits in a minute to what two cores make in a quarter of one; the printed line has
the numbers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestrator.access import keys
from orchestrator.embedded.programs import free_port
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims
from orchestrator.settings import Settings
from tests.unit.orchestrator.played import AddPerson

FLOODERS, FLOOD_SECONDS = 4, 15.0
QUOTA, ROWS = 1000, 50


def rows(count: int) -> dict[str, object]:
    """Return a batch of so many portraits."""
    return {"items": [{"custom_id": f"i{number}", "people": [{"identity": "ada"}]} for number in range(count)]}


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[str, int]]:
    """A server process of its own; its address and pid."""
    port = free_port("127.0.0.1", 0)
    told = {
        "FPGA_STATE_DIR": str(settings.state_dir),
        "FPGA_MODELS_DIR": str(settings.models_dir),
        "FPGA_API_PORT": str(port),
        "FPGA_QUOTA_ITEMS": str(QUOTA),
        "FPGA_API_RATE_PER_MINUTE": "240",
    }
    command = [sys.executable, "-m", "orchestrator.api.server"]
    process = subprocess.Popen(command, env={**os.environ, **told}, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not _alive(url):
            assert process.poll() is None
            assert time.monotonic() < until, "the server did not come up"
            time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _most_memory(pid: int) -> int:
    """Return the most KiB that a process ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.slow
def test_a_flood_of_one_owner_is_told_to_wait_and_delays_nobody_else(
    server: tuple[str, int], ledger: Ledger, person: AddPerson
) -> None:
    url, pid = server
    secrets = {}
    for owner in ("local", "eve"):
        person("ada", "generate", owner=owner)
        secrets[owner], _ = keys.create(ledger, owner, name="test")
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def client(owner: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {secrets[owner]}"}
        return httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False)

    def flood() -> None:
        with client("local") as http:
            while not stop.is_set():
                answers.append(http.post("/v1/batches", json=rows(ROWS)))

    threads = [threading.Thread(target=flood) for _ in range(FLOODERS)]
    for thread in threads:
        thread.start()
    try:
        with client("eve") as http:
            until = time.monotonic() + FLOOD_SECONDS
            theirs = [http.post("/v1/batches", json=rows(1)) for _ in range(10)]
            while time.monotonic() < until and Counter(one.status_code for one in list(answers))[429] < 50:
                time.sleep(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    told = Counter("taken" if one.is_success else one.json()["code"] for one in answers)
    assert [one.status_code for one in theirs] == [202] * 10
    assert set(told) <= {"taken", "rate_limited", "quota_items"}
    assert all(int(one.headers["retry-after"]) >= 1 for one in answers if one.status_code == 429)
    assert len(told) > 1, "some were refused"
    taken = told["taken"] * ROWS
    assert taken <= QUOTA + FLOODERS * ROWS
    before = claimed_until(ledger, "eve", 10)
    assert before <= 2 * 10 + 1, "in turns with the other owner, whatever that one has waiting"
    memory = _most_memory(pid)
    assert memory < 2**20
    print(  # noqa: T201 for the report
        f"{len(answers)} submits of {ROWS} rows: {dict(told)}; {taken} items wait; ten of another owner were "
        f"all taken and done after {before} claims; the server held {memory // 1024} MiB at most"
    )


def claimed_until(ledger: Ledger, owner: str, count: int) -> int:
    """Return after how many claims of one item each so many of an owner's items were claimed."""
    mine = 0
    for number in range(1, 10_000):
        (found,) = claims.claim(ledger, worker_id="wrk_test", queues=["gpu.generate"], limit=1, lease_seconds=600)
        mine += found.owner == owner
        if mine == count:
            return number
    raise AssertionError(f"{mine} of {count} in ten thousand claims")
