"""Live streams (server-sent events) of a batch, an item, a training run, the queue.

`Last-Event-ID` goes on where a reader of a batch or the queue stopped; the others begin with what is now.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from orchestrator.api.context import Caller, Reader
from orchestrator.api.events import Feeds, changes
from orchestrator.errors import UsageError
from orchestrator.ledger.engine.session import now
from orchestrator.ledger.engine.states import BATCH_ENDED, ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.views import listings
from orchestrator.ledger.views.events import LAST, Place
from orchestrator.models import training
from orchestrator.results import results

router = APIRouter(prefix="/v1", tags=["events"])
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=80)]
Since = Annotated[
    Literal["start", "now"], Query(description="`start` tells what ended before too, `now` only what comes.")
]
EVENTS: dict[int | str, dict[str, object]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
OVER: dict[int | str, dict[str, object]] = {
    204: {"description": "`Last-Event-ID` is the last event: do not come back."}
}


@router.get("/batches/{batch_id}/events", operation_id="watch_batch", response_class=Response, responses=EVENTS | OVER)
async def batch(
    request: Request, caller: Reader, batch_id: str, since: Since = "start", last: LastEventId = None
) -> Response:
    """Tell what is drawn and what ends, in order, each once, the counts in between, and at last the batch."""
    found, moment = await run_in_threadpool(_batch, caller, batch_id)
    after = _after(last, since, moment)
    if last and found.state in BATCH_ENDED and after.id == LAST + found.id:
        return Response(status_code=204)  # tells a browser not to ask again
    return _streamed(request, caller, _feeds(request).watch(caller, found.id, after))


@router.get("/events", operation_id="watch_queue", response_class=Response, responses=EVENTS)
async def queue(request: Request, caller: Reader, since: Since = "now", last: LastEventId = None) -> Response:
    """Tell every batch of this owner that ends, and what waits in the queue."""
    _, moment = await run_in_threadpool(_batch, caller, None)
    return _streamed(request, caller, _feeds(request).watch(caller, None, _after(last, since, moment)))


@router.get("/items/{item_id}/events", operation_id="watch_item", response_class=Response, responses=EVENTS)
async def item(request: Request, caller: Reader, item_id: str) -> Response:
    """Tell an item's state whenever it changes, until it has ended."""
    found = await run_in_threadpool(_item, caller, item_id)
    library = "people" in caller.bearer.scopes

    def look() -> tuple[dict[str, object], bool]:
        with caller.ledger.read() as session:
            (detail,) = batches.details(session, [listings.item(session, caller.owner, found)])
            return results.item_object(detail, library=library), detail.item.state in ENDED

    return _streamed(request, caller, changes(caller, "item", look))


@router.get(
    "/training-runs/{run_id}/events", operation_id="watch_training_run", response_class=Response, responses=EVENTS
)
async def training_run(request: Request, caller: Reader, run_id: str) -> Response:
    """Tell a training run whenever it changes, until it has ended; `records` has the figures of its steps."""
    found = await run_in_threadpool(training.show, caller.ledger, caller.owner, run_id)

    def look() -> tuple[dict[str, object], bool]:
        run = training.show(caller.ledger, caller.owner, found["id"])
        return run, run["state"] in BATCH_ENDED

    return _streamed(request, caller, changes(caller, "training_run", look))


def _feeds(request: Request) -> Feeds:
    feeds = request.app.state.feeds
    assert isinstance(feeds, Feeds), feeds
    return feeds


def _batch(caller: Caller, batch_id: str | None) -> tuple[Any, Any]:
    def found(session: Session) -> Batch | None:
        return listings.batch(session, caller.owner, batch_id) if batch_id is not None else None

    with caller.ledger.read() as session:
        return found(session), now(session)


def _item(caller: Caller, item_id: str) -> str:
    with caller.ledger.read() as session:
        return listings.item(session, caller.owner, item_id).id


def _after(last: str | None, since: str, moment: Any) -> Place:
    if last:
        place = Place.of(last)
        if place is None:
            raise UsageError("Last-Event-ID is none that this stream gave", code="event_id_invalid")
        return place
    return Place(moment=moment) if since == "now" else Place()


def _streamed(request: Request, caller: Caller, events: AsyncGenerator[bytes]) -> StreamingResponse:
    """Return the answer that carries a stream of events, counted among all that this owner has open."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    counted = _feeds(request).counted(caller, events)
    return StreamingResponse(counted, media_type="text/event-stream", headers=headers)
