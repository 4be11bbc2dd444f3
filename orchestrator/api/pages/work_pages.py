"""Pages that begin work: portraits from faces and a layout or from a manifest, and photos to restore."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Librarian
from orchestrator.api.pages.pages import shown
from orchestrator.contracts.photos import MOST_CANDIDATES, PhotoOptions
from orchestrator.contracts.portraits import MAX_REDRAWS
from orchestrator.ledger.views import listings
from orchestrator.models import registry
from orchestrator.people import identities
from orchestrator.planning.plan import SCOPE
from orchestrator.planning.presets import load_preset, preset_names

router = APIRouter(include_in_schema=False)


@router.get("/new")
def new(caller: Librarian, preset: Annotated[str | None, Query(max_length=64)] = None) -> Response:
    """Show the people, the layouts and the rows of a new batch."""
    facts = load_preset(caller.settings.models_dir, preset or caller.settings.preset)
    versions = [one for one in registry.list_versions(caller.ledger, caller.owner) if one["preset"] == facts.name]
    return shown(
        "new.html",
        "New batch",
        people=identities.list_people(caller.ledger, caller.owner),
        scope=SCOPE,
        preset=facts,
        presets=preset_names(caller.settings.models_dir),
        versions=[one for one in versions if not one["tainted_at"]],
        most_redraws=MAX_REDRAWS,
        script="new.js",
    )


@router.get("/restore")
def restore(caller: Librarian, batch: Annotated[str | None, Query(max_length=64)] = None) -> Response:
    """Show where photos are dropped; with a batch that is still open, go on sending to it."""
    people = identities.list_people(caller.ledger, caller.owner)
    going_on = None
    if batch is not None:
        with caller.ledger.read() as session:
            found = listings.batch(session, caller.owner, batch)
            going_on = found.id if found.open and not PhotoOptions.load(found.options).source else None
        if going_on is None:
            return RedirectResponse(f"/batches/{found.id}", 303)
    return shown(
        "restore.html",
        "Restore photos",
        known=[one for one in people if "restore" in one["scopes"]],
        swappable=[one for one in people if "swap" in one["scopes"]],
        most_candidates=MOST_CANDIDATES,
        batch=going_on,
        script="restore.js",
    )
