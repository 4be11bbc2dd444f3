"""What every page needs beside itself: logging in and out, style sheets, scripts. Families of pages are *_pages.py."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from orchestrator.access import keys
from orchestrator.api.context import COOKIE, Context, check_origin, context_of
from orchestrator.api.pages.rendering import shown as shown
from orchestrator.api.pages.rendering import static_files
from orchestrator.errors import AccessError, NotFoundError

router = APIRouter(include_in_schema=False)
KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}
Here = Annotated[Context, Depends(context_of)]


@router.get("/login")
def login_page(
    request: Request,
    context: Here,
    token: Annotated[str | None, Query(max_length=200)] = None,
    wanted: Annotated[str, Query(alias="next", max_length=2000)] = "/",
) -> Response:
    """Open a session by a link, or ask for a key.

    A link that another page led to, or that would replace a session, is followed only when a person says so: else any
    site could log somebody in as somebody else.
    """
    if not token:
        return _ask(None, wanted=wanted)
    led_here = request.headers.get("sec-fetch-site", "none") != "none"
    return _ask(None, token=token) if led_here or COOKIE in request.cookies else _opened(request, context, token)


@router.post("/login")
def login(
    request: Request,
    context: Here,
    key: Annotated[str, Form(max_length=200)],
    wanted: Annotated[str, Form(alias="next", max_length=2000)] = "/",
) -> Response:
    """Open a session by a key or a link's token, and lead to the page that was wanted."""
    check_origin(request)
    return _opened(request, context, key.strip(), wanted)


@router.post("/logout")
def logout(request: Request, context: Here) -> Response:
    """End this browser's session; a key is ended by `fpga key revoke` alone."""
    check_origin(request)
    if session := request.cookies.get(COOKIE):
        keys.end_session(context.ledger, session)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, secure=request.url.scheme == "https", httponly=True, samesite="strict")
    return answer


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Return what pages look and move like."""
    if name not in static_files():
        raise NotFoundError("there is no such file", code="file_not_found")
    data, media_type, tag = static_files()[name]
    return Response(data, media_type=media_type, headers={**KEPT, "ETag": f'"{tag}"'})


def _opened(request: Request, context: Context, secret: str, wanted: str = "/") -> Response:
    context.logins.take(request.client.host if request.client else "")
    secure = request.url.scheme == "https"
    try:
        session = keys.open_session(context.ledger, secret)
    except AccessError as error:
        return _ask(error.message, wanted=wanted)
    answer = RedirectResponse(_here(wanted), 303, headers={"Cache-Control": "no-store"})
    age = int(keys.SESSION_SECONDS)
    answer.set_cookie(COOKIE, session, max_age=age, httponly=True, samesite="strict", secure=secure)
    return answer


def _here(wanted: str) -> str:
    """Return a page of this site, Home where the address leads elsewhere."""
    inside = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if inside else "/"


def _ask(wrong: str | None, *, token: str | None = None, wanted: str = "/") -> Response:
    return shown(
        "login.html", "Log in", 401 if wrong else 200, wrong=wrong, token=token, wanted=_here(wanted), signed_in=False
    )
