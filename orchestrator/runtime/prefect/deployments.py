"""Deployments and schedules of the flows, made through Prefect's interface; `prefect.yaml` makes the same by hand.

A schedule is a deployment of its own with one cron schedule, tagged `fpga-schedule`; its manifest lies in the byte
store and the deployment refers to it by key and sha256. Its name is its owner's alone: two owners may use the same.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any
from zoneinfo import available_timezones

from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.runtime.dispatch import FLOW, TAG, WATCH
from orchestrator.runtime.prefect.client import PrefectApi, connect
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

POOL = "fpga"
SCHEDULE_TAG = "fpga-schedule"
PAGE = 200
"""Prefect gives no more deployments at a time."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


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


@dataclass(frozen=True, kw_only=True)
class StoredManifest:
    """A manifest in the byte store with everything that `submit_portraits` wants to know."""

    key: str
    sha256: str
    format: str
    name: str
    owner: str
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of `submit_portraits`: preset, lane, priority, redraws, skip_invalid."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A deployment that runs by itself."""

    name: str
    cron: str
    timezone: str
    active: bool
    manifest: dict[str, Any]
    deployment_id: str
    next_run: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line prints."""
        return {"object": "schedule", **asdict(self)}


def ensure_deployments(settings: Settings) -> None:
    """Create or renew the work pool and the deployments that watch batches; schedules are left as they are.

    Raises:
        TransientError: Prefect cannot be reached.
    """
    with connect(settings) as api:
        ensure(api)


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


def add_schedule(
    settings: Settings,
    store: ByteStore,
    name: str,
    *,
    cron: str,
    timezone: str,
    manifest: bytes,
    stored: dict[str, Any],
) -> Schedule:
    """Store the manifest and run it whenever `cron` says, by the clock of `timezone`.

    Args:
        cron: five fields, or a word such as `@daily`.
        timezone: a name of the IANA database, such as `Europe/Berlin`.
        stored: `format`, `name`, `owner` and `options` of StoredManifest.

    Raises:
        UsageError: the name is not made of `a-z 0-9 _ -`, or Prefect refuses the cron line or the zone.
        ConflictError: there is a schedule of this name.
        TransientError: Prefect or the byte store cannot be reached.
    """
    if not NAME.fullmatch(name) or name == WATCH:
        raise UsageError(f"schedule name {name!r}: wanted 1 to 63 of a-z 0-9 _ -, and not {WATCH!r}")
    with connect(settings) as api:
        owner = stored["owner"]
        if _find(api, owner, name) is not None:
            raise ConflictError(f"there is a schedule {name!r}; remove it first", code="schedule_exists")
        sha256 = hashlib.sha256(manifest).hexdigest()
        # a fixed key outside of the ledger's artifacts: nothing but the schedule refers to it
        key = f"s/{owner}/{sha256}.{stored['format']}"
        store.put(key, manifest, media_type="text/plain", sha256=sha256)
        kept = StoredManifest(key=key, sha256=sha256, **stored)
        ensure_pool(api)
        try:
            put_deployment(
                api,
                _full_name(owner, name),
                tags=[TAG, SCHEDULE_TAG],
                parameters={"batch_id": None, "manifest": asdict(kept)},
                schedules=[{"active": True, "schedule": {"cron": cron, "timezone": timezone}}],
            )
        except ConflictError as error:
            _forget(store, owner, key, api)
            raise clock_error(cron, timezone) from error
        return _schedule(api, _get(api, owner, name))


def list_schedules(settings: Settings, owner: str) -> list[Schedule]:
    """Return an owner's schedules by name."""
    with connect(settings) as api:
        return sorted((_schedule(api, one) for one in _of(api, owner)), key=lambda schedule: schedule.name)


def remove_schedule(settings: Settings, store: ByteStore, owner: str, name: str) -> None:
    """Remove a schedule and its manifest, unless another schedule runs the same; batches it made stay.

    Raises:
        NotFoundError: this owner has none of this name.
    """
    with connect(settings) as api:
        removed = _get(api, owner, name)
        api.call("DELETE", f"deployments/{removed['id']}")
        _forget(store, owner, _manifest(removed)["key"], api)


def run_now(settings: Settings, owner: str, name: str) -> str:
    """Run a schedule once, now, and return the id of its flow run.

    Raises:
        NotFoundError: this owner has none of this name.
    """
    with connect(settings) as api:
        return str(api.create_flow_run(_get(api, owner, name)["id"], tags=[SCHEDULE_TAG])["id"])


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


def _full_name(owner: str, name: str) -> str:
    """Return the name of a deployment; a schedule's own name has no dot."""
    return f"{owner}.{name}"


def _find(api: PrefectApi, owner: str, name: str) -> dict[str, Any] | None:
    if not NAME.fullmatch(name):
        return None
    for full in (_full_name(owner, name), name):  # the plain name: schedules of before names were an owner's own
        try:
            found = api.deployment(FLOW, full)
        except NotFoundError:
            continue
        if SCHEDULE_TAG in found["tags"] and _manifest(found).get("owner") == owner:
            return found
    return None


def _get(api: PrefectApi, owner: str, name: str) -> dict[str, Any]:
    found = _find(api, owner, name)
    if found is None:
        raise NotFoundError(f"there is no schedule {name!r}; see `fpga schedule list`", code="schedule_not_found")
    return found


def _of(api: PrefectApi, owner: str) -> list[dict[str, Any]]:
    """Return the deployments of an owner's schedules."""
    found: list[dict[str, Any]] = []
    asked = {"deployments": {"tags": {"all_": [SCHEDULE_TAG]}}, "limit": PAGE}
    while len(page := api.call("POST", "deployments/filter", {**asked, "offset": len(found)})) == PAGE:
        found += page
    return [one for one in [*found, *page] if _manifest(one).get("owner") == owner]


def _manifest(deployment: dict[str, Any]) -> dict[str, Any]:
    return deployment["parameters"].get("manifest") or {}


def _forget(store: ByteStore, owner: str, key: str, api: PrefectApi) -> None:
    """Delete a manifest, unless another schedule runs the same."""
    if all(_manifest(one).get("key") != key for one in _of(api, owner)):
        store.delete(key)


def _schedule(api: PrefectApi, deployment: dict[str, Any]) -> Schedule:
    timing: dict[str, Any] = next(iter(deployment["schedules"]), {"active": False, "schedule": {}})
    coming = api.call(
        "POST",
        "flow_runs/filter",
        {
            "flow_runs": {
                "deployment_id": {"any_": [deployment["id"]]},
                "state": {"type": {"any_": ["SCHEDULED"]}},
            },
            "sort": "NEXT_SCHEDULED_START_TIME_ASC",
            "limit": 1,
        },
    )
    return Schedule(
        name=deployment["name"].rpartition(".")[2],
        cron=timing["schedule"].get("cron", ""),
        timezone=timing["schedule"].get("timezone") or "UTC",
        active=bool(timing["active"]) and not deployment.get("paused", False),
        manifest=_manifest(deployment),
        deployment_id=deployment["id"],
        next_run=coming[0]["next_scheduled_start_time"] if coming else None,
    )


def clock_error(cron: str, timezone: str) -> UsageError:
    """Return the error that says what is wrong with a cron line or its zone, in the words of who wrote it."""
    if timezone not in available_timezones():
        near = get_close_matches(timezone, sorted(available_timezones()), 1, 0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return UsageError(f"there is no zone {timezone!r}; wanted one such as Europe/Berlin{hint}", code="bad_zone")
    fields = len(cron.split())
    return UsageError(
        f"wanted five fields, minute hour day month weekday, such as '0 2 * * *' for every night at two; got {fields} "
        f"in {cron!r}"
        if fields != 5
        else f"a field of the cron line {cron!r} is out of range or no number",
        code="bad_cron",
    )
