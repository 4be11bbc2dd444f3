"""Errors as RFC 9457 problem details: `code` for machines, `errors` with row numbers or JSON pointers.

A browser that asks for a page gets the same told on a page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from orchestrator.api.pages.rendering import error_page
from orchestrator.errors import FpgaError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "No valid key",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not usable",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
}
HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
    415: "media_type",
}
SHOWN_ERRORS = 1000


class Problem(BaseModel):
    """A problem (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[dict[str, Any]] | None = None


RESPONSES: dict[int | str, dict[str, object]] = {
    status: {
        "description": TITLES[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status in (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
}
"""What any route may answer beside its own answer; told to OpenAPI."""


def problem(
    path: str,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """Return the answer that tells of a problem."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": path,
        "code": code,
        **more,
    }
    if errors is not None:
        body["errors"] = errors[:SHOWN_ERRORS]
        if len(errors) > SHOWN_ERRORS:
            body["errors_total"] = len(errors)
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of this application a problem."""
    app.add_exception_handler(FpgaError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


def from_error(path: str, error: FpgaError) -> JSONResponse:
    """Return the answer for one of our errors; what went wrong inside of a server is not told in its words."""
    details = dict(error.details)
    headers: dict[str, str] = {}
    status = error.http_status
    if error.code == "idempotency_conflict":
        status = 422
    if status in (429, 503):
        headers["Retry-After"] = str(details.pop("retry_after", 5))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    errors = details.pop("errors", None)
    detail = error.message if status < 500 else "it did not work this time" if error.retryable else "it does not work"
    return problem(path, status, error.code, detail, errors=errors, headers=headers)


def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, FpgaError), error
    if error.http_status == 401 and "text/html" in request.headers.get("accept", ""):
        # people in a browser, not programs: they are led back to where they wanted to be
        query = f"?{request.url.query}" if request.url.query else ""
        wanted = (
            f"?{urlencode({'next': request.url.path + query})}"
            if request.method == "GET" and request.url.path != "/"
            else ""
        )
        return RedirectResponse(f"/login{wanted}", 303)
    return for_asker(from_error(request.url.path, error), request.url.path, request.headers)


def for_asker(answer: JSONResponse, path: str, headers: Mapping[str, str]) -> Response:
    """Return a problem as it is, or as a page where a person asked in a browser; `headers` of the request."""
    if path.startswith("/v1/") or "text/html" not in headers.get("accept", ""):
        return answer
    told = json.loads(bytes(answer.body))
    kept = {name: answer.headers[name] for name in ("retry-after",) if name in answer.headers}
    return error_page(
        told["title"], answer.status_code, told["code"], told["detail"], headers=kept, signed_in="cookie" in headers
    )


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), error
    found = [_pointed(one) for one in error.errors()]
    first = found[0]
    where = first.get("pointer") or first.get("parameter") or "the request"
    told = problem(request.url.path, 422, "request_invalid", f"{where}: {first['message']}", errors=found)
    return for_asker(told, request.url.path, request.headers)


def _pointed(one: dict[str, Any]) -> dict[str, Any]:
    place, *parts = one["loc"]
    told = {"code": one["type"], "message": one["msg"]}
    if place == "body":
        return {"pointer": pointer(parts), **told}
    return {"parameter": ".".join(str(part) for part in parts), "in": place, **told}


def pointer(parts: Iterable[object]) -> str:
    """Return the JSON pointer (RFC 6901) to a place in the body."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), error
    code = HTTP_CODES.get(error.status_code, "bad_request")
    detail = "there is no such page" if error.detail == "Not Found" else str(error.detail)
    told = problem(request.url.path, error.status_code, code, detail, headers=dict(error.headers or {}))
    return for_asker(told, request.url.path, request.headers)


def _unforeseen(request: Request, error: Exception) -> Response:
    # starlette raises it again after this answer, so that it is logged with its trace
    told = problem(request.url.path, 500, "internal", "something broke here; it is in the server's log")
    return for_asker(told, request.url.path, request.headers)
