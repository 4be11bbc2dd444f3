"""The flow `retrain` on a real Prefect server: a run is seen until the gate has decided."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Batch
from orchestrator.models import evaluations, registry
from orchestrator.runtime.prefect.client import PrefectApi
from orchestrator.settings import Settings
from tests.unit.orchestrator.trained import add_dataset, begin, end_evaluation, finish, measure


def wait(until: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def dataset(ledger: Ledger, settings: Settings) -> str:
    measure(ledger, registry.ensure_registered(ledger, settings), 0.7)
    return add_dataset(ledger)


def flow_run_of(ledger: Ledger, batch_id: str) -> str | None:
    with ledger.read() as session:
        return session.get_one(Batch, batch_id).flow_run_id


def ended(api: PrefectApi, flow_run_id: str | None) -> bool:
    return api.call("GET", f"flow_runs/{flow_run_id}")["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def test_a_run_is_seen_to_the_gate(ledger: Ledger, settings: Settings, dataset: str, api: PrefectApi) -> None:
    run = begin(ledger, settings, dataset)
    wait(lambda: flow_run_of(ledger, run.batch_id), "the run knows its flow run")
    flow_run_id = flow_run_of(ledger, run.batch_id)

    version = finish(ledger, run, "c" * 64, 0.8)

    wait(lambda: ended(api, flow_run_id), "the flow has ended")
    found = api.call("GET", f"flow_runs/{flow_run_id}")
    assert (found["state_type"], found["state"]["message"]) == ("COMPLETED", f"{version} passed and is now champion")
    assert registry.champion(ledger, settings, "mini") == version
    assert len(registry.show_version(ledger, version)["decisions"]) == 1


def test_a_measurement_is_watched_until_its_figures_are_there(
    ledger: Ledger, settings: Settings, dataset: str, api: PrefectApi
) -> None:
    batch_id = evaluations.submit(ledger, owner="local", model="mini@champion", suites=["identity"], count=8)
    wait(lambda: flow_run_of(ledger, batch_id), "the measurement knows its flow run")

    measure(ledger, registry.champion(ledger, settings, "mini"), 0.7, batch_id)
    end_evaluation(ledger, batch_id)

    flow_run_id = flow_run_of(ledger, batch_id)
    wait(lambda: ended(api, flow_run_id), "the flow has ended")
    state = api.call("GET", f"flow_runs/{flow_run_id}")["state"]
    assert (state["type"], state["message"]) == ("COMPLETED", "completed: identity measured")
