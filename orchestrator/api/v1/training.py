"""Training over HTTP: runs from their data to the gate, what was measured of versions, and data sets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field, JsonValue, StringConstraints
from starlette.responses import Response

from orchestrator.api.context import Promoter, Reader
from orchestrator.api.paging import TAGGED, Answer, IdempotencyKey, Limit, once, tagged
from orchestrator.api.requests import Strict
from orchestrator.contracts.base import Line
from orchestrator.datasets import dataset_views, datasets
from orchestrator.errors import UsageError
from orchestrator.ledger.views import listings
from orchestrator.models import evaluations, training
from orchestrator.photos import uploads
from orchestrator.results import results

runs = APIRouter(prefix="/v1/training-runs", tags=["training"])
measured = APIRouter(prefix="/v1/evaluations", tags=["training"])
sets = APIRouter(prefix="/v1/datasets", tags=["data sets"])
Source = Annotated[str, StringConstraints(pattern=r"^(s3://[^\s\x00-\x1f]+|render:\d+:\d+)$", max_length=1024)]


class Run(Strict):
    """A recipe, as `fpga train run` takes it; a key with the same body again answers with the run that was begun."""

    recipe: dict[str, JsonValue]
    paused: bool = False


class Measurement(Strict):
    """What to measure of a version."""

    model: Line
    suites: Annotated[tuple[Line, ...], Field(min_length=1, max_length=10)] = ("identity",)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    count: Annotated[int, Field(ge=1, le=10_000)] = 48
    dataset: Line | None = None


class Build(Strict):
    """What a data set is made from: an upload (zip or tar), a bucket's prefix, or the renderer: `render:SEED:COUNT`."""

    name: Line
    upload: Line | None = None
    source: Source | None = None
    preset: Line = "mini"
    licence: Line = "unspecified"
    people: Literal["metadata", "folder", "faces"] = "metadata"
    attestation: Line | None = None
    chunk_pictures: Annotated[int, Field(ge=1, le=100_000)] = 256
    arrange: dict[str, JsonValue] = {}  # noqa: RUF012 pydantic copies it


@runs.get("", operation_id="list_training_runs")
def list_runs(caller: Reader, limit: Limit = 50) -> dict[str, Any]:
    """List training runs, newest first."""
    return {"object": "list", "data": training.list_runs(caller.ledger, caller.owner, limit=limit), "next": None}


@runs.post("", status_code=202, operation_id="begin_training_run")
def begin(request: Request, caller: Promoter, body: Run, key: IdempotencyKey = None) -> Response:
    """Begin a run: train, measure, gate, promote."""

    def make() -> Answer:
        recipe = training.read_recipe(body.recipe)
        begun = training.submit(caller.ledger, caller.settings, recipe, owner=caller.owner, paused=body.paused)
        shown = training.show(caller.ledger, caller.owner, begun.run_id)
        return Answer(body=shown, status=202, location=f"/v1/training-runs/{begun.run_id}")

    return once(caller, request, key, body.model_dump_json().encode(), make)


@runs.get("/{run_id}", operation_id="get_training_run", responses=TAGGED)
def show_run(request: Request, caller: Reader, run_id: str) -> Response:
    """Show a run: its recipe, where it stands, attempts, checkpoints, and the gate's decision."""
    return tagged(request, training.show(caller.ledger, caller.owner, run_id))


@runs.get("/{run_id}/records", operation_id="list_training_records")
def records(
    caller: Reader,
    run_id: str,
    after: Annotated[int, Query(ge=-1, lt=2**31, description="Only records of later steps.")] = -1,
) -> dict[str, Any]:
    """Return what the run has said since a step: losses, rates, memory, time left, validations."""
    found = training.watch(caller.ledger, caller.store, caller.owner, run_id, after=after)
    # links of a local store are paths of this server; the pictures are on the run's page
    return {name: value for name, value in found.items() if name != "samples"}


@runs.post("/{run_id}/{move}", status_code=202, operation_id="move_training_run")
def move(caller: Promoter, run_id: str, move: Literal["pause", "resume", "cancel"]) -> dict[str, Any]:
    """Pause a run at its next checkpoint, go on with it, or end it; its last checkpoint stays."""
    change = {"pause": training.pause, "resume": training.resume, "cancel": training.cancel}[move]
    return change(caller.ledger, caller.owner, run_id)


@measured.get("", operation_id="list_evaluations")
def list_evaluations(caller: Reader, model: Line | None = None, limit: Limit = 100) -> dict[str, Any]:
    """List what was measured, of one version or of all, newest first."""
    found = evaluations.list_evaluations(caller.ledger, model, limit=limit, owner=caller.owner)
    return {"object": "list", "data": found, "next": None}


@measured.post("", status_code=202, operation_id="begin_evaluation")
def measure(request: Request, caller: Promoter, body: Measurement, key: IdempotencyKey = None) -> Response:
    """Measure a version; the answer is the batch that does it."""

    def make() -> Answer:
        batch_id = evaluations.submit(caller.ledger, owner=caller.owner, **body.model_dump())
        with caller.ledger.read() as session:
            shown = results.batch_object(session, listings.batch(session, caller.owner, batch_id))
        return Answer(body=shown, status=202, location=f"/v1/batches/{batch_id}")

    return once(caller, request, key, body.model_dump_json().encode(), make)


@sets.get("", operation_id="list_datasets")
def list_sets(caller: Reader, name: Line | None = None) -> dict[str, Any]:
    """List versions of data sets, newest first within a name."""
    return {"object": "list", "data": dataset_views.list_versions(caller.ledger, caller.owner, name), "next": None}


@sets.get("/diff", operation_id="diff_datasets")
def diff(caller: Reader, one: Line, other: Line) -> dict[str, Any]:
    """Say in what two versions differ: pictures, people, settings."""
    return dataset_views.diff(caller.ledger, caller.store, caller.owner, one, other)


@sets.get("/{version}", operation_id="get_dataset", responses=TAGGED)
def show_set(request: Request, caller: Reader, version: str) -> Response:
    """Show a version by id, `name` (the newest) or `name@number`."""
    return tagged(request, dataset_views.show(caller.ledger, caller.owner, version))


@sets.post("", status_code=202, operation_id="build_dataset")
def build(request: Request, caller: Promoter, body: Build, key: IdempotencyKey = None) -> Response:
    """Build a version; the answer is the batch that does it. What earlier builds made of its pictures is used again."""
    if bool(body.upload) == bool(body.source):
        raise UsageError("a data set is made from an upload or a source", code="bad_source")

    def make() -> Answer:
        source = body.source or ""
        if body.upload:
            source, _ = uploads.as_source(caller.ledger, caller.owner, body.upload)
        facts = body.model_dump(exclude={"upload", "source"})
        wanted = datasets.BuildRequest(source=source, captioner=caller.settings.captioner, **facts)
        begun = datasets.build(caller.ledger, caller.store, caller.settings, wanted, owner=caller.owner)
        with caller.ledger.read() as session:
            shown = results.batch_object(session, listings.batch(session, caller.owner, begun.batch_id))
        return Answer(body=shown, status=202, location=f"/v1/batches/{begun.batch_id}")

    return once(caller, request, key, body.model_dump_json().encode(), make)
