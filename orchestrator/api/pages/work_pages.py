"""Pages that begin work: portraits from faces and a layout or from a manifest, and photos to restore."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Caller, Librarian
from orchestrator.api.pages.pages import shown
from orchestrator.contracts.photos import MOST_CANDIDATES, PhotoOptions
from orchestrator.contracts.portraits import MAX_REDRAWS, PortraitParams
from orchestrator.errors import ConflictError
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.views import listings
from orchestrator.models import registry
from orchestrator.people import identities
from orchestrator.planning.plan import SCOPE
from orchestrator.planning.presets import load_preset, preset_names

router = APIRouter(include_in_schema=False)


@router.get("/new")
def new(
    caller: Librarian,
    preset: Annotated[str | None, Query(max_length=64)] = None,
    from_item: Annotated[str | None, Query(alias="from", max_length=64)] = None,
) -> Response:
    """Show the people, the layouts and the rows of a new batch; with an item, a row like it and another seed."""
    like = _row_like(caller, from_item) if from_item else None
    wanted = preset or (like["preset"] if like else caller.settings.preset)
    facts = load_preset(caller.settings.models_dir, wanted)
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
        like=json.dumps(like) if like else "",
        script="new.js",
    )


def _row_like(caller: Caller, item_id: str) -> dict[str, Any]:
    """Return the fields of a row that asks for the same as an item, with another seed."""
    with caller.ledger.read() as session:
        found = listings.item(session, caller.owner, item_id)
        if session.get_one(Batch, found.batch_id).kind != "generate":
            raise ConflictError("only portraits can be changed and drawn again so", code="not_portraits")
        custom_id, params = found.custom_id, PortraitParams.load(found.params)
    handles = {one["id"]: one["handle"] for one in identities.list_people(caller.ledger, caller.owner)}
    return {
        "preset": params.preset,
        "custom_id": f"{custom_id[:110]}-again",
        "layout": params.layout or "",
        "prompt": params.prompt,
        "style": params.style or "",
        "size": f"{params.width}x{params.height}",
        "seed": str(secrets.randbits(32)),
        "people": [handles.get(person.identity, "") for person in params.people],
    }


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
