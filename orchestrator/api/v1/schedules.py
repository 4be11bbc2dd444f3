"""Schedules of portraits over HTTP; each is a deployment of the Prefect server, kept for the owner who stands in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from orchestrator.api.context import Reader, Writer
from orchestrator.api.paging import planning
from orchestrator.api.requests import Line, Strict
from orchestrator.errors import ManifestError
from orchestrator.planning.manifest import MAX_ROWS
from orchestrator.portraits import submit
from orchestrator.runtime.prefect import deployments

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])
Name = Annotated[str, StringConstraints(pattern=deployments.NAME.pattern, max_length=63)]


class NewSchedule(Strict):
    """A manifest as text, and when a batch is made of it."""

    name: Name
    cron: Line
    timezone: Line = "UTC"
    manifest: Annotated[str, Field(min_length=1, max_length=2**20)]
    format: Literal["jsonl", "csv"] = "jsonl"
    preset: Line | None = None
    lane: Literal["interactive", "bulk"] = "bulk"
    priority: Annotated[int, Field(ge=-3, le=3)] = 0
    redraws: Annotated[int, Field(ge=0, le=10)] = 0
    stop_after: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    skip_invalid: bool = False


@router.get("", operation_id="list_schedules")
def list_(caller: Reader) -> dict[str, Any]:
    """List your schedules with the next time that each runs."""
    return {
        "object": "list",
        "data": [one.as_json() for one in deployments.list_schedules(caller.settings, caller.owner)],
        "next": None,
    }


@router.post("", status_code=201, operation_id="create_schedule")
def create(caller: Writer, body: NewSchedule) -> dict[str, Any]:
    """Keep a manifest and make a batch of it by the clock; two runs for one moment make one batch."""
    data = body.manifest.encode()
    with planning(caller):
        found = submit.dry_run(
            caller.ledger,
            caller.settings,
            manifest=data,
            format=body.format,
            owner=caller.owner,
            preset=body.preset,
        )
    if found.errors and not (body.skip_invalid and found.items):
        errors = [error.as_json() for error in found.errors]
        raise ManifestError("the manifest is wrong, nothing was scheduled", errors=errors)
    options = body.model_dump(include={"preset", "lane", "priority", "redraws", "stop_after", "skip_invalid"})
    return deployments.add_schedule(
        caller.settings,
        caller.store,
        body.name,
        cron=body.cron,
        timezone=body.timezone,
        manifest=data,
        stored={"format": body.format, "name": body.name, "owner": caller.owner, "options": options},
    ).as_json()


@router.post("/{name}/run", status_code=202, operation_id="run_schedule")
def run(caller: Writer, name: Name) -> dict[str, Any]:
    """Run a schedule once, now."""
    begun = deployments.run_now(caller.settings, caller.owner, name)
    return {"object": "schedule.run", "name": name, "flow_run_id": begun}


@router.delete("/{name}", status_code=204, operation_id="delete_schedule")
def remove(caller: Writer, name: Name) -> Response:
    """Remove a schedule; batches that it made stay."""
    deployments.remove_schedule(caller.settings, caller.store, caller.owner, name)
    return Response(status_code=204)
