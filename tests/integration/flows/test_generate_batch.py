"""The flow on a real Prefect server: watched to the end, linked both ways, once per scheduled time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import ScheduledPortraits
from orchestrator.embedded import programs
from orchestrator.embedded.stack import Stack
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.portraits.submit import submit_portraits
from orchestrator.runtime import schedules
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


def test_schedules_of_before_come_into_the_ledger_and_leave_prefect(
    ledger: Ledger, settings: Settings, store: ByteStore, api: PrefectApi
) -> None:
    store.put("s/local/x.jsonl", MANIFEST, media_type="text/plain", sha256=hashlib.sha256(MANIFEST).hexdigest())
    kept = {"key": "s/local/x.jsonl", "sha256": hashlib.sha256(MANIFEST).hexdigest(), "format": "jsonl"}
    for name, cron in (("local.nightly", "0 2 * * *"), ("local.quartz", "0 0 2 * * *")):
        deployments.put_deployment(
            api,
            name,
            tags=[deployments.SCHEDULE_TAG],
            parameters={
                "manifest": {**kept, "name": name, "owner": "local", "options": {"redraws": 1, "preset": None}}
            },
            schedules=[{"active": True, "schedule": {"cron": cron, "timezone": "Europe/Berlin"}}],
        )

    assert deployments.take_over(api, ledger) == 1
    assert deployments.take_over(api, ledger) == 0

    (one,) = schedules.listing(ledger, "local")
    assert (one.name, one.cron, one.timezone) == ("nightly", "0 2 * * *", "Europe/Berlin")
    assert ScheduledPortraits.load(one.task).options.redraws == 1
    schedules.remove(ledger, store, "local", "nightly")


def test_the_deployments_are_made_once_however_often_they_are_ensured(settings: Settings, api: PrefectApi) -> None:
    deployments.ensure_deployments(settings)
    deployments.ensure_deployments(settings)
    found = api.call("POST", "deployments/filter", {})
    assert [d["name"] for d in found if d["name"] == "watch"] == ["watch"] * len(deployments.FLOW_FACTS)


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
