"""What answers share: cursors, entity tags, `Prefer: wait`, and the first answer kept for a repeated request."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Query, Request
from starlette.responses import JSONResponse, Response

from orchestrator.api.context import Caller
from orchestrator.errors import FpgaError, LimitError, UsageError
from orchestrator.ledger import idempotency

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same body is answered as the first time; with another body it is refused.",
    ),
]
Prefer = Annotated[
    str | None, Header(description="`wait=N` answers when the work has ended, or after N seconds at the latest (60).")
]
Limit = Annotated[int, Query(ge=1, le=500, description="How many to return.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before.")]
LONGEST_WAIT = 60.0
MOST_PLANNERS = 4
_waiting = threading.BoundedSemaphore(16)
"""A request that waits holds a thread; the others are answered at once."""
_planners: set[str] = set()
_planners_lock = threading.Lock()
TAGGED: dict[int | str, dict[str, object]] = {304: {"description": "It is what `If-None-Match` names."}}
ENDED: dict[int | str, dict[str, object]] = {200: {"description": "It has ended while the client waited."}}
"""What some routes may answer beside their own answer; told to OpenAPI."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Something that was made: its JSON object, and where it can be read."""

    body: dict[str, Any]
    status: int = 201
    location: str | None = None
    unkept: tuple[str, ...] = ()
    """Names in the body that are shown this once, and left out where the answer is kept for repeats."""


def page(found: list[dict[str, Any]], after: list[Any] | None) -> dict[str, Any]:
    """Return one page of a list; `after` is the place of the last one shown, None at the end of the list."""
    return {"object": "list", "data": found, "next": _written(after) if after is not None else None}


def place(cursor: str | None, *kinds: type) -> list[Any] | None:
    """Return the place that a cursor tells, its parts of these types (or None), or None without a cursor.

    Raises:
        UsageError: it is none of ours.
    """
    if cursor is None:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=="))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _bad_cursor() from error
    fits = isinstance(found, list) and len(found) == len(kinds)
    if not fits or not all(part is None or type(part) is kind for part, kind in zip(found, kinds, strict=True)):
        raise _bad_cursor()
    return list(found)


def _bad_cursor() -> UsageError:
    return UsageError("cursor is not one that this list gave", code="cursor_invalid")


def _written(after: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(after, separators=(",", ":")).encode()).decode().rstrip("=")


def tagged(request: Request, body: dict[str, Any]) -> Response:
    """Return a JSON answer with its entity tag, or 304 where the client has it already."""
    answer = JSONResponse(body)
    tag = f'W/"{hashlib.sha256(bytes(answer.body)).hexdigest()[:32]}"'
    known = {one.strip() for one in request.headers.get("if-none-match", "").split(",")}
    if tag in known:
        return Response(status_code=304, headers={"ETag": tag})
    answer.headers["ETag"] = tag
    return answer


def wait_seconds(prefer: str | None) -> float:
    """Return how long the client is ready to wait, 0 to 60."""
    for part in (prefer or "").replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name.strip().lower() == "wait" and value.strip().isdigit():
            return min(LONGEST_WAIT, float(value.strip()[:6]))
    return 0.0


@contextmanager
def waiting(seconds: float) -> Iterator[float]:
    """Lend a place among those who may wait, and say how long: 0 where there is none, then the answer comes at once."""
    granted = bool(seconds) and _waiting.acquire(blocking=False)
    try:
        yield seconds if granted else 0.0
    finally:
        if granted:
            _waiting.release()


@contextmanager
def planning(caller: Caller) -> Iterator[None]:
    """Lend an owner's turn to have something planned that is not submitted: it costs a processor and makes nothing.

    Raises:
        LimitError: `planning_busy`, this owner has one under way, or too many owners have.
    """
    with _planners_lock:
        if caller.owner in _planners or len(_planners) >= MOST_PLANNERS:
            raise LimitError(
                "a dry run is under way already; try again in a moment", code="planning_busy", retry_after=2
            )
        _planners.add(caller.owner)
    try:
        yield
    finally:
        with _planners_lock:
            _planners.discard(caller.owner)


def once(caller: Caller, request: Request, key: str | None, asked: bytes, make: Callable[[], Answer]) -> Response:
    """Run `make`, or answer as the first time where this owner sent the same request under the same key before.

    Args:
        asked: everything in the body that matters, in a canonical form.

    Raises:
        ConflictError: `idempotency_conflict` (422 over HTTP) for another request, `request_in_progress` (409).
    """
    if key is None:
        return _sent(make())
    line = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    digest = hashlib.sha256(line + asked).hexdigest()
    kept = idempotency.begin(caller.ledger, caller.owner, key, digest)
    if kept is not None:
        said = Answer(body=kept.body or {}, status=kept.status or 200, location=kept.location)
        return _sent(said, **{"Idempotent-Replayed": "true"})
    try:
        made = make()
    except FpgaError:
        idempotency.forget(caller.ledger, caller.owner, key)  # nothing was made: the next try may do better
        raise
    kept_body = {name: value for name, value in made.body.items() if name not in made.unkept}
    idempotency.keep(caller.ledger, caller.owner, key, status=made.status, location=made.location, body=kept_body)
    return _sent(made)


def _sent(answer: Answer, **headers: str) -> Response:
    if answer.location:
        headers["Location"] = answer.location
    return JSONResponse(answer.body, answer.status, headers=headers)
