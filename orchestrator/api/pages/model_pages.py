"""Pages of model versions: all of them, one with its lineage, two side by side; measure, promote, roll back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Caller, Promoter, Reader
from orchestrator.api.pages import training_view
from orchestrator.api.pages.pages import shown
from orchestrator.api.v1.models import acting, check_override
from orchestrator.contracts.base import Line
from orchestrator.errors import FpgaError, UsageError
from orchestrator.ledger import models as rows
from orchestrator.models import evaluations, registry

router = APIRouter(prefix="/models", include_in_schema=False)
SUITES = tuple(suite for suite in evaluations.SUITES if suite != "held_out")
"""Those that need no data set."""
Reason = Annotated[str, Form(min_length=1, max_length=1000)]
Alias = Annotated[Line, Form()]


@router.get("")
def models(caller: Reader) -> Response:
    """Show all versions."""
    return _all(caller)


@router.get("/compare")
def compare(
    caller: Reader,
    model: Annotated[list[Line], Query(max_length=4)] = [],  # noqa: B006 fastapi copies it
    suite: Line = "identity",
) -> Response:
    """Show versions side by side."""
    wanted = list(dict.fromkeys(model))
    if not wanted:
        return _all(caller, UsageError("tick two versions or more, then compare them", code="nothing_chosen"))
    if len(wanted) < 2:
        return RedirectResponse(f"/models/{wanted[0]}", 303)
    found = training_view.compared(caller.ledger, caller.owner, wanted, suite)
    return shown("compare.html", "Versions side by side", **found, suites=evaluations.SUITES)


@router.get("/{model_id}")
def model(caller: Reader, model_id: str) -> Response:
    """Show one version."""
    return _one(caller, model_id)


@router.post("/rollback")
def rollback(
    caller: Promoter, preset: Annotated[Line, Form()], reason: Reason, alias: Alias = rows.CHAMPION
) -> Response:
    """Make an alias mean again what it meant before."""
    try:
        back = registry.rollback(caller.ledger, acting(caller), preset, alias=alias, reason=reason)
    except FpgaError as error:
        return _all(caller, error)
    return RedirectResponse(f"/models/{back['id']}", 303)


@router.post("/{model_id}/promote")
def promote(
    caller: Promoter,
    model_id: str,
    reason: Reason,
    alias: Alias = rows.CHAMPION,
    override: Annotated[bool, Form()] = False,
) -> Response:
    """Make an alias mean this version."""
    try:
        check_override(caller, override)
        registry.promote(
            caller.ledger,
            acting(caller),
            model_id,
            alias=alias,
            reason=reason,
            override=override,
            viewer=caller.owner,
        )
    except FpgaError as error:
        return _one(caller, model_id, error)
    return RedirectResponse(f"/models/{model_id}", 303)


@router.post("/{model_id}/measure")
def measure(
    caller: Promoter,
    model_id: str,
    suite: Annotated[Line, Form()] = "identity",
    count: Annotated[int, Form(ge=1, le=1000)] = 48,
) -> Response:
    """Queue a measurement of this version."""
    try:
        batch_id = evaluations.submit(caller.ledger, owner=caller.owner, model=model_id, suites=[suite], count=count)
    except FpgaError as error:
        return _one(caller, model_id, error)
    return RedirectResponse(f"/batches/{batch_id}", 303)


def _all(caller: Caller, wrong: FpgaError | None = None) -> Response:
    found = training_view.all_versions(caller.ledger, caller.owner)
    moves = [move for preset in dict.fromkeys(v["preset"] for v in found) for move in _moves(caller, preset)]
    return shown(
        "models.html",
        "Models",
        wrong.http_status if wrong else 200,
        versions=found,
        moves=moves[-20:][::-1],
        names={v["id"]: f"{v['preset']} {v['number']}" for v in found},
        aliases=[(v["preset"], alias) for v in found for alias in v["aliases"]],
        wrong=wrong,
    )


def _moves(caller: Caller, preset: str) -> list[dict[str, Any]]:
    with caller.ledger.read() as session:
        return [{"preset": preset, **registry.move_object(move)} for move in rows.history(session, preset)]


def _one(caller: Caller, model_id: str, wrong: FpgaError | None = None) -> Response:
    found = training_view.version(caller.ledger, caller.owner, model_id)
    versions = registry.list_versions(caller.ledger, caller.owner)
    names = {one["id"]: f"{one['preset']} {one['number']}" for one in versions}
    return shown(
        "model.html",
        names[found["id"]],
        wrong.http_status if wrong else 200,
        version=found,
        names=names,
        others=[one for one in versions if one["preset"] == found["preset"] and one["id"] != found["id"]],
        suites=SUITES,
        wrong=wrong,
    )
