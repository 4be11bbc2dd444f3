"""Schedules of portraits over HTTP; each is a deployment of the Prefect server, kept for the owner who stands in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from orchestrator.api.context import Reader, Writer
from orchestrator.api.paging import planning
from orchestrator.contracts.base import Line
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import ManifestError
from orchestrator.portraits import submit
from orchestrator.runtime.prefect import deployments

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])
Name = Annotated[str, StringConstraints(pattern=deployments.NAME.pattern, max_length=63)]


class NewSchedule(SubmitOptions):
    """A manifest as text, and when a batch is made of it."""

    name: Name
    cron: Line
    timezone: Line = "UTC"
    manifest: Annotated[str, Field(min_length=1, max_length=2**20)]
    format: Literal["jsonl", "csv"] = "jsonl"

    def options(self) -> SubmitOptions:
        """Return what each of its batches is submitted with."""
        return SubmitOptions(**self.model_dump(include=set(SubmitOptions.model_fields)))


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
            options=body.options(),
        )
    if found.errors and not (body.skip_invalid and found.items):
        errors = [error.as_json() for error in found.errors]
        raise ManifestError("the manifest is wrong, nothing was scheduled", errors=errors)
    return deployments.add_schedule(
        caller.settings,
        caller.store,
        body.name,
        cron=body.cron,
        timezone=body.timezone,
        manifest=data,
        stored={"format": body.format, "name": body.name, "owner": caller.owner, "options": body.options().dump()},
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
