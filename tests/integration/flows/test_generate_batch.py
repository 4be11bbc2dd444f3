"""The flow on a real Prefect server: watched to the end, linked both ways, once per scheduled time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import ScheduledPortraits
from orchestrator.embedded import programs
from orchestrator.embedded.stack import Stack
from orchestrator.errors import ConflictError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.portraits.submit import submit_portraits
from orchestrator.runtime import schedules
from orchestrator.runtime.prefect import deployments
from orchestrator.runtime.prefect.client import PrefectApi
from orchestrator.runtime.prefect.watcher import Watcher
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


def state(api: PrefectApi, run_id: object) -> tuple[str, str]:
    found = api.call("GET", f"flow_runs/{run_id}")["state"]
    return found["type"], found["message"]


def artifacts(api: PrefectApi, run_id: object) -> dict[str, Any]:
    found = api.call("POST", "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
    return {artifact["key"].partition("-")[0]: artifact["data"] for artifact in found}


def test_a_submitted_batch_is_shown_by_one_flow_run_until_it_has_ended(
    ledger: Ledger, settings: Settings, worker: Played, api: PrefectApi
) -> None:
    batch_id = submit(ledger, settings)
    wait(lambda: batch(ledger, batch_id).flow_run_id, "the batch knows its flow run")
    run_id = batch(ledger, batch_id).flow_run_id
    wait(lambda: state(api, run_id) == ("RUNNING", "0 of 2 items have ended"), "the flow run shows it")
    assert artifacts(api, run_id).keys() == {"link", "progress"}

    worker.work(failing=["b"])

    wait(lambda: state(api, run_id)[0] == "COMPLETED", "the flow run has completed")
    (run,) = runs(api, tags={"all_": [batch_id]})
    assert run["id"] == run_id
    assert run["state"]["message"] == "completed_with_errors: 1 of 2 items completed, 1 failed"
    left = artifacts(api, run_id)
    assert batch_id in left["link"]
    assert left["progress"] == 100
    assert "| error pipe_broken | 1 |" in left["result"]


def test_batches_that_wait_take_no_slot_from_a_run_that_somebody_begins_in_prefects_form(
    ledger: Ledger, settings: Settings, api: PrefectApi
) -> None:
    waiting = [submit(ledger, settings, paused=True) for _ in range(programs.FLOW_RUNS + 1)]
    for one in waiting:
        wait(lambda: batch(ledger, one).flow_run_id, "it has a flow run")  # noqa: B023 waited for within this turn
        run_id = batch(ledger, one).flow_run_id
        wait(lambda: state(api, run_id)[0] == "PAUSED", "it is shown as paused")  # noqa: B023 as above

    begin = f"deployments/{api.deployment('generate_batch', 'watch')['id']}/create_flow_run"
    with pytest.raises(ConflictError, match="manifest"):
        api.call("POST", begin, {"parameters": {"request": {"format": "jsonl"}}})
    form = {"manifest": MANIFEST.decode(), "name": "from a form", "options": {"paused": True, "lane": "interactive"}}
    run = api.call("POST", begin, {"parameters": {"request": form}})

    wait(lambda: state(api, run["id"])[0] == "COMPLETED", "the run has made its batch and ended")
    made = state(api, run["id"])[1].split()[1]
    assert (batch(ledger, made).name, batch(ledger, made).lane) == ("from a form", "interactive")
    assert made in artifacts(api, run["id"])["batch"]
    for one in (*waiting, made):
        batches.cancel(ledger, "local", one)
    last = batch(ledger, waiting[-1]).flow_run_id
    wait(lambda: state(api, last)[0] == "CANCELLED", "the flow run says so")


def test_a_watcher_that_comes_back_ends_the_runs_of_batches_that_ended_meanwhile(
    ledger: Ledger, settings: Settings, api: PrefectApi
) -> None:
    batch_id = submit(ledger, settings, paused=True)
    wait(lambda: batch(ledger, batch_id).flow_run_id, "the batch knows its flow run")
    run_id = batch(ledger, batch_id).flow_run_id
    wait(lambda: state(api, run_id)[0] == "PAUSED", "it is shown")
    batches.cancel(ledger, "local", batch_id)
    wait(lambda: state(api, run_id)[0] == "CANCELLED", "the flow run says so")
    running = {"state": {"type": "RUNNING", "message": "as a killed process left it"}, "force": True}
    api.call("POST", f"flow_runs/{run_id}/set_state", running)

    Watcher(ledger, settings).look()

    assert state(api, run_id)[0] == "CANCELLED"


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
    assert theirs["parameter_openapi_schema"]["definitions"] == ours["parameter_openapi_schema"]["definitions"]
    assert {name: theirs[name] for name in same} == {name: ours[name] for name in same}
