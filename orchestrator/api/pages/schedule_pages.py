"""Page of schedules: manifests and recipes that run by the clock; add, remove, run now.

Schedules of portraits belong to the owner who stands in them, those of training to the owner of this deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Caller, Promoter, Reader, Writer
from orchestrator.api.pages.pages import shown
from orchestrator.api.paging import planning
from orchestrator.contracts.base import Line
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.datasets import dataset_views
from orchestrator.errors import FpgaError, ManifestError, NotFoundError, UsageError
from orchestrator.models import training
from orchestrator.planning.clock import CatchUp, Overlap
from orchestrator.planning.manifest import FORMATS, MAX_BYTES
from orchestrator.portraits import submit
from orchestrator.runtime import schedules as service
from orchestrator.runtime.schedules import TRAINING, Timing

router = APIRouter(prefix="/schedules", include_in_schema=False)
HERE = "/schedules"
Name = Annotated[str, Form(min_length=1, max_length=63)]
Cron = Annotated[str, Form(min_length=1, max_length=200)]

OFFERED = {name for name in SubmitOptions.model_fields if name != "growing"}
"""What a schedule may say of its batches; one that grows would never end."""
FIELDS = (
    "name",
    "cron",
    "timezone",
    "catch_up",
    "overlap",
    "replace",
    "steps",
    "dataset",
    "training",
    *sorted(OFFERED | {"preset"}),
)
BLANK = dict.fromkeys(FIELDS, "")
"""An empty form."""
SAID = {
    "run": "It begins now: its batch appears on Home within seconds.",
    "removed": "It is removed. Batches that it made stay.",
}


@router.get("")
def schedules(caller: Reader, said: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Show what runs by the clock."""
    return _page(caller, said=SAID.get(said))


async def _chosen(request: Request) -> dict[str, str]:
    """Return what a form says of the batches; a field that was left empty says nothing."""
    form = await request.form()
    said = {name: form.get(name) for name in OFFERED}
    return {name: value for name, value in said.items() if isinstance(value, str) and value}


@router.post("")
def add(
    caller: Writer,
    name: Name,
    cron: Cron,
    manifest: Annotated[UploadFile, File()],
    chosen: Annotated[dict[str, str], Depends(_chosen)],
    timezone: Annotated[Line, Form()] = "UTC",
    catch_up: Annotated[CatchUp, Form()] = "latest",
    overlap: Annotated[Overlap, Form()] = "skip",
    replace: Annotated[bool, Form()] = False,
) -> Response:
    """Keep a manifest and make a batch of it by the clock."""
    try:
        timing = Timing(cron=cron, timezone=timezone, catch_up=catch_up, overlap=overlap)
        _add(caller, name, timing, manifest, SubmitOptions.asked(**chosen), replace=replace)
    except FpgaError as error:
        given = {"name": name, "cron": cron, "timezone": timezone, "catch_up": catch_up, "overlap": overlap}
        return _page(caller, error, {**given, **chosen, "replace": "yes" if replace else ""})
    return RedirectResponse(HERE, 303)


@router.post("/training")
def add_training(
    caller: Promoter,
    name: Name,
    cron: Cron,
    dataset: Annotated[Line, Form()],
    steps: Annotated[int, Form(ge=1)],
    preset: Annotated[Line, Form()],
    timezone: Annotated[Line, Form()] = "UTC",
) -> Response:
    """Retrain by the clock on whatever is the newest version of a data set then."""
    try:
        _check_trains(caller)
        recipe = training.read_recipe({"dataset": dataset, "steps": steps, "preset": preset, "name": name})
        timing = Timing(cron=cron, timezone=timezone)
        service.add_training(caller.ledger, owner=caller.owner, name=name, timing=timing, recipe=recipe)
    except FpgaError as error:
        given = {"name": name, "cron": cron, "timezone": timezone, "steps": str(steps), "dataset": dataset}
        return _page(caller, error, {**given, "preset": preset, "training": "yes"})
    return RedirectResponse(HERE, 303)


@router.post("/{name}/run")
def run(caller: Writer, name: str) -> Response:
    """Run a schedule once, now."""
    made = partial(service.run_now, caller.ledger, caller.store, caller.settings, caller.owner, name)
    return _changed(caller, made, said="run")


@router.post("/{name}/remove")
def remove(caller: Writer, name: str) -> Response:
    """Remove a schedule; batches it made stay."""
    return _changed(caller, lambda: service.remove(caller.ledger, caller.store, caller.owner, name))


@router.post("/training/{name}/run")
def run_training(caller: Promoter, name: str) -> Response:
    """Begin a run of a training schedule now."""
    made = partial(service.run_now, caller.ledger, caller.store, caller.settings, caller.owner, name, TRAINING)
    return _changed(caller, made, trains=True, said="run")


@router.post("/training/{name}/remove")
def remove_training(caller: Promoter, name: str) -> Response:
    """Remove a training schedule; runs it began stay."""
    return _changed(
        caller, lambda: service.remove(caller.ledger, caller.store, caller.owner, name, TRAINING), trains=True
    )


def _add(
    caller: Caller, name: str, timing: Timing, manifest: UploadFile, options: SubmitOptions, *, replace: bool
) -> None:
    ending = "." + (manifest.filename or "").rpartition(".")[2].lower()
    form = FORMATS.get(ending)
    if form is None:
        raise UsageError("a manifest is a file named .jsonl, .ndjson or .csv", code="bad_manifest_name")
    data = manifest.file.read(MAX_BYTES + 1)
    with planning(caller):
        found = submit.dry_run(
            caller.ledger, caller.settings, manifest=data, format=form, owner=caller.owner, options=options
        )
    if found.errors and not (options.skip_invalid and found.items):
        first = found.errors[0]
        raise ManifestError(
            f"the manifest is wrong in {len({one.row for one in found.errors})} rows, nothing was scheduled; "
            f"the first is row {first.row}: {first.message}"
        )
    service.add_portraits(
        caller.ledger,
        caller.store,
        owner=caller.owner,
        name=name,
        timing=timing,
        manifest=data,
        format=form,
        options=options,
        replace=replace,
    )


def _options() -> list[dict[str, Any]]:
    """Return how each option of a submit is asked for."""
    found = []
    for name, about in SubmitOptions.model_json_schema()["properties"].items():
        kind = next(one for one in about.get("anyOf", [about]) if one.get("type") != "null")
        if name in OFFERED:
            limits = dict.fromkeys(("enum", "minimum", "maximum", "maxLength"))
            said = {"name": name, "about": about.get("description", ""), "default": about.get("default")}
            found.append({**limits, **kind, **said})
    return found


def _changed(caller: Caller, change: Callable[[], object], *, trains: bool = False, said: str = "removed") -> Response:
    """Do something with one's own schedule, or with one of training."""
    try:
        if trains:
            _check_trains(caller)
        change()
    except FpgaError as error:
        return _page(caller, error)
    return RedirectResponse(f"{HERE}?said={said}", 303)


def _check_trains(caller: Caller) -> None:
    if caller.owner != caller.settings.owner:
        raise NotFoundError("training schedules belong to the owner of this deployment", code="schedule_not_found")


def _page(
    caller: Caller, wrong: FpgaError | None = None, given: Mapping[str, str] | None = None, said: str | None = None
) -> Response:
    trains = caller.owner == caller.settings.owner
    found: dict[str, Any] = {"schedules": service.listing(caller.ledger, caller.owner), "trainings": []}
    if trains:
        found["trainings"] = service.listing(caller.ledger, caller.owner, TRAINING)
    return shown(
        "schedules.html",
        "Schedules",
        wrong.http_status if wrong else 200,
        **found,
        given={**BLANK, **(given or {})} if given else None,
        blank=BLANK,
        said=said,
        trains=trains,
        datasets=list(
            dict.fromkeys((v["name"], v["preset"]) for v in dataset_views.list_versions(caller.ledger, caller.owner))
        ),
        options=_options(),
        wrong=wrong,
    )
