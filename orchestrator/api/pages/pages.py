"""What every page needs beside itself: logging in and out, style sheets, scripts. Families of pages are *_pages.py."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from orchestrator.access import keys
from orchestrator.api.context import COOKIE, Context, Reader, context_of, of_this_site
from orchestrator.api.pages.rendering import shown as shown
from orchestrator.api.pages.rendering import static_files
from orchestrator.errors import AccessError, NotFoundError

router = APIRouter(include_in_schema=False)
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
    if origin is not None and not of_this_site(request, origin):
        return _ask("this came from another site")
    return _opened(context, key.strip(), secure=request.url.scheme == "https")


@router.post("/logout")
def logout(caller: Reader) -> Response:
    """End this session."""
    keys.revoke(caller.ledger, caller.owner, caller.bearer.key_id)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


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
