"""Pages that begin work: portraits from faces and a layout or from a manifest, and photos to restore."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from orchestrator import identities, submit
from orchestrator.api.context import Librarian
from orchestrator.api.routes.pages import shown
from orchestrator.models import registry
from orchestrator.planning.plan import SCOPE
from orchestrator.planning.presets import load_preset, preset_names

router = APIRouter(include_in_schema=False)


@router.get("/new")
def new(caller: Librarian, preset: Annotated[str | None, Query(max_length=64)] = None) -> Response:
    """Show the people, the layouts and the rows of a new batch."""
    facts = load_preset(caller.settings.models_dir, preset or caller.settings.preset)
    versions = [one for one in registry.list_versions(caller.ledger) if one["preset"] == facts.name]
    return shown(
        "new.html",
        "New batch",
        people=identities.list_people(caller.ledger, caller.owner),
        scope=SCOPE,
        preset=facts,
        presets=preset_names(caller.settings.models_dir),
        versions=[one for one in versions if not one["tainted_at"]],
        most_redraws=submit.MAX_REDRAWS,
        script="new.js",
    )
