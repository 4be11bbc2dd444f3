"""Health, metrics and the document of this interface."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from prometheus_client import generate_latest
from starlette.responses import JSONResponse, Response

from orchestrator.api.context import Admin, Context, Reader, context_of
from orchestrator.ledger.engine.session import now
from orchestrator.ledger.queue import workers
from orchestrator.ledger.views import health, listings

router = APIRouter(tags=["operations"])
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUS: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "The database is away or older.", "content": STATUS}}
NOT_DONE: dict[int | str, dict[str, Any]] = {503: {"description": "New work would not be done.", "content": STATUS}}
Here = Annotated[Context, Depends(context_of)]


@router.get("/health/live", operation_id="health_live")
def live() -> dict[str, str]:
    """Say that this process answers."""
    return {"status": "ok"}


@router.get("/health/ready", operation_id="health_ready", responses=NOT_READY)
def ready(context: Here) -> Response:
    """Say whether this server can answer: 503 while its database is away or older than this version."""
    return _said("ok" if health.ready(context.ledger) else "database")


@router.get("/health/work", operation_id="health_work", responses=NOT_DONE)
def work(context: Here) -> Response:
    """Say whether new work would be done; 503 names what it waits for: `database`, `sweeper`, or a `queue` too long.

    For people and alerts. A balancer asks `/health/ready`: without a sweeper one must still be able to pause or cancel.
    """
    return _said(health.health(context.ledger, max_waiting=context.settings.ready_queue_depth))


def _said(found: health.Health) -> Response:
    good = found == "ok"
    return JSONResponse({"status": found}, 200 if good else 503, headers={} if good else {"Retry-After": "5"})


@router.get("/metrics", operation_id="metrics", response_class=Response)
def metrics(request: Request, caller: Admin) -> Response:
    """Metrics for Prometheus, of all owners together."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE)


@router.get("/v1/queue", operation_id="get_queue", tags=["queue"])
def queue(caller: Reader) -> dict[str, Any]:
    """Show this owner's open stages by queue and state, and the workers there are."""
    with caller.ledger.read() as session:
        moment = now(session)
        return {
            "object": "queue",
            "queues": listings.queues(session, caller.owner),
            "workers": [
                {"id": worker.id, "device": worker.device, "state": worker.state, "queues": worker.queues}
                for worker in workers.living(session, moment)
            ],
        }
