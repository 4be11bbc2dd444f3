"""Pages of batches: the list, one batch with its gallery, and what can be done to it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.api.context import Caller, Reader, Writer
from orchestrator.api.pages.rendering import shown
from orchestrator.api.paging import page, place
from orchestrator.api.v1.batches import lines, moment_of
from orchestrator.archive.passed import Passed, passed_of
from orchestrator.contracts.base import Line
from orchestrator.errors import StoreUnavailableError, TransientError
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED, BATCH_STATES, BatchState
from orchestrator.ledger.queue import batches, quarantine
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.views import gallery, listings
from orchestrator.pipelines import PIPELINES
from orchestrator.results import export
from orchestrator.status.progress import outlook, remaining

router = APIRouter(include_in_schema=False)
LISTED, TILES = 40, 60
KINDS = tuple(PIPELINES)
Cursor = Annotated[str | None, Query(max_length=500)]
Show = Literal[
    "",
    "accepted",
    "needs_review",
    "rejected",
    "unchanged",
    "approved",
    "turned_down",
    "starred",
    "doubtful",
    "failed",
    "held",
    "open",
    "cancelled",
]
SHOWS = tuple(word for word in get_args(Show) if word not in ("", "doubtful"))
Sort = Literal["position", "similarity", "-similarity"]
Code = Annotated[str, Query(max_length=80)]
Reason = Annotated[Line, Form()]
SHEET_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "private, no-store",
}
"""A contact sheet holds its styles and pictures, so that it opens from disk; it still runs and loads nothing."""
ACTIONS: dict[str, Callable[[Ledger, str, str], object]] = {
    "cancel": batches.cancel,
    "pause": batches.pause,
    "resume": batches.resume,
    "close": batches.close,
}
SAID = {
    "cancel": "It is being cancelled: what a worker holds stops within one step.",
    "pause": "It is paused: nothing new of it is begun.",
    "resume": "It goes on.",
    "close": "No more items will come.",
    "order": "Its place is changed; what a worker holds goes on.",
    "retry": "This batch tries again what failed in the one before it.",
    "redo": "This batch makes one item again.",
    "again": "What was chosen is drawn again with other seeds.",
    "reviewed": "Your review is kept.",
    "release": "What was held is tried again, each by itself.",
    "reject": "What was held is given up.",
}
"""What a page says after something was done; addresses hold the word, never the sentence."""


@router.get("/batches")
def list_(
    caller: Reader,
    state: Literal["", *BATCH_STATES] = "",  # type: ignore[valid-type]  # a tuple of words is meant
    kind: Annotated[str, Query(max_length=40)] = "",
    text: Annotated[str, Query(max_length=200)] = "",
    cursor: Cursor = None,
) -> Response:
    """Show batches, newest first."""
    with caller.ledger.read() as session:
        found = listings.batches(
            session,
            caller.owner,
            states=[state] if state else (),
            kinds=[kind] if kind else (),
            text=text.strip() or None,
            before=moment_of(cursor),
            limit=LISTED + 1,
        )
        listed = lines(session, found[:LISTED])
    last = found[LISTED - 1] if len(found) > LISTED else None
    asked = {"state": state, "kind": kind, "text": text}
    following = page([], [last.created_at.isoformat(), last.id])["next"] if last else None
    return shown(
        "batches.html",
        "Batches",
        batches=listed,
        asked=asked,
        states=BATCH_STATES,
        kinds=KINDS,
        first=address("", asked) if cursor else None,
        next=address("", asked, cursor=following) if following else None,
    )


@router.get("/batches/{batch_id}")
def show(
    caller: Reader,
    batch_id: str,
    sort: Sort = "position",
    show: Show = "",
    code: Code = "",
    said: Annotated[str, Query(max_length=20)] = "",
    cursor: Cursor = None,
) -> Response:
    """Show a batch: where it stands, why items failed, and its pictures."""
    with caller.ledger.read() as session:
        batch = listings.batch(session, caller.owner, batch_id)
        tally = gallery.tally(session, batch.id)
        children = listings.children(session, batch.id)
        ended = batch.state in BATCH_ENDED
        left = None if ended else remaining(session, batch, outlook(session, now(session)))
        tiles, following = tiles_of(session, batch.id, show=show, code=code, sort=sort, cursor=cursor, limit=TILES)
    asked = {"show": show, "code": code, "sort": sort if sort != "position" else ""}
    return shown(
        "batch.html",
        batch.name,
        batch=batch,
        tally=tally,
        rejected=len(batch.rejected_rows),
        shows=[(name, tally.of(name)) for name in SHOWS],
        remaining=left,
        tiles=tiles,
        asked=asked,
        sorts={"": "in order", "similarity": "least alike first", "-similarity": "most alike first"},
        address=address,
        can=_possible(batch, tally),
        children=children,
        others=_others(caller, batch),
        review_first={"show": "doubtful"} if tally.of("doubtful") else asked,
        first=address("", asked) if cursor else None,
        next=address("", asked, cursor=following) if following else None,
        said=SAID.get(said),
        may_write="write" in caller.bearer.scopes,
        live=None if ended else f"/v1/batches/{batch.id}/events?since=now",
        script="select.js",
    )


def _others(caller: Caller, batch: Batch) -> list[Passed]:
    """Return what the source holds beside photos; nothing while the byte store does not answer."""
    try:
        return list(passed_of(caller.store, batch.options))
    except (StoreUnavailableError, TransientError):
        return []


def tiles_of(
    session: Session, batch_id: str, *, show: Show, code: str, sort: Sort, cursor: str | None, limit: int
) -> tuple[list[gallery.Tile], str | None]:
    """Return one page of a gallery, and the cursor of the next one if there is more.

    Raises:
        UsageError: the cursor is none of ours.
    """
    after = place(cursor, float, int)
    found = gallery.tiles(
        session,
        batch_id,
        show=show or None,
        code=code or None,
        order=sort,
        after=(after[0], after[1] or 0) if after else None,
        limit=limit + 1,
    )
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], page([], [last.similarity, last.position])["next"] if last else None


@router.get("/batches/{batch_id}/sheet")
def sheet(caller: Reader, batch_id: str) -> Response:
    """Return everything that is finished as one page that holds its pictures, to keep or to print."""
    whole = _whole(caller, batch_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.html"
        export.write_contact_sheet(
            caller.ledger,
            caller.store,
            caller.context.vault,
            caller.owner,
            whole,
            path,
            library="people" in caller.bearer.scopes,
        )
        html = path.read_bytes()
    return HTMLResponse(html, headers=SHEET_HEADERS)


@router.post("/batches/{batch_id}/retry")
def retry(caller: Writer, batch_id: str, code: Annotated[str, Form(max_length=80)] = "") -> Response:
    """Try again what failed, all of it or that with one code, as a batch of its own."""
    made = batches.retry(caller.ledger, caller.owner, _whole(caller, batch_id), codes=[code] if code else [])
    return RedirectResponse(address(f"/batches/{made.batch_id}", {"said": "retry"}), 303)


@router.post("/batches/{batch_id}/release")
def release(caller: Writer, batch_id: str, reason: Reason) -> Response:
    """Try again what is held."""
    quarantine.release(caller.ledger, caller.owner, _whole(caller, batch_id), reason=reason)
    return RedirectResponse(address(f"/batches/{batch_id}", {"said": "release"}), 303)


@router.post("/batches/{batch_id}/reject")
def reject(caller: Writer, batch_id: str, reason: Reason) -> Response:
    """Give up what is held."""
    quarantine.reject(caller.ledger, caller.owner, _whole(caller, batch_id), reason=reason)
    return RedirectResponse(address(f"/batches/{batch_id}", {"said": "reject"}), 303)


@router.post("/batches/{batch_id}/order")
def order(
    caller: Writer,
    batch_id: str,
    move: Annotated[Literal["up", "down", "top"] | None, Form()] = None,
    lane: Annotated[Literal["interactive", "bulk", "training"] | None, Form()] = None,
) -> Response:
    """Let a batch go before or behind others: a step of priority, the most of it, or another lane."""
    with caller.ledger.read() as session:
        batch = listings.batch(session, caller.owner, batch_id)
        most = batches.MOST_PRIORITY
        moved = {"up": batch.priority + 1, "down": batch.priority - 1, "top": most, None: batch.priority}[move]
    batches.reorder(caller.ledger, caller.owner, batch.id, lane=lane, priority=max(-most, min(most, moved)))
    return RedirectResponse(address(f"/batches/{batch_id}", {"said": "order"}), 303)


@router.post("/batches/{batch_id}/{action}")
def act(caller: Writer, batch_id: str, action: Literal["cancel", "pause", "resume", "close"]) -> Response:
    """Stop a batch, let it stand or go on, or say that no more items come."""
    ACTIONS[action](caller.ledger, caller.owner, _whole(caller, batch_id))
    return RedirectResponse(address(f"/batches/{batch_id}", {"said": action}), 303)


def address(path: str, asked: dict[str, str], **more: str) -> str:
    """Return an address with what was asked; what is empty is left out, so that the plain page has the plain one."""
    query = urlencode({name: value for name, value in {**asked, **more}.items() if value})
    return f"{path}?{query}" if query or not path else path


def _possible(batch: Batch, tally: gallery.Tally) -> set[str]:
    if batch.state in BATCH_ENDED:
        return {"retry"} if tally.bad else set()
    can = (
        {"resume"}
        if batch.state == BatchState.PAUSED
        else {"pause"}
        if batch.state == BatchState.IN_PROGRESS
        else set()
    )
    if batch.state in ("in_progress", "paused", "validating"):
        can |= {"cancel", "order"}
    return can | {"close"} if batch.open else can


def _whole(caller: Caller, batch_id: str) -> str:
    with caller.ledger.read() as session:
        return listings.batch(session, caller.owner, batch_id).id
