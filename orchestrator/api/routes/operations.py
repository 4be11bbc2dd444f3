"""Health, metrics and the document of this interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.responses import JSONResponse, Response

from orchestrator.api.context import Admin, Context, Reader, context_of
from orchestrator.ledger import health, listings, workers
from orchestrator.ledger.session import Ledger, now

router = APIRouter(tags=["operations"])
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Here = Annotated[Context, Depends(context_of)]


class Metrics:
    """Figures of this process, and of the ledger at the moment somebody asks."""

    def __init__(self, ledger: Ledger) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fpga_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "fpga_http_request_seconds", "Time until an answer began.", ["route"], registry=self.registry
        )
        self._ledger = ledger
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield what the ledger says now."""
        with self._ledger.read() as session:
            open_stages = listings.queues(session)
            living = workers.living(session, now(session))
        stages = GaugeMetricFamily("fpga_open_stages", "Stages that have not ended.", labels=["queue", "state"])
        for queue, states in open_stages.items():
            for state, count in states.items():
                stages.add_metric([queue, state], count)
        yield stages
        alive = GaugeMetricFamily("fpga_workers", "Workers that are alive.", labels=["device"])
        devices = [worker.device for worker in living]
        for device in dict.fromkeys(devices):
            alive.add_metric([device], devices.count(device))
        yield alive


@router.get("/health/live", operation_id="health_live")
def live() -> dict[str, str]:
    """Say that this process answers."""
    return {"status": "ok"}


@router.get("/health/ready", operation_id="health_ready")
def ready(context: Here) -> Response:
    """Say whether new work would be done; 503 names what it waits for: `database`, `sweeper`, or a `queue` too long."""
    found = health.readiness(context.ledger, max_waiting=context.settings.ready_queue_depth)
    good = found == "ok"
    return JSONResponse({"status": found}, 200 if good else 503, headers={} if good else {"Retry-After": "5"})


@router.get("/metrics", operation_id="metrics", response_class=Response)
def metrics(request: Request, caller: Admin) -> Response:
    """Figures for Prometheus, of all owners together."""
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
