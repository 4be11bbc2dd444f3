"""Pages of items: the picture, who is who in it, and making it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from orchestrator.api.context import Caller, Reader, Writer
from orchestrator.api.pages import item_view
from orchestrator.api.pages.batch_pages import Code, Reason, Show, address
from orchestrator.api.pages.rendering import shown
from orchestrator.contracts.photos import MOST_CANDIDATES, RedoOptions
from orchestrator.contracts.portraits import PortraitOptions
from orchestrator.errors import ConflictError, FpgaError, NotFoundError
from orchestrator.ledger.queue import quarantine
from orchestrator.ledger.views import listings
from orchestrator.photos import restore
from orchestrator.results import provenance
from orchestrator.results.provenance import Reproduction

router = APIRouter(include_in_schema=False)
Share = Annotated[float, Form(ge=0, le=1)]


@router.get("/items/{item_id}")
def item(caller: Reader, item_id: str, show: Show = "", code: Code = "") -> Response:
    """Show an item, between those that the gallery had beside it."""
    return _item(caller, item_id, asked={"show": show, "code": code})


@router.post("/items/{item_id}/reproduce")
def reproduce(caller: Writer, item_id: str) -> Response:
    """Make a portrait again from its record; its page then says how the two compare."""
    try:
        made = provenance.reproduce(caller.ledger, caller.owner, item_id)
    except FpgaError as error:
        return _item(caller, item_id, error)
    return _first_item(caller, made)


@router.post("/items/{item_id}/redo")
def redo(
    caller: Writer,
    item_id: str,
    fidelity: Share,
    candidates: Annotated[int, Form(ge=1, le=MOST_CANDIDATES)] = 1,
    min_face: Annotated[int, Form(ge=0, le=10_000)] = 0,
    seed: Annotated[int | None, Form(ge=0, le=2**32 - 1)] = None,
) -> Response:
    """Restore a photo again with other settings, as a batch of its own."""
    try:
        made = restore.redo(
            caller.ledger,
            caller.settings,
            caller.owner,
            item_id,
            RedoOptions.asked(fidelity=fidelity, candidates=candidates, min_face=min_face, seed=seed),
        )
    except FpgaError as error:
        return _item(caller, item_id, error)
    return _first_item(caller, made)


@router.post("/items/{item_id}/release")
def release(caller: Writer, item_id: str, reason: Reason) -> Response:
    """Try a held item again."""
    return _decided(caller, item_id, quarantine.release, reason)


@router.post("/items/{item_id}/reject")
def reject(caller: Writer, item_id: str, reason: Reason) -> Response:
    """Give a held item up."""
    return _decided(caller, item_id, quarantine.reject, reason)


def _decided(caller: Caller, item_id: str, decide: Callable[..., object], reason: str) -> Response:
    with caller.ledger.read() as session:
        batch_id = listings.item(session, caller.owner, item_id).batch_id
    try:
        decide(caller.ledger, caller.owner, batch_id, item_id=item_id, reason=reason)
    except FpgaError as error:
        return _item(caller, item_id, error)
    return RedirectResponse(f"/items/{item_id}", 303)


def _item(
    caller: Caller, item_id: str, wrong: FpgaError | None = None, *, asked: dict[str, str] | None = None
) -> Response:
    asked = asked or {"show": "", "code": ""}
    found = item_view.item(
        caller.ledger,
        caller.owner,
        item_id,
        names="people" in caller.bearer.scopes,
        show=asked["show"] or None,
        code=asked["code"] or None,
    )
    record = found["picture"] and json.dumps(found["picture"]["record"], indent=2, ensure_ascii=False)
    return shown(
        "item.html",
        found["custom_id"],
        wrong.http_status if wrong else 200,
        wrong=wrong,
        item=found,
        asked=asked,
        address=address,
        request=json.dumps(found["params"], indent=2, ensure_ascii=False),
        record=record,
        compared=_compared(caller, found["batch"]),
        most_candidates=MOST_CANDIDATES,
        may_write="write" in caller.bearer.scopes,
        live=None if found["ended"] else f"/v1/items/{item_id}/events",
        script="compare.js" if found["previews"] else None,
    )


def _compared(caller: Caller, batch: dict[str, Any]) -> Reproduction | None:
    """Return how a portrait that was made again compares with the first, once it is there."""
    if PortraitOptions.load(batch["options"]).reproduces is None:
        return None
    try:
        return provenance.judge(caller.ledger, caller.store, caller.owner, batch["id"])
    except (ConflictError, NotFoundError):
        return None


def _first_item(caller: Caller, batch_id: str) -> Response:
    with caller.ledger.read() as session:
        (only,) = listings.items(session, batch_id, limit=1)
    return RedirectResponse(f"/items/{only.id}", 303)
