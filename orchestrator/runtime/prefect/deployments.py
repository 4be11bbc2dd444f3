"""Deployments of the flows, made through Prefect's interface; `prefect.yaml` makes the same by hand.

What runs by the clock stands in the ledger (orchestrator.runtime.schedules); schedules of before are taken over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from orchestrator.contracts.flows import Archive, Evaluation, Portraits
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import ScheduledPortraits, ScheduledTraining
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.errors import FpgaError, NotFoundError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import schedules
from orchestrator.models.training import Recipe
from orchestrator.planning import clock
from orchestrator.runtime.dispatch import FLOW, SHOWN, TAG, WATCH
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
    """What Prefect must know of a flow; `request` makes the form of its page."""

    entrypoint: str
    description: str
    request: type


FLOW_FACTS = {
    FLOW: FlowFacts(
        entrypoint="orchestrator.flows.generate_batch.generate_batch",
        description="Makes a batch of portraits from a manifest; runs named by a batch show how far it is.",
        request=Portraits,
    ),
    "evaluate": FlowFacts(
        entrypoint="orchestrator.flows.evaluate.evaluate",
        description="Asks for a measurement of a model version; runs named by a batch show how far it is.",
        request=Evaluation,
    ),
    "retrain": FlowFacts(
        entrypoint="orchestrator.flows.retrain.retrain",
        description="Begins a training run; runs named by a batch show how far it is.",
        request=Recipe,
    ),
    "build_dataset": FlowFacts(
        entrypoint="orchestrator.flows.build_dataset.build_dataset",
        description="Begins the build of a data set; runs named by a batch show how far it is.",
        request=BuildRequest,
    ),
    "restore_archive": FlowFacts(
        entrypoint="orchestrator.flows.restore_archive.restore_archive",
        description="Opens a batch that restores an archive; runs named by a batch show how far it is.",
        request=Archive,
    ),
}
"""`prefect.yaml` says the same; so does each flow's signature, which Prefect reads there."""


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
    runs = [run for run in api.call("POST", "flow_runs/filter", alive) if SHOWN not in run["tags"]]
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
        "parameter_openapi_schema": _form(facts.request),
        "description": facts.description,
        **fields,
    }
    api.call("POST", "deployments/", body)


def _form(request: type) -> dict[str, Any]:
    """Return a flow's one parameter as Prefect describes it, so that its pages ask for each field."""
    model = TypeAdapter(request).json_schema(ref_template="#/definitions/{model}")
    definitions = {**model.pop("$defs", {}), request.__name__: model}
    field = {"$ref": f"#/definitions/{request.__name__}", "position": 0, "title": "request"}
    return {
        "title": "Parameters",
        "type": "object",
        "properties": {"request": field},
        "required": ["request"],
        "definitions": definitions,
    }
