"""Model versions: which there are, what they were made of, and which one draws."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from orchestrator.api.context import Caller, Promoter, Reader
from orchestrator.api.paging import TAGGED, tagged
from orchestrator.api.requests import Strict
from orchestrator.contracts.base import Line
from orchestrator.errors import ForbiddenError
from orchestrator.models import evaluations, lineage, registry
from orchestrator.settings import Settings

router = APIRouter(prefix="/v1/models", tags=["models"])
PRIVATE = ("location", "identities")
"""Where the files lie, and ids of other owners' people, are nobody's business here."""


class Move(Strict):
    """Why an alias moves; `override` goes past a gate that refused."""

    alias: Line = "champion"
    reason: Annotated[str, Field(min_length=1, max_length=1000)] = "over HTTP"
    override: bool = False


class Back(Strict):
    """Why an alias goes back."""

    alias: Line = "champion"
    reason: Annotated[str, Field(min_length=1, max_length=1000)] = "over HTTP"


@router.get("", operation_id="list_models")
def list_(caller: Reader) -> dict[str, Any]:
    """List your versions, the deployment's, and those that an alias has meant, newest first within a preset."""
    return {
        "object": "list",
        "data": [_public(one) for one in registry.list_versions(caller.ledger, caller.owner)],
        "next": None,
    }


@router.get("/compare", operation_id="compare_models")
def compare(
    caller: Reader, model: Annotated[list[Line], Query(min_length=2, max_length=8)], suite: Line = "identity"
) -> dict[str, Any]:
    """Lay the figures of versions beside each other."""
    return evaluations.compare(caller.ledger, model, suite=suite, owner=caller.owner).as_json()


@router.get("/diff", operation_id="diff_models")
def diff(caller: Reader, left: Line, right: Line) -> dict[str, Any]:
    """Say in what two versions differ: facts, configuration by dotted name, files."""
    return lineage.diff(caller.ledger, left, right, caller.owner)


@router.get("/{model_id}/lineage", operation_id="get_model_lineage")
def origin(caller: Reader, model_id: str) -> dict[str, Any]:
    """Say how a version came to be: itself, then its parents, each with data set, code and configuration."""
    found = [_public(one) for one in lineage.lineage(caller.ledger, model_id, caller.owner)]
    return {"object": "list", "data": found, "next": None}


@router.get("/{model_id}", operation_id="get_model", responses=TAGGED)
def show(request: Request, caller: Reader, model_id: str) -> Response:
    """Show a version by id or `preset@alias`: files, figures, the gate's decisions, the history of its aliases."""
    return tagged(request, _public(registry.show_version(caller.ledger, model_id, caller.owner)))


@router.post("/{model_id}/promote", operation_id="promote_model")
def promote(caller: Promoter, model_id: str, body: Move | None = None) -> dict[str, Any]:
    """Make an alias mean this version; open batches that follow the champion go on with it."""
    move = body or Move()
    check_override(caller, move.override)
    found = registry.promote(
        caller.ledger,
        acting(caller),
        model_id,
        alias=move.alias,
        reason=move.reason,
        override=move.override,
        viewer=caller.owner,
    )
    return _public(found)


@router.post("/{preset}/rollback", operation_id="rollback_model")
def rollback(caller: Promoter, preset: str, body: Back | None = None) -> dict[str, Any]:
    """Make a preset's alias mean again what it meant before."""
    back = body or Back()
    return _public(registry.rollback(caller.ledger, acting(caller), preset, alias=back.alias, reason=back.reason))


def check_override(caller: Caller, override: bool) -> None:
    """Check that who would go past a gate that refused may do so.

    Raises:
        ForbiddenError: the key has not the scope `override`.
    """
    if override and "override" not in caller.bearer.scopes:
        raise ForbiddenError("going past the gate needs a key with the scope 'override'")


def acting(caller: Caller) -> Settings:
    """Return settings whose owner is the caller, who then stands in the history."""
    return caller.settings.model_copy(update={"owner": caller.owner})


def _public(version: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in version.items() if name not in PRIVATE}
