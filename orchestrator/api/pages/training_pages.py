"""Pages of training runs: begin one, watch its curves and pictures, stop it and let it go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Caller, Promoter, Reader, Viewer
from orchestrator.api.pages import training_view
from orchestrator.api.pages.pages import shown
from orchestrator.contracts.base import Line
from orchestrator.datasets import dataset_views
from orchestrator.errors import FpgaError
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.models import registry, training

router = APIRouter(prefix="/training", include_in_schema=False)
SHOWN = 50
MOVES = {"pause": training.pause, "resume": training.resume, "cancel": training.cancel}


@router.get("")
def runs(caller: Reader) -> Response:
    """Show the newest runs, and the form that begins one."""
    return _runs(caller)


@router.post("")
def begin(
    caller: Promoter,
    dataset: Annotated[Line, Form()],
    steps: Annotated[int, Form(ge=1)],
    preset: Annotated[Line, Form()],
    start: Annotated[Line, Form()] = "champion",
    name: Annotated[str, Form(max_length=200)] = "",
    seed: Annotated[int, Form(ge=0)] = 0,
    batch_size: Annotated[int, Form(ge=1, le=4096)] = 48,
    every: Annotated[int, Form(ge=1)] = 200,
    promote: Annotated[bool, Form()] = False,
) -> Response:
    """Queue a run."""
    recipe = {"dataset": dataset, "steps": steps, "preset": preset, "start": start, "name": name.strip(), "seed": seed}
    recipe |= {"batch_size": batch_size, "save_every": every, "validate_every": every, "promote": promote}
    try:
        made = training.submit(caller.ledger, caller.settings, training.read_recipe(recipe), owner=caller.owner)
    except FpgaError as error:
        return _runs(caller, error)
    return RedirectResponse(f"/training/{made.run_id}", 303)


@router.get("/{run_id}")
def run(
    caller: Reader,
    run_id: str,
    beside: Annotated[list[Line], Query(max_length=7)] = [],  # noqa: B006 fastapi copies it
    smooth: Annotated[float, Query(ge=0.0, le=0.99)] = 0.0,
    log: bool = False,
) -> Response:
    """Show one run, and the curves of others in the same axes."""
    return _run(caller, run_id, beside=beside, smooth=smooth, log=log)


@router.get("/{run_id}/samples/{step}")
def sample(caller: Viewer, run_id: str, step: int) -> Response:
    """Return the validation picture of a step."""
    data = training_view.sample(caller.ledger, caller.store, caller.owner, run_id, step)
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, no-store"})


@router.post("/{run_id}/{move}")
def change(caller: Promoter, run_id: str, move: Literal["pause", "resume", "cancel"]) -> Response:
    """Pause a run, let it go on, or cancel it."""
    try:
        MOVES[move](caller.ledger, caller.owner, run_id)
    except FpgaError as error:
        return _run(caller, run_id, error)
    return RedirectResponse(f"/training/{run_id}", 303)


def _runs(caller: Caller, wrong: FpgaError | None = None) -> Response:
    versions = registry.list_versions(caller.ledger, caller.owner)
    return shown(
        "training.html",
        "Training",
        wrong.http_status if wrong else 200,
        runs=training.list_runs(caller.ledger, caller.owner, limit=SHOWN),
        datasets=[one for one in dataset_views.list_versions(caller.ledger, caller.owner) if not one["tainted_at"]],
        versions=[one for one in versions if not one["tainted_at"]],
        presets=list(dict.fromkeys(one["preset"] for one in versions)) or [caller.settings.preset],
        wrong=wrong,
    )


def _run(
    caller: Caller,
    run_id: str,
    wrong: FpgaError | None = None,
    *,
    beside: Sequence[str] = (),
    smooth: float = 0.0,
    log: bool = False,
) -> Response:
    others = [one for one in dict.fromkeys(beside) if one != run_id]
    found = training_view.run(caller.ledger, caller.owner, run_id, beside=others, smooth=smooth, log=log)
    listed = training.list_runs(caller.ledger, caller.owner, limit=SHOWN)
    moves = found["state"] not in BATCH_ENDED or (found["state"] == "completed" and found["gate"] is None)
    return shown(
        "run.html",
        found["name"],
        wrong.http_status if wrong else 200,
        run=found,
        others=[one for one in listed if one["id"] != found["id"]],
        beside=others,
        smooth=smooth,
        log=log,
        script="charts.js",
        ended=found["state"] in BATCH_ENDED,
        live=f"/v1/training-runs/{found['id']}/events" if moves else None,
        wrong=wrong,
    )
