"""Probes: the stand-in for the networks that benches and chaos runs use, through real workers."""

from __future__ import annotations

from pathlib import Path

from benchmarks import probes
from orchestrator.ledger.queue import batches
from tests.integration.workers.rig import Rig
from workers.stages.probes.probe import ATTEMPT_BYTES, MARK_BYTES, mark


def test_a_probe_waits_and_stores_its_items_mark_and_bytes_of_its_attempt(tmp_path: Path) -> None:
    with Rig(tmp_path / "probed", probes=True) as rig:
        rig.start_worker(queues="cpu.io")
        batch_id = probes.submit(rig.ledger, rig.settings, items=10, milliseconds=5)

        assert rig.wait_ended(batch_id) == "completed"

        with rig.ledger.read() as session:
            made = {d.item.id: d.outputs[0][1].key for d in batches.details(session, batches.items(session, batch_id))}
        stored = {item_id: rig.store.get(key) for item_id, key in made.items()}
        assert all(data[:MARK_BYTES] == mark(batch_id, item_id) for item_id, data in stored.items())
        assert len({data[MARK_BYTES:] for data in stored.values()}) == 10
        assert {len(data) for data in stored.values()} == {MARK_BYTES + ATTEMPT_BYTES}


def test_a_worker_that_was_not_told_so_refuses_probes(tmp_path: Path) -> None:
    with Rig(tmp_path / "refused") as rig:
        rig.start_worker(queues="cpu.io")
        batch_id = probes.submit(rig.ledger, rig.settings, items=1, milliseconds=5)

        assert rig.wait_ended(batch_id) == "completed_with_errors"

        assert rig.items(batch_id)[0].error_code == "probes_refused"
