"""Retraining by the clock: deployments of the flow `retrain` that keep a recipe and run it whenever cron says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.models.training import Recipe
from orchestrator.runtime.dispatch import TAG, WATCH
from orchestrator.runtime.prefect.client import PrefectApi, connect
from orchestrator.runtime.prefect.deployments import NAME, clock_error, ensure_pool, put_deployment
from orchestrator.settings import Settings

FLOW = "retrain"
SCHEDULE_TAG = "fpga-train-schedule"


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """A deployment that retrains by itself."""

    name: str
    cron: str
    timezone: str
    active: bool
    recipe: dict[str, Any]
    deployment_id: str

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line prints."""
        return {"object": "training.schedule", **asdict(self)}


def add(settings: Settings, name: str, recipe: Recipe, *, cron: str, timezone: str = "UTC") -> TrainingSchedule:
    """Keep a recipe and run it whenever `cron` says, by the clock of `timezone`.

    Raises:
        UsageError: the name is not made of `a-z 0-9 _ -`, or Prefect refuses the cron line or the zone.
        ConflictError: there is a schedule of this name.
        TransientError: Prefect cannot be reached.
    """
    if not NAME.fullmatch(name) or name == WATCH:
        raise UsageError(f"schedule name {name!r}: wanted 1 to 63 of a-z 0-9 _ -, and not {WATCH!r}")
    with connect(settings) as api:
        if _find(api, name) is not None:
            raise ConflictError(f"there is a training schedule {name!r}; remove it first", code="schedule_exists")
        ensure_pool(api)
        try:
            put_deployment(
                api,
                name,
                flow=FLOW,
                tags=[TAG, SCHEDULE_TAG],
                parameters={"batch_id": None, "recipe": recipe.model_dump(mode="json")},
                schedules=[{"active": True, "schedule": {"cron": cron, "timezone": timezone}}],
            )
        except ConflictError as error:
            raise clock_error(cron, timezone) from error
        return _schedule(_get(api, name))


def list_schedules(settings: Settings) -> list[TrainingSchedule]:
    """Return all schedules by name."""
    with connect(settings) as api:
        found = api.call(
            "POST", "deployments/filter", {"deployments": {"tags": {"all_": [SCHEDULE_TAG]}}, "limit": 200}
        )
    return sorted((_schedule(deployment) for deployment in found), key=lambda schedule: schedule.name)


def remove(settings: Settings, name: str) -> None:
    """Remove a schedule; runs it began stay.

    Raises:
        NotFoundError: there is none of this name.
    """
    with connect(settings) as api:
        api.call("DELETE", f"deployments/{_get(api, name)['id']}")


def run_now(settings: Settings, name: str) -> str:
    """Run a schedule once, now, and return the id of its flow run.

    Raises:
        NotFoundError: there is none of this name.
    """
    with connect(settings) as api:
        return str(api.create_flow_run(_get(api, name)["id"], tags=[SCHEDULE_TAG])["id"])


def _find(api: PrefectApi, name: str) -> dict[str, Any] | None:
    try:
        found = api.deployment(FLOW, name)
    except NotFoundError:
        return None
    return found if SCHEDULE_TAG in found["tags"] else None


def _get(api: PrefectApi, name: str) -> dict[str, Any]:
    found = _find(api, name)
    if found is None:
        raise NotFoundError(
            f"there is no training schedule {name!r}; see `fpga train schedules`", code="schedule_not_found"
        )
    return found


def _schedule(deployment: dict[str, Any]) -> TrainingSchedule:
    timing: dict[str, Any] = next(iter(deployment["schedules"]), {"active": False, "schedule": {}})
    return TrainingSchedule(
        name=deployment["name"],
        cron=timing["schedule"].get("cron", ""),
        timezone=timing["schedule"].get("timezone") or "UTC",
        active=bool(timing["active"]) and not deployment.get("paused", False),
        recipe=deployment["parameters"].get("recipe") or {},
        deployment_id=deployment["id"],
    )
