"""Batches: submit, look, stop and start, and what they made."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response, StreamingResponse

from orchestrator.api.context import Caller, Reader, Writer
from orchestrator.api.paging import (
    ENDED,
    TAGGED,
    Answer,
    Cursor,
    IdempotencyKey,
    Limit,
    Prefer,
    once,
    page,
    place,
    planning,
    tagged,
    wait_seconds,
    waiting,
)
from orchestrator.api.requests import (
    FORMATS,
    BatchOptions,
    BatchRequest,
    Raw,
    Strict,
    Why,
    media_type,
    parsed,
    unsupported,
)
from orchestrator.contracts.base import Line
from orchestrator.errors import UsageError
from orchestrator.ledger.engine.states import BATCH_ENDED, BATCH_STATES, STATES
from orchestrator.ledger.queue import batches, quarantine, reviews
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.views import listings
from orchestrator.planning.manifest import Format
from orchestrator.portraits import submit as submitting
from orchestrator.results import bundle, results
from orchestrator.status import progress

MOST_REVIEWED = 1000
router = APIRouter(prefix="/v1/batches", tags=["batches"])
WAIT_POLL_SECONDS = 0.25
LONGEST_DRY_RUN = 10_000
"""Rows that a dry run looks at; a submit takes more."""
Words = Annotated[list[str], Query(max_length=20)]
MANIFEST = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": BatchRequest.model_json_schema()},
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS},
        },
    }
}


@router.post("", status_code=202, operation_id="create_batch", responses=ENDED, openapi_extra=MANIFEST)
def create(
    request: Request,
    caller: Writer,
    body: Raw,
    options: Annotated[BatchOptions, Query()],
    key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Submit a batch: JSON with `items`, or a JSONL or CSV manifest with the options in the query."""
    return _submitted(request, caller, body, options, key, prefer)


@router.put("/by-key/{client_id}", status_code=202, operation_id="put_batch", responses=ENDED, openapi_extra=MANIFEST)
def put(
    request: Request,
    caller: Writer,
    client_id: Annotated[str, Path(min_length=1, max_length=150, pattern=r"^[A-Za-z0-9._~-]+$")],
    body: Raw,
    options: Annotated[BatchOptions, Query()],
    prefer: Prefer = None,
) -> Response:
    """Submit a batch under a name of your own: sent again, it answers with the batch that was made first."""
    return _submitted(request, caller, body, options, client_id, prefer)


def _submitted(
    request: Request, caller: Caller, body: bytes, options: BatchOptions, key: str | None, prefer: str | None
) -> Response:
    form, manifest, chosen = _manifest(request, body, options)

    def make() -> Answer:
        try:
            made = submitting.submit_portraits(
                caller.ledger,
                caller.settings,
                manifest=manifest,
                format=form,
                owner=caller.owner,
                name=chosen.name,
                options=chosen.options(),
                idempotency_key=f"http:{key}" if key else None,
            )
        except UsageError as error:
            raise _pointed(error) if media_type(request) == "application/json" else error from None
        shown = _waited(caller, made.batch_id, wait_seconds(prefer))
        left_out = [error.as_json() for error in made.errors]
        shown |= {"errors": left_out, "candidate_batch_id": made.candidate_batch_id}
        status = 200 if shown["state"] in BATCH_ENDED else 202
        return Answer(body=shown, status=status, location=f"/v1/batches/{made.batch_id}")

    return once(caller, request, key, form.encode() + chosen.model_dump_json().encode() + manifest, make)


@router.post("/dry-run", operation_id="dry_run_batch", openapi_extra=MANIFEST)
def dry_run(request: Request, caller: Reader, body: Raw, options: Annotated[BatchOptions, Query()]) -> dict[str, Any]:
    """Say what a submit would do: items, wrong rows, missing consents, time; of at most 10 000 rows."""
    form, manifest, chosen = _manifest(request, body, options)
    if (rows := manifest.count(b"\n")) > LONGEST_DRY_RUN:
        raise UsageError(f"a dry run takes at most {LONGEST_DRY_RUN} rows, got {rows}", code="dry_run_too_long")
    with planning(caller):
        return submitting.dry_run(
            caller.ledger,
            caller.settings,
            manifest=manifest,
            format=form,
            owner=caller.owner,
            options=chosen.options(),
        ).as_json()


@router.get("", operation_id="list_batches")
def list_(
    caller: Reader,
    state: Words = [],  # noqa: B006 fastapi copies it
    kind: Words = [],  # noqa: B006 fastapi copies it
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, object]:
    """List batches, newest first."""
    _check_words(state, (*BATCH_STATES, *batches.STATE_WORDS))
    with caller.ledger.read() as session:
        found = listings.batches(
            session, caller.owner, states=state, kinds=kind, before=moment_of(cursor), limit=limit + 1
        )
        shown = lines(session, found[:limit])
    last = found[limit - 1] if len(found) > limit else None
    return page(shown, [last.created_at.isoformat(), last.id] if last else None)


@router.get("/{batch_id}", operation_id="get_batch", responses=TAGGED)
def show(request: Request, caller: Reader, batch_id: str) -> Response:
    """Show a batch: counts, errors by code, verdicts, times of stages."""
    return tagged(request, _shown(caller, batch_id))


@router.get("/{batch_id}/progress", operation_id="get_batch_progress")
def look(caller: Reader, batch_id: str) -> dict[str, Any]:
    """Say where a batch stands now, and when it will be done."""
    with caller.ledger.read() as session:
        found = listings.batch(session, caller.owner, batch_id).id
    return progress.look(caller.ledger, caller.owner, found).as_json()


@router.get("/{batch_id}/items", operation_id="list_items")
def items(
    caller: Reader,
    batch_id: str,
    state: Words = [],  # noqa: B006 fastapi copies it
    verdict: Words = [],  # noqa: B006 fastapi copies it
    code: Words = [],  # noqa: B006 fastapi copies it
    sort: Literal["position", "similarity", "-similarity"] = "position",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """List items of a batch: in manifest order, or by how like their people they are."""
    _check_words(state, (*STATES, *batches.STATE_WORDS))
    after = place(cursor, float, int)
    with caller.ledger.read() as session:
        batch = listings.batch(session, caller.owner, batch_id)
        found = listings.items(
            session,
            batch.id,
            states=state,
            verdicts=verdict,
            codes=code,
            order=sort,
            after=(after[0], after[1] or 0) if after else None,
            limit=limit + 1,
        )
        reviewed = reviews.of_items(session, [item.id for item in found[:limit]])
        shown = [results.item_line(item, None, reviewed.get(item.id)) for item in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return page(shown, [last.similarity, last.position] if last else None)


@router.get("/{batch_id}/results", operation_id="get_results", response_class=StreamingResponse)
def get_results(caller: Reader, batch_id: str) -> StreamingResponse:
    """Stream results.jsonl: the finished items so far, in manifest order."""
    return _jsonl(caller, batch_id, "results", results.results_lines)


@router.get("/{batch_id}/errors", operation_id="get_errors", response_class=StreamingResponse)
def get_errors(caller: Reader, batch_id: str) -> StreamingResponse:
    """Stream errors.jsonl: rows left out first, then items that went wrong."""
    return _jsonl(caller, batch_id, "errors", results.errors_lines)


@router.get("/{batch_id}/files", operation_id="get_files", response_class=StreamingResponse)
def get_files(caller: Reader, batch_id: str) -> StreamingResponse:
    """Stream files.jsonl of a batch of photos: every file of the source and what became of it."""
    return _jsonl(caller, batch_id, "files", partial(bundle.files, caller.store))


@router.get("/{batch_id}/results.csv", operation_id="get_results_table", response_class=StreamingResponse)
def get_table(caller: Reader, batch_id: str) -> StreamingResponse:
    """Stream a table of all items for a spreadsheet; nothing in it is taken for a formula."""
    found = _whole(caller, batch_id)

    def lines(session: Session) -> Iterator[bytes]:
        for line in results.csv_lines(session, listings.batch(session, caller.owner, found)):
            yield line.encode()

    headers = {"Content-Disposition": 'attachment; filename="results.csv"'}
    return StreamingResponse(results.written_out(caller.ledger, lines), media_type="text/csv", headers=headers)


@router.post("/{batch_id}/items", operation_id="add_items", openapi_extra=MANIFEST)
def add_items(request: Request, caller: Writer, batch_id: str, body: Raw) -> dict[str, Any]:
    """Add rows to a batch that was submitted with `growing`; rows whose `custom_id` it has already are left out."""
    form, manifest, _ = _manifest(request, body, BatchOptions())
    found = _whole(caller, batch_id)
    try:
        added = submitting.add_portraits(
            caller.ledger, caller.settings, manifest=manifest, format=form, owner=caller.owner, batch_id=found
        )
    except UsageError as error:
        raise _pointed(error) if media_type(request) == "application/json" else error from None
    return _shown(caller, found) | {"added": added}


@router.get("/{batch_id}/pictures", operation_id="get_pictures", response_class=StreamingResponse)
def get_pictures(caller: Reader, batch_id: str) -> StreamingResponse:
    """Stream a zip of the finished pictures so far, with results.jsonl and errors.jsonl."""
    whole = _whole(caller, batch_id)
    found = bundle.entries(caller.ledger, caller.owner, whole)
    pieces = bundle.written(caller.ledger, caller.store, caller.owner, whole, found)
    headers = {"Content-Disposition": f'attachment; filename="{whole}.zip"', "Cache-Control": "private, no-store"}
    return StreamingResponse((piece for piece in pieces if piece), media_type="application/zip", headers=headers)


class Reviewed(Strict):
    """What a person says of items of a batch; what is left out stays as it was."""

    items: Annotated[list[Line], Field(min_length=1, max_length=MOST_REVIEWED)]
    decision: reviews.Decision | None = None
    starred: bool | None = None
    note: Annotated[str, Field(max_length=2000)] | None = None


@router.post("/{batch_id}/reviews", operation_id="review_items")
def review(caller: Writer, batch_id: str, body: Reviewed) -> dict[str, Any]:
    """Approve or reject items, star them, leave a note: a person's word beside the machine's verdict."""
    whole = _whole(caller, batch_id)
    changed = reviews.put(
        caller.ledger,
        caller.owner,
        whole,
        body.items,
        by=caller.bearer.key_id,
        decision=body.decision,
        starred=body.starred,
        note=body.note,
    )
    with caller.ledger.read() as session:
        return {"object": "batch.reviews", "changed": changed, **reviews.counts(session, whole)}


@router.post("/{batch_id}/cancel", status_code=202, operation_id="cancel_batch")
def cancel(caller: Writer, batch_id: str) -> dict[str, Any]:
    """Cancel a batch: `cancelling` until the last worker has confirmed; again is harmless, after its end 409."""
    batches.cancel(caller.ledger, caller.owner, _whole(caller, batch_id))
    return _shown(caller, batch_id)


class Reason(Strict):
    """Why."""

    reason: Line | None = None


@router.post("/{batch_id}/pause", status_code=202, operation_id="pause_batch")
def pause(caller: Writer, batch_id: str, body: Reason | None = None) -> dict[str, Any]:
    """Stop working on a batch until it is resumed."""
    batches.pause(caller.ledger, caller.owner, _whole(caller, batch_id), reason=body.reason if body else None)
    return _shown(caller, batch_id)


@router.post("/{batch_id}/resume", status_code=202, operation_id="resume_batch")
def resume(caller: Writer, batch_id: str) -> dict[str, Any]:
    """Go on with a paused batch."""
    batches.resume(caller.ledger, caller.owner, _whole(caller, batch_id))
    return _shown(caller, batch_id)


class Order(Strict):
    """Where a batch stands among others: its lane, and its priority within it."""

    lane: Literal["interactive", "bulk", "training"] | None = None
    priority: Annotated[int, Field(ge=-3, le=3)] | None = None


@router.post("/{batch_id}/order", status_code=202, operation_id="order_batch")
def order(caller: Writer, batch_id: str, body: Order) -> dict[str, Any]:
    """Let a batch that has not ended go before or behind others; what a worker holds of it goes on."""
    batches.reorder(caller.ledger, caller.owner, _whole(caller, batch_id), lane=body.lane, priority=body.priority)
    return _shown(caller, batch_id)


@router.post("/{batch_id}/close", status_code=202, operation_id="close_batch")
def close(caller: Writer, batch_id: str) -> dict[str, Any]:
    """Say that no more items will come to an open batch; closing it again changes nothing."""
    batches.close(caller.ledger, caller.owner, _whole(caller, batch_id))
    return _shown(caller, batch_id)


@router.post("/{batch_id}/release", operation_id="release_batch")
def release(caller: Writer, batch_id: str, body: Why) -> dict[str, Any]:
    """Let all items that are held, having ended their worker again and again, be tried again; the batch goes on."""
    quarantine.release(caller.ledger, caller.owner, _whole(caller, batch_id), reason=body.reason)
    return _shown(caller, batch_id)


@router.post("/{batch_id}/reject", operation_id="reject_batch")
def reject(caller: Writer, batch_id: str, body: Why) -> dict[str, Any]:
    """Give all items that are held up for good: they are `cancelled`."""
    quarantine.reject(caller.ledger, caller.owner, _whole(caller, batch_id), reason=body.reason)
    return _shown(caller, batch_id)


class Retry(Strict):
    """Which failed items to try again: those with one of `codes`, or all."""

    codes: tuple[Line, ...] = ()
    again: bool = False
    """Also what an earlier retry has."""


@router.post("/{batch_id}/retry", status_code=202, operation_id="retry_batch")
def retry(
    request: Request, caller: Writer, batch_id: str, body: Retry | None = None, key: IdempotencyKey = None
) -> Response:
    """Make a new batch of the items that failed or were held."""
    wanted = body or Retry()
    codes = sorted(wanted.codes)

    def make() -> Answer:
        made = batches.retry(caller.ledger, caller.owner, _whole(caller, batch_id), codes=codes, again=wanted.again)
        return Answer(body=_shown(caller, made.batch_id), status=202, location=f"/v1/batches/{made.batch_id}")

    asked = json.dumps([codes, True] if wanted.again else codes).encode()
    return once(caller, request, key, asked, make)


def lines(session: Session, found: list[Batch] | Any) -> list[dict[str, Any]]:
    """Return light objects of batches, their counts by one query."""
    counts = listings.counts_of(session, [batch.id for batch in found])
    return [results.batch_line(batch, dict.fromkeys(STATES, 0) | counts[batch.id]) for batch in found]


def _manifest(request: Request, body: bytes, options: BatchOptions) -> tuple[Format, bytes, BatchOptions]:
    kind = media_type(request)
    if kind == "application/json":
        asked = parsed(BatchRequest, body)
        return "jsonl", asked.manifest(), asked
    if kind not in FORMATS:
        raise unsupported(request, "application/json", *FORMATS)
    return FORMATS[kind], body, options


def _pointed(error: UsageError) -> UsageError:
    """Give each wrong row its place in a JSON body."""
    for one in error.details.get("errors", ()):
        one["pointer"] = f"/items/{one['row'] - 1}" + (f"/{one['field']}" if one.get("field") else "")
    return error


def _waited(caller: Caller, batch_id: str, seconds: float) -> dict[str, Any]:
    with waiting(seconds) as granted:
        until = time.monotonic() + granted
        while time.monotonic() < until and not _ended(caller, batch_id):
            time.sleep(WAIT_POLL_SECONDS)
    return _shown(caller, batch_id)


def _ended(caller: Caller, batch_id: str) -> bool:
    with caller.ledger.read() as session:
        return listings.batch(session, caller.owner, batch_id).state in BATCH_ENDED


def _shown(caller: Caller, batch_id: str) -> dict[str, Any]:
    with caller.ledger.read() as session:
        return results.batch_object(session, listings.batch(session, caller.owner, batch_id))


def _whole(caller: Caller, batch_id: str) -> str:
    """Return the id if it is the whole one: over HTTP a beginning is not enough."""
    with caller.ledger.read() as session:
        return listings.batch(session, caller.owner, batch_id).id


def _jsonl(caller: Caller, batch_id: str, name: str, read: bundle.Lines) -> StreamingResponse:
    found = _whole(caller, batch_id)

    def lines(session: Session) -> Iterator[bytes]:
        return map(results.json_line, read(session, listings.batch(session, caller.owner, found)))

    headers = {"Content-Disposition": f'attachment; filename="{name}.jsonl"'}
    told = results.written_out(caller.ledger, lines)
    return StreamingResponse(told, media_type="application/x-ndjson", headers=headers)


def moment_of(cursor: str | None) -> tuple[datetime, str] | None:
    """Return the place in a list of batches that a cursor tells."""
    found = place(cursor, str, str)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(found[0] or "")
    except ValueError as error:
        raise UsageError("cursor is not one that this list gave", code="cursor_invalid") from error
    if moment.tzinfo is None:
        raise UsageError("cursor is not one that this list gave", code="cursor_invalid")
    return moment, found[1] or ""


def _check_words(given: list[str], known: tuple[str, ...]) -> None:
    unknown = [word for word in given if word not in known]
    if unknown:
        raise UsageError(f"state {unknown[0][:40]!r} is none of {', '.join(known)}", code="bad_state")
