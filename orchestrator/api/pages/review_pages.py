"""Reviewing a batch: one picture after the other at full size, or many chosen in the gallery at once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response, StreamingResponse

from orchestrator.api.context import Caller, Reader, Writer
from orchestrator.api.pages.batch_pages import Code, Cursor, Show, Sort, address, tiles_of
from orchestrator.api.pages.rendering import shown
from orchestrator.contracts.base import Line
from orchestrator.errors import UsageError
from orchestrator.ledger.queue import reviews
from orchestrator.ledger.views import gallery, listings
from orchestrator.portraits import variations
from orchestrator.results import bundle

router = APIRouter(include_in_schema=False)
LISTED = 500
"""So many items are told at once to the page that shows them one by one."""
MOST_CHOSEN = 10_000
Chosen = Annotated[list[Line], Form(max_length=MOST_CHOSEN)]
Act = Literal["approve", "reject", "undecide", "star", "unstar", "again"]
DECISIONS: dict[str, reviews.Decision] = {"approve": "approved", "reject": "rejected", "undecide": "undecided"}


@router.get("/batches/{batch_id}/review")
def review(caller: Reader, batch_id: str, show: Show = "", code: Code = "", sort: Sort = "position") -> Response:
    """Show the pictures of a batch one by one, with keys to judge them."""
    with caller.ledger.read() as session:
        batch = listings.batch(session, caller.owner, batch_id)
    asked = {"show": show, "code": code, "sort": sort if sort != "position" else ""}
    return shown(
        "review.html",
        f"Review {batch.name}",
        batch=batch,
        asked=asked,
        back=address(f"/batches/{batch.id}", asked),
        source=address(f"/batches/{batch.id}/tiles", asked),
        may_write="write" in caller.bearer.scopes,
        script="review.js",
    )


@router.get("/batches/{batch_id}/tiles")
def tiles(
    caller: Reader,
    batch_id: str,
    show: Show = "",
    code: Code = "",
    sort: Sort = "position",
    cursor: Cursor = None,
) -> dict[str, object]:
    """Tell which pictures there are, in the order of the gallery."""
    with caller.ledger.read() as session:
        batch = listings.batch(session, caller.owner, batch_id)
        found, following = tiles_of(session, batch.id, show=show, code=code, sort=sort, cursor=cursor, limit=LISTED)
    return {"object": "list", "data": [asdict(one) for one in found], "next": following}


@router.post("/batches/{batch_id}/selected")
def selected(
    caller: Writer,
    batch_id: str,
    act: Annotated[Act, Form()],
    item: Chosen = [],  # noqa: B006  a form's default
    whole: Annotated[bool, Form()] = False,
    show: Annotated[Show, Form()] = "",
    code: Annotated[str, Form(max_length=80)] = "",
) -> Response:
    """Judge chosen items, or all that the gallery was cut down to, or draw them again."""
    batch, chosen = _chosen(caller, batch_id, item, whole=whole, show=show, code=code)
    if act == "again":
        made = variations.draw_again(caller.ledger, caller.owner, batch, chosen)
        return RedirectResponse(address(f"/batches/{made.batch_id}", {"said": "again"}), 303)
    reviews.put(
        caller.ledger,
        caller.owner,
        batch,
        chosen,
        by=caller.bearer.key_id,
        decision=DECISIONS.get(act),
        starred={"star": True, "unstar": False}.get(act),
    )
    return RedirectResponse(address(f"/batches/{batch}", {"show": show, "code": code, "said": "reviewed"}), 303)


@router.post("/batches/{batch_id}/download")
def download(
    caller: Reader,
    batch_id: str,
    item: Chosen = [],  # noqa: B006  a form's default
    whole: Annotated[bool, Form()] = False,
    show: Annotated[Show, Form()] = "",
    code: Annotated[str, Form(max_length=80)] = "",
) -> Response:
    """Stream a zip of chosen pictures."""
    batch, chosen = _chosen(caller, batch_id, item, whole=whole, show=show, code=code)
    found = bundle.entries(caller.ledger, caller.owner, batch, set(chosen))
    pieces = bundle.written(caller.ledger, caller.store, caller.owner, batch, found)
    headers = {"Content-Disposition": f'attachment; filename="{batch}-selected.zip"', "Cache-Control": "no-store"}
    return StreamingResponse((piece for piece in pieces if piece), media_type="application/zip", headers=headers)


@router.post("/items/{item_id}/review")
def review_item(
    caller: Writer,
    item_id: str,
    act: Annotated[Act | Literal["note"], Form()],
    note: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Judge one item, or leave a note at it."""
    with caller.ledger.read() as session:
        found = listings.item(session, caller.owner, item_id)
    if act == "again":
        made = variations.draw_again(caller.ledger, caller.owner, found.batch_id, [found.id])
        return RedirectResponse(address(f"/batches/{made.batch_id}", {"said": "again"}), 303)
    reviews.put(
        caller.ledger,
        caller.owner,
        found.batch_id,
        [found.id],
        by=caller.bearer.key_id,
        decision=DECISIONS.get(act),
        starred={"star": True, "unstar": False}.get(act),
        note=note.strip() if act == "note" else None,
    )
    return RedirectResponse(f"/items/{found.id}#review", 303)


def _chosen(
    caller: Caller, batch_id: str, items: list[str], *, whole: bool, show: str, code: str
) -> tuple[str, list[str]]:
    """Return the batch's id and the chosen items, which are all of the filter where the whole of it was meant."""
    with caller.ledger.read() as session:
        batch = listings.batch(session, caller.owner, batch_id).id
        if not whole:
            chosen = items
        else:
            found = gallery.tiles(session, batch, show=show or None, code=code or None, limit=MOST_CHOSEN)
            chosen = [tile.id for tile in found if tile.output_id]
    if not chosen:
        raise UsageError("choose pictures first: tick them, or all of the filter", code="nothing_chosen")
    return batch, chosen
