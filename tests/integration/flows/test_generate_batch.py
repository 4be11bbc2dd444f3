"""The flow on a real Prefect server: watched to the end, linked both ways, once per scheduled time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.embedded import programs
from orchestrator.embedded.stack import Stack
from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.portraits.submit import submit_portraits
from orchestrator.runtime.prefect import deployments
from orchestrator.runtime.prefect.client import PrefectApi
from orchestrator.runtime.running import find_running
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import Played, lines

ROOT = Path(__file__).parents[3]
MANIFEST = lines({"custom_id": "a", "people": "ada"}, {"custom_id": "b", "people": "ada"})


def wait(until: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.2)


def batch(ledger: Ledger, batch_id: str) -> Batch:
    with ledger.read() as session:
        return batches.get(session, "local", batch_id)


def runs(api: PrefectApi, **where: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call("POST", "flow_runs/filter", {"flow_runs": where})
    return found


def submit(ledger: Ledger, settings: Settings, **options: Any) -> str:
    return submit_portraits(
        ledger,
        settings,
        manifest=MANIFEST,
        format="jsonl",
        name="test",
        owner="local",
        options=SubmitOptions.asked(**options),
    ).batch_id


def schedule(settings: Settings, store: ByteStore, name: str, **changes: Any) -> deployments.Schedule:
    stored = {"format": "jsonl", "name": name, "owner": "local", "options": {"redraws": 1}}
    timing = {"cron": "0 2 * * *", "timezone": "Europe/Berlin"} | changes
    return deployments.add_schedule(settings, store, name, manifest=MANIFEST, stored=stored, **timing)


def test_a_submitted_batch_is_watched_by_one_flow_run_until_it_has_ended(
    ledger: Ledger, settings: Settings, worker: Played, api: PrefectApi
) -> None:
    batch_id = submit(ledger, settings)
    wait(lambda: batch(ledger, batch_id).flow_run_id, "the batch knows its flow run")
    flow_run_id = batch(ledger, batch_id).flow_run_id
    wait(lambda: api.call("GET", f"flow_runs/{flow_run_id}")["state_type"] == "RUNNING", "the flow runs")

    worker.work(failing=["b"])

    wait(lambda: api.call("GET", f"flow_runs/{flow_run_id}")["state_type"] == "COMPLETED", "the flow has completed")
    (run,) = runs(api, tags={"all_": [batch_id]})
    artifacts = api.call("POST", "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}})
    assert run["id"] == flow_run_id
    assert run["state"]["message"] == "completed_with_errors: 1 of 2 items completed, 1 failed"
    assert [artifact["key"] for artifact in artifacts] == [f"batch-{batch_id.replace('_', '-')}"]
    assert "| error pipe_broken | 1 |" in artifacts[0]["data"]


def test_two_runs_for_the_same_scheduled_time_make_one_batch(
    ledger: Ledger, settings: Settings, store: ByteStore, worker: Played, api: PrefectApi
) -> None:
    made = schedule(settings, store, "twice")
    moment = datetime.now(UTC).isoformat()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": moment}}

    ids = {api.create_flow_run(made.deployment_id, state=state)["id"] for _ in range(2)}

    def ours() -> list[Batch]:
        with ledger.read() as session:
            return [b for b in batches.listing(session, "local") if b.name == "twice"]

    wait(ours, "a batch is made")
    worker.work()
    wait(lambda: all(run["state_type"] == "COMPLETED" for run in runs(api, id={"any_": list(ids)})), "both runs end")
    (only,) = ours()
    assert len(ids) == 2
    assert only.idempotency_key is not None
    assert only.idempotency_key.startswith(made.deployment_id)
    assert only.flow_run_id in ids
    assert only.options["redraws"] == 1
    deployments.remove_schedule(settings, store, "local", "twice")


def test_a_schedule_is_added_planned_listed_run_and_removed_with_its_manifest(
    ledger: Ledger, settings: Settings, store: ByteStore, worker: Played
) -> None:
    made = schedule(settings, store, "nightly")
    assert store.get(made.manifest["key"]) == MANIFEST
    with pytest.raises(ConflictError, match="nightly"):
        schedule(settings, store, "nightly")

    # the server's scheduler really plans: it cannot with SQLAlchemy 2.1
    wait(lambda: deployments.list_schedules(settings, "local")[0].next_run, "the first run is planned")
    (listed,) = deployments.list_schedules(settings, "local")
    assert (listed.name, listed.cron, listed.timezone, listed.active) == ("nightly", "0 2 * * *", "Europe/Berlin", True)

    flow_run_id = deployments.run_now(settings, "local", "nightly")

    def made_now() -> bool:
        with ledger.read() as session:
            return any(b.flow_run_id == flow_run_id for b in batches.listing(session, "local"))

    wait(made_now, "the run made its batch")
    worker.work()
    deployments.remove_schedule(settings, store, "local", "nightly")
    assert deployments.list_schedules(settings, "local") == []
    assert store.head(made.manifest["key"]) is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [("Night Shift", {}), ("watch", {}), ("bad", {"cron": "0 99 * * *"}), ("bad", {"timezone": "Mars/Olympus"})],
)
def test_a_schedule_that_cannot_run_is_refused_and_leaves_nothing(
    settings: Settings, store: ByteStore, api: PrefectApi, name: str, changes: dict[str, str]
) -> None:
    with pytest.raises(UsageError):
        schedule(settings, store, name, **changes)
    assert deployments.list_schedules(settings, "local") == []
    assert list(store.list("s/")) == []


def test_what_is_not_scheduled_can_neither_be_run_nor_removed(
    settings: Settings, store: ByteStore, api: PrefectApi
) -> None:
    with pytest.raises(NotFoundError, match="watch"):
        deployments.run_now(settings, "local", "watch")
    with pytest.raises(NotFoundError, match="never"):
        deployments.remove_schedule(settings, store, "local", "never")


def test_the_deployments_are_made_once_however_often_they_are_ensured(settings: Settings, api: PrefectApi) -> None:
    deployments.ensure_deployments(settings)
    deployments.ensure_deployments(settings)
    found = api.call("POST", "deployments/filter", {})
    assert [d["name"] for d in found] == ["watch"] * len(deployments.FLOW_FACTS)


def test_prefect_yaml_makes_the_same_deployment(stack: Stack, settings: Settings, api: PrefectApi) -> None:
    ours = api.deployment("generate_batch", "watch")
    running = find_running(settings)
    assert running is not None
    env = {
        **programs.environment(settings),
        "PREFECT_HOME": str(settings.state_dir / "prefect"),
        "PREFECT_API_URL": running.prefect_api_url or "",
        "PREFECT_API_AUTH_STRING": running.prefect_auth or "",
    }
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    theirs = api.deployment("generate_batch", "watch")
    same = ("id", "entrypoint", "path", "tags", "parameters", "schedules", "work_pool_name", "description")
    assert {name: theirs[name] for name in same} == {name: ours[name] for name in same}
