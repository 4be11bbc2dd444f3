"""The flow `build_dataset` on a real Prefect server: watched from the chunks to a published version."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from orchestrator.contracts.datasets import Arranged
from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.errors import StageError
from orchestrator.ledger import datasets as rows
from orchestrator.ledger.datasets import NewVersion
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.claims import Claim, claim, start
from orchestrator.ledger.queue.outcomes import Outcome, fail, publish
from orchestrator.ledger.tables.rows import Batch
from orchestrator.runtime.prefect.client import PrefectApi
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

pytestmark = pytest.mark.slow


def wait(until: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.3)


def flow_run_of(ledger: Ledger, batch_id: str) -> str | None:
    with ledger.read() as session:
        return session.get_one(Batch, batch_id).flow_run_id


def next_claim(ledger: Ledger, queue: str) -> Claim:
    """Play the worker that takes the next stage of this queue."""
    found: list[Claim] = []

    def look() -> bool:
        found.extend(claim(ledger, worker_id="wrk_test", queues=[queue], limit=8, lease_seconds=60))
        return bool(found)

    wait(look, f"something is due in {queue}")
    start(ledger, found)
    assert len(found) == 1, "chunks and arrangements are claimed one at a time"
    return found[0]


def begin(ledger: Ledger, store: ByteStore, settings: Settings, name: str) -> str:
    wanted = BuildRequest(source="render:0:10", name=name, preset="mini", licence="CC0-1.0")
    return datasets.build(ledger, store, settings, wanted, owner="local").batch_id


def new_version(c: Claim) -> NewVersion:
    return NewVersion(
        owner="local",
        name=c.options["name"],
        content_sha256="c" * 64,
        preset="mini",
        encoder_sha256="e" * 64,
        source=c.options["source"],
        licence="CC0-1.0",
        attestation=None,
        batch_id=c.batch_id,
        index_artifact_id=None,
        facts={"splits": {"train": {"pictures": 9, "people": 4}}, "refused": {"no_face": 1}, "left_out": {}},
    )


def test_a_build_is_watched_until_its_version_is_published(
    ledger: Ledger, store: ByteStore, settings: Settings, api: PrefectApi
) -> None:
    batch_id = begin(ledger, store, settings, "drawn")
    wait(lambda: flow_run_of(ledger, batch_id), "the build knows its flow run")

    chunk = next_claim(ledger, "gpu.generate")
    publish(ledger, chunk, Outcome())
    whole = next_claim(ledger, "cpu.io")

    def write(session: object, moment: object) -> None:
        version = rows.publish(session, new_version(whole), moment)  # type: ignore[arg-type]  # what publish hands over
        rows.set_result(session, whole.stage_id, Arranged(version=version))  # type: ignore[arg-type]  # as above

    publish(ledger, whole, Outcome(write=write))
    run = f"flow_runs/{flow_run_of(ledger, batch_id)}"
    wait(lambda: api.call("GET", run)["state_type"] in ("COMPLETED", "FAILED", "CRASHED"), "the flow run has ended")

    state = api.call("GET", run)["state"]
    assert (state["type"], state["message"][:14]) == ("COMPLETED", "published dsv_")


def test_a_build_that_fails_ends_its_flow_run_with_the_reason(
    ledger: Ledger, store: ByteStore, settings: Settings, api: PrefectApi
) -> None:
    batch_id = begin(ledger, store, settings, "broken")
    wait(lambda: flow_run_of(ledger, batch_id), "the build knows its flow run")

    chunk = next_claim(ledger, "gpu.generate")
    fail(ledger, chunk, StageError("the shard is cut", code="shard_corrupt"), max_failures=1, backoff_seconds=0)
    run = f"flow_runs/{flow_run_of(ledger, batch_id)}"
    wait(lambda: api.call("GET", run)["state_type"] in ("COMPLETED", "FAILED", "CRASHED"), "the flow run has ended")

    state = api.call("GET", run)["state"]
    assert (state["type"], state["message"]) == ("FAILED", "shard_corrupt: the shard is cut")
    with ledger.read() as session:
        assert batches.by_idempotency_key(session, "local", f"arrange:{batch_id}") is None
