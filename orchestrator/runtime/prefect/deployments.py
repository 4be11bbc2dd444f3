"""Deployments of the flows, made through Prefect's interface; `prefect.yaml` makes the same by hand.

What runs by the clock stands in the ledger (orchestrator.runtime.schedules); schedules of before are taken over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import ScheduledPortraits, ScheduledTraining
from orchestrator.errors import FpgaError, NotFoundError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import schedules
from orchestrator.planning import clock
from orchestrator.runtime.dispatch import FLOW, TAG, WATCH
from orchestrator.runtime.prefect.client import PrefectApi, connect
from orchestrator.runtime.schedules import PORTRAITS, TRAINING
from orchestrator.settings import Settings, get_settings

log = logging.getLogger(__name__)
Deployment = dict[str, Any]

POOL = "fpga"
SCHEDULE_TAG, TRAIN_TAG = "fpga-schedule", "fpga-train-schedule"
"""Of schedules that were deployments."""
PAGE = 200
"""Prefect gives no more deployments at a time."""


@dataclass(frozen=True, kw_only=True)
class FlowFacts:
    """What Prefect must know of a flow; `parameter` is what a schedule fills in, beside `batch_id`."""

    entrypoint: str
    description: str
    parameter: str


FLOW_FACTS = {
    FLOW: FlowFacts(
        entrypoint="orchestrator.flows.generate_batch.generate_batch",
        description="Watches a batch until it has ended, or makes one from a stored manifest.",
        parameter="manifest",
    ),
    "evaluate": FlowFacts(
        entrypoint="orchestrator.flows.evaluate.evaluate",
        description="Watches a measurement of a model version, or asks for one from a recipe.",
        parameter="recipe",
    ),
    "retrain": FlowFacts(
        entrypoint="orchestrator.flows.retrain.retrain",
        description="Watches a training run from its data to the gate, or begins one from a recipe.",
        parameter="recipe",
    ),
    "build_dataset": FlowFacts(
        entrypoint="orchestrator.flows.build_dataset.build_dataset",
        description="Watches the build of a data set until it is published, or begins one from a request.",
        parameter="request",
    ),
    "restore_archive": FlowFacts(
        entrypoint="orchestrator.flows.restore_archive.restore_archive",
        description="Reads an archive into its batch and watches it until it has ended, or opens one for a source.",
        parameter="archive",
    ),
}


def ensure_deployments(settings: Settings) -> None:
    """Create or renew the work pool and the deployments that watch batches; schedules of before come into the ledger.

    Raises:
        TransientError: Prefect cannot be reached.
    """
    with connect(settings) as api:
        ensure(api)
        ledger = Ledger.of(settings)
        try:
            take_over(api, ledger)
        finally:
            ledger.dispose()


def ensure(api: PrefectApi) -> None:
    """Do what `ensure_deployments` does over an open connection."""
    ensure_pool(api)
    for flow in FLOW_FACTS:
        put_deployment(api, WATCH, flow=flow, tags=[TAG])


def continue_killed(api: PrefectApi) -> int:
    """Queue again all flow runs that the server believes to be running, and return how many those were.

    For a private server right after its start only: nothing can run yet, so whatever is called running was killed.
    """
    alive = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}, "limit": 200}
    runs = api.call("POST", "flow_runs/filter", alive)
    for run in runs:
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "its process was killed; it goes on"}
        api.call("POST", f"flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return len(runs)


def take_over(api: PrefectApi, ledger: Ledger) -> int:
    """Bring schedules of before, which were deployments with a cron line, into the ledger; return how many those were.

    One that the ledger has already, or cannot have (its cron line is refused now), is left paused where it was.
    """
    taken = 0
    for tag, kind in ((SCHEDULE_TAG, PORTRAITS), (TRAIN_TAG, TRAINING)):
        asked = {"deployments": {"tags": {"all_": [tag]}}, "limit": PAGE}
        for one in api.call("POST", "deployments/filter", asked):
            if one.get("paused"):
                continue
            try:
                _take(ledger, one, kind)
            except FpgaError as error:
                log.warning("schedule left with Prefect", extra={"schedule": one["name"], "error": error.message})
                api.call("PATCH", f"deployments/{one['id']}", {"paused": True})
            else:
                api.call("DELETE", f"deployments/{one['id']}")
                taken += 1
    return taken


def _take(ledger: Ledger, deployment: Deployment, kind: str) -> None:
    timing: dict[str, Any] = next(iter(deployment["schedules"]), {"schedule": {}})["schedule"]
    cron, timezone = timing.get("cron", ""), timing.get("timezone") or "UTC"
    given = deployment["parameters"]
    if kind == PORTRAITS:
        kept = given["manifest"]
        owner, options = kept["owner"], SubmitOptions.load(kept.get("options", {}))
        task = ScheduledPortraits(key=kept["key"], sha256=kept["sha256"], format=kept["format"], options=options).dump()
    else:
        owner, task = get_settings().owner, ScheduledTraining(recipe=given["recipe"]).dump()
    clock.check(cron, timezone, datetime.now(UTC))
    name = deployment["name"].rpartition(".")[2]
    schedules.put(
        ledger,
        owner=owner,
        kind=kind,
        name=name,
        cron=cron,
        timezone=timezone,
        catch_up="latest",
        overlap="skip",
        task=task,
    )


def ensure_pool(api: PrefectApi) -> None:
    """Create the work pool that flow runs wait in, unless it exists."""
    try:
        api.call("GET", f"work_pools/{POOL}")
    except NotFoundError:
        # the worker fills in the template of its type when it first looks
        api.call("POST", "work_pools/", {"name": POOL, "type": "process", "description": "flows of FPGA"})


def put_deployment(api: PrefectApi, name: str, *, flow: str = FLOW, **fields: Any) -> None:
    """Create or renew a deployment of one of our flows; `fields` are Prefect's own."""
    facts = FLOW_FACTS[flow]
    made = api.call("POST", "flows/", {"name": flow, "tags": [TAG]})
    body = {
        "name": name,
        "flow_id": made["id"],
        "entrypoint": facts.entrypoint,
        "work_pool_name": POOL,
        "parameter_openapi_schema": _parameters_schema(facts.parameter),
        "description": facts.description,
        **fields,
    }
    api.call("POST", "deployments/", body)


def _parameters_schema(parameter: str) -> dict[str, Any]:
    def optional(name: str, kind: str) -> dict[str, Any]:
        return {"title": name, "anyOf": [{"type": kind}, {"type": "null"}], "default": None}

    properties = {"batch_id": optional("batch_id", "string"), parameter: optional(parameter, "object")}
    return {"title": "Parameters", "type": "object", "properties": properties}
