"""The flow that reads an archive into its batch: watched to the end, followed when it was killed, nothing twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.contracts.photos import RestoreOptions
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.photos import restore
from orchestrator.runtime.prefect.client import PrefectApi
from orchestrator.settings import Settings
from tests.integration.flows.test_generate_batch import batch, wait
from tests.unit.orchestrator.played import Played

OPTIONS = RestoreOptions(unknown="cluster", attested="rendered pictures")


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        grey = np.full((8, 8, 3), number % 251, np.uint8)
        grey[0, 0, 0] = number // 251
        Image.fromarray(grey).save(folder / f"{number:04d}.png")
    return folder


def open_batch(ledger: Ledger, settings: Settings, source: Path) -> str:
    return restore.submit(ledger, settings, source=str(source), options=OPTIONS, owner="local").batch_id


def runs_of(api: PrefectApi, batch_id: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = api.call("POST", "flow_runs/filter", {"flow_runs": {"tags": {"all_": [batch_id]}}})
    return found


def process_of(run_id: str) -> int | None:
    """Return the process that runs a flow, found by the id in its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if run_id.encode() in (folder / "environ").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    return None


def test_the_flow_fills_the_batch_and_closes_it_while_photos_wait_for_workers(
    ledger: Ledger, settings: Settings, worker: Played, api: PrefectApi, tmp_path: Path
) -> None:
    batch_id = open_batch(ledger, settings, pictures(tmp_path / "album", 70))

    wait(lambda: not batch(ledger, batch_id).open, "the source was read")
    assert batch(ledger, batch_id).total == 70
    assert batch(ledger, batch_id).options["read"] == {"photos": 70, "skipped": {}, "passed": {}}
    [run] = runs_of(api, batch_id)
    assert run["id"] == batch(ledger, batch_id).flow_run_id

    batches.cancel(ledger, "local", batch_id)

    wait(lambda: runs_of(api, batch_id)[0]["state_type"] == "CANCELLED", "the flow says so")


@pytest.mark.slow
def test_a_killed_flow_run_is_followed_by_another_that_reads_on(
    ledger: Ledger, settings: Settings, worker: Played, api: PrefectApi, tmp_path: Path
) -> None:
    batch_id = open_batch(ledger, settings, pictures(tmp_path / "album", 1500))
    wait(lambda: batch(ledger, batch_id).total > 0, "the first photos are there")
    first = batch(ledger, batch_id).flow_run_id
    assert first is not None
    process = process_of(first)
    assert process is not None

    os.kill(process, signal.SIGKILL)
    total = batch(ledger, batch_id).total
    assert batch(ledger, batch_id).open, "it was killed in the middle"
    assert total < 1500

    wait(lambda: not batch(ledger, batch_id).open, "another run has read the rest", 240)
    with ledger.read() as session:
        paths = [item.params["path"] for item in batches.items(session, batch_id)]
        assert session.get_one(Batch, batch_id).flow_run_id != first
    assert sorted(paths) == [f"{number:04d}.png" for number in range(1500)]
    batches.cancel(ledger, "local", batch_id)
