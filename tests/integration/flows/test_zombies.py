"""Prefect's view of a flow run whose process is gone, with a real server and a silence of ten seconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from orchestrator.runtime.dispatch import FLOW, TAG, WATCH
from orchestrator.runtime.prefect import zombies
from orchestrator.runtime.prefect.client import PrefectApi

SECONDS = 120.0


def found(api: PrefectApi) -> list[dict[str, object]]:
    automations: list[dict[str, object]] = api.call(
        "POST", "automations/filter", {"automations": {"name": {"any_": [zombies.NAME]}}}
    )
    return automations


def test_the_sweeper_asks_for_it_once(api: PrefectApi) -> None:
    deadline = time.monotonic() + SECONDS
    while not found(api):
        assert time.monotonic() < deadline, "the sweeper made no automation"
        time.sleep(0.2)

    assert not zombies.watch(api)
    assert len(found(api)) == 1


@pytest.mark.slow
def test_a_run_that_fell_silent_is_called_crashed_and_one_that_ended_is_left_alone(api: PrefectApi) -> None:
    remove(api)
    assert zombies.watch(api, seconds=10)
    try:
        silent, ended = (begun(api) for _ in range(2))
        state = {"type": "COMPLETED"}
        api.call("POST", f"flow_runs/{ended}/set_state", {"state": state, "force": True})

        deadline = time.monotonic() + SECONDS
        while kind(api, silent) != "CRASHED":
            assert time.monotonic() < deadline, kind(api, silent)
            time.sleep(0.5)
        assert kind(api, ended) == "COMPLETED"
    finally:  # the flows of later tests send a sign every 30 s
        remove(api)
        zombies.watch(api)


def remove(api: PrefectApi) -> None:
    for automation in found(api):
        api.call("DELETE", f"automations/{automation['id']}")


def begun(api: PrefectApi) -> str:
    """Return a flow run that says it runs, sent one sign of life, and has no process."""
    deployment = api.deployment(FLOW, WATCH)
    made = api.call("POST", "flow_runs/", {"flow_id": deployment["flow_id"], "tags": [TAG], "name": "silent"})
    api.call("POST", f"flow_runs/{made['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    sign = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": zombies.HEARTBEAT,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{made['id']}"},
        "related": [{"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}],
    }
    api.call("POST", "events", [sign])
    return str(made["id"])


def kind(api: PrefectApi, run: str) -> str:
    return str(api.call("GET", f"flow_runs/{run}")["state_type"])
