"""Pages for people: log in, what runs, one batch with its pictures. Plain HTML, made here."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from orchestrator import keys, results
from orchestrator.api.answers import page, place
from orchestrator.api.context import COOKIE, Context, Reader, context_of
from orchestrator.api.rendering import shown as shown
from orchestrator.api.rendering import static_files
from orchestrator.api.routes.batches import lines, moment_of
from orchestrator.errors import AccessError, NotFoundError
from orchestrator.ledger import batches, listings, workers
from orchestrator.ledger.session import now
from orchestrator.ledger.states import STATES

router = APIRouter(include_in_schema=False)
SHOWN = 48
KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}
Here = Annotated[Context, Depends(context_of)]


@router.get("/login")
def login_page(context: Here, token: Annotated[str | None, Query(max_length=200)] = None) -> Response:
    """Open a session by a link, or ask for a key."""
    return _opened(context, token, secure=False) if token else _ask(None)


@router.post("/login")
def login(request: Request, context: Here, key: Annotated[str, Form(max_length=200)]) -> Response:
    """Open a session by a key."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return _ask("this came from another site")
    return _opened(context, key.strip(), secure=request.url.scheme == "https")


@router.post("/logout")
def logout(caller: Reader) -> Response:
    """End this session."""
    keys.revoke(caller.ledger, caller.owner, caller.bearer.key_id)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/")
def home(caller: Reader, cursor: Annotated[str | None, Query(max_length=500)] = None) -> Response:
    """Show what runs, and the newest batches."""
    with caller.ledger.read() as session:
        found = listings.batches(session, caller.owner, before=moment_of(cursor), limit=SHOWN + 1)
        shown_batches = lines(session, found[:SHOWN])
        queues = listings.queues(session, caller.owner).values()
        living = len(workers.living(session, now(session)))
    last = found[SHOWN - 1] if len(found) > SHOWN else None
    return shown(
        "home.html",
        "Home",
        batches=shown_batches,
        next=page([], [last.created_at.isoformat(), last.id])["next"] if last else None,
        workers=living,
        waiting=sum(states.get("queued", 0) for states in queues),
        running=sum(states.get("running", 0) + states.get("leased", 0) for states in queues),
    )


@router.get("/batches/{batch_id}")
def batch(
    caller: Reader,
    batch_id: str,
    sort: Literal["position", "similarity", "-similarity"] = "position",
    verdict: Annotated[str | None, Query(max_length=40)] = None,
    code: Annotated[str | None, Query(max_length=80)] = None,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """Show a batch: counts, reasons, pictures."""
    after = place(cursor, float, int)
    with caller.ledger.read() as session:
        row = listings.batch(session, caller.owner, batch_id)
        counts = dict.fromkeys(STATES, 0) | batches.counts(session, row.id)
        found = listings.items(
            session,
            row.id,
            verdicts=[verdict] if verdict else (),
            codes=[code] if code else (),
            order=sort,
            after=(after[0], after[1] or 0) if after else None,
            limit=SHOWN + 1,
        )
        pictures = listings.outputs(session, found[:SHOWN])
        errors, verdicts = batches.error_counts(session, row.id), batches.verdict_counts(session, row.id)
    last = found[SHOWN - 1] if len(found) > SHOWN else None
    asked = {"sort": sort, "verdict": verdict, "code": code}
    asked["cursor"] = page([], [last.similarity, last.position])["next"] if last else None
    return shown(
        "batch.html",
        row.name,
        batch=results.batch_line(row, counts),
        items=[(item, pictures[item.id][0] if item.id in pictures else None) for item in found[:SHOWN]],
        next=urlencode({name: value for name, value in asked.items() if value}) if last else None,
        live=f"/v1/batches/{row.id}/events?since=now" if row.finished_at is None else None,
        errors=errors,
        verdicts=verdicts,
    )


@router.get("/pictures/{item_id}")
def picture(caller: Reader, item_id: str) -> Response:
    """Return the picture that an item made."""
    with caller.ledger.read() as session:
        found = listings.outputs(session, [listings.item(session, caller.owner, item_id)]).get(item_id)
    if found is None or not found[1].media_type.startswith("image/"):
        raise NotFoundError("this item has no picture", code="picture_not_found")
    data = caller.store.get(found[1].key, sha256=found[1].sha256)
    return Response(data, media_type=found[1].media_type, headers={"Cache-Control": "private, max-age=3600"})


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Return what pages look and move like."""
    if name not in static_files():
        raise NotFoundError("there is no such file", code="file_not_found")
    data, media_type, tag = static_files()[name]
    return Response(data, media_type=media_type, headers={**KEPT, "ETag": f'"{tag}"'})


def _opened(context: Context, secret: str, *, secure: bool) -> Response:
    try:
        session = keys.open_session(context.ledger, secret)
    except AccessError as error:
        return _ask(error.message)
    answer = RedirectResponse("/", 303, headers={"Cache-Control": "no-store"})
    age = int(keys.SESSION_SECONDS)
    answer.set_cookie(COOKIE, session, max_age=age, httponly=True, samesite="strict", secure=secure)
    return answer


def _ask(wrong: str | None) -> Response:
    return shown("login.html", "Log in", 401 if wrong else 200, wrong=wrong, signed_in=False)
