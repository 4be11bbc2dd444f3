"""Schedules of portraits over HTTP: when each runs next, and what became of the last time."""

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
from orchestrator.planning.clock import CatchUp, Overlap
from orchestrator.portraits import submit
from orchestrator.runtime import schedules

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])
Name = Annotated[str, StringConstraints(pattern=schedules.NAME.pattern, max_length=63)]


class NewSchedule(SubmitOptions):
    """A manifest as text, and when a batch is made of it."""

    name: Name
    cron: Line
    timezone: Line = "UTC"
    catch_up: CatchUp = "latest"
    overlap: Overlap = "skip"
    replace: bool = False
    manifest: Annotated[str, Field(min_length=1, max_length=2**20)]
    format: Literal["jsonl", "csv"] = "jsonl"

    def options(self) -> SubmitOptions:
        """Return what each of its batches is submitted with."""
        return SubmitOptions(**self.model_dump(include=set(SubmitOptions.model_fields)))


@router.get("", operation_id="list_schedules")
def list_(caller: Reader) -> dict[str, Any]:
    """List your schedules with the next times that each runs, and what became of the last."""
    found = schedules.listing(caller.ledger, caller.owner)
    return {"object": "list", "data": [one.dump() for one in found], "next": None}


@router.post("", status_code=201, operation_id="create_schedule")
def create(caller: Writer, body: NewSchedule) -> dict[str, Any]:
    """Keep a manifest and make a batch of it by the clock; the same again changes nothing."""
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
    return schedules.add_portraits(
        caller.ledger,
        caller.store,
        owner=caller.owner,
        name=body.name,
        timing=schedules.Timing(cron=body.cron, timezone=body.timezone, catch_up=body.catch_up, overlap=body.overlap),
        manifest=data,
        format=body.format,
        options=body.options(),
        replace=body.replace,
    ).dump()


@router.post("/{name}/run", status_code=202, operation_id="run_schedule")
def run(caller: Writer, name: Name) -> dict[str, Any]:
    """Make the batch of a schedule once, now, whatever it has under way."""
    return schedules.run_now(caller.ledger, caller.store, caller.settings, caller.owner, name)


@router.delete("/{name}", status_code=204, operation_id="delete_schedule")
def remove(caller: Writer, name: Name) -> Response:
    """Remove a schedule; batches that it made stay, one that is under way goes on."""
    schedules.remove(caller.ledger, caller.store, caller.owner, name)
    return Response(status_code=204)
