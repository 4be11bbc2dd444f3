"""Puts the HTTP application together: limits, problems, routes, pages, figures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api import problems
from orchestrator.api.context import Context, who_asks
from orchestrator.api.events import Feeds
from orchestrator.api.limits import Limits, Rate, own_hosts
from orchestrator.api.metrics import ServerMetrics
from orchestrator.api.pages import (
    batch_pages,
    found_pages,
    home_pages,
    item_pages,
    model_pages,
    notice_pages,
    pages,
    people_pages,
    picture_pages,
    review_pages,
    schedule_pages,
    training_pages,
    work_pages,
)
from orchestrator.api.v1 import (
    batches,
    events,
    identities,
    items,
    models,
    operations,
    people,
    restorations,
    schedules,
    training,
    uploads,
    webhooks,
)
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from orchestrator.storage import open_store

TITLE, VERSION = "FPGA", "1"
ROUTERS = (
    batches.router,
    items.router,
    events.router,
    uploads.router,
    restorations.router,
    training.runs,
    training.measured,
    training.sets,
    schedules.router,
    identities.router,
    people.router,
    models.router,
    webhooks.router,
    operations.router,
    pages.router,
    people_pages.router,
    found_pages.router,
    model_pages.router,
    training_pages.router,
    notice_pages.router,
    schedule_pages.router,
    work_pages.router,
    home_pages.router,
    review_pages.router,
    batch_pages.router,
    picture_pages.router,
    item_pages.router,
)
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
"""On every answer that says nothing else: nothing is kept, nothing is loaded from elsewhere, nothing inline runs,
nobody frames a page."""
BY_TLS = {"strict-transport-security": "max-age=31536000"}
"""On answers that go out by TLS, which a trusted proxy says of them: browsers ask by TLS alone from then on."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application over the ledger and the byte store of these settings.

    Raises:
        SettingsError: a URL in the settings is wrong.
    """
    context = Context(
        settings=settings,
        ledger=Ledger.of(settings),
        store=open_store(settings),
        rate=Rate(settings.api_rate_per_minute),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        context.ledger.dispose()

    # no page of documentation: the usual ones load their code from elsewhere
    app = FastAPI(
        title=TITLE,
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
        responses=problems.RESPONSES,
    )
    app.state.context = context
    app.state.feeds = Feeds()
    app.state.metrics = ServerMetrics(context.ledger, settings)
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.add_middleware(
        Limits,
        body_bytes=settings.api_body_bytes,
        authenticate=partial(who_asks, context.ledger),
        hosts=own_hosts(settings),
    )
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app


class Measured:
    """ASGI middleware: counts answers by route, times them, and puts the same headers on all."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                have = {name.lower() for name, _ in message["headers"]}
                told = HEADERS | BY_TLS if scope["scheme"] == "https" else HEADERS
                fresh = [(k.encode(), v.encode()) for k, v in told.items() if k.encode() not in have]
                message["headers"] = [*message["headers"], *fresh]
                # the route's pattern, never the address: labels stay few and hold no ids
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(scope["method"], route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.monotonic() - began)
            await send(message)

        await self._app(scope, receive, noted)


def _document(app: FastAPI) -> dict[str, object]:
    if app.openapi_schema is None:
        made = get_openapi(title=TITLE, version=VERSION, routes=app.routes, description=DESCRIPTION)
        schemas = made["components"]["schemas"]
        schemas["Problem"] = problems.Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = made
    return app.openapi_schema


DESCRIPTION = (
    "Portraits of real people in bulk. Errors are problem details (RFC 9457) with a `code`. Lists are pages: `next` is "
    "the cursor of the following one."
)
