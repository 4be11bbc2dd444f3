"""What a computing process measures of itself, for Prometheus: one process per device, so one registry and one port.

Labels are stage names and outcomes, never ids.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, make_wsgi_app
from sqlalchemy import Engine, event

from orchestrator.settings import Settings

log = logging.getLogger(__name__)
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class WorkerMetrics:
    """The metrics of this process, from its start on."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._scraped = make_wsgi_app(self.registry)
        self.group_seconds = Histogram(
            "fpga_stage_group_seconds",
            "Seconds from the claim of a group of items to the end of the last of them.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.items = Counter(
            "fpga_stage_items",
            "Attempts that ended in this process: completed, failed, again (will be tried again), fenced (lost or "
            "cancelled meanwhile).",
            ["stage", "outcome"],
            registry=self.registry,
        )
        self.busy_seconds = Counter(
            "fpga_worker_busy_seconds", "Seconds in which this process held claims.", registry=self.registry
        )
        self.claim_seconds = Histogram(
            "fpga_claim_seconds", "Seconds of asking the ledger for work.", buckets=SECONDS, registry=self.registry
        )

        self.statements = Counter(
            "fpga_ledger_statements", "Statements that this process has sent to the database.", registry=self.registry
        )

    def watch(self, engine: Engine) -> None:
        """Count the statements that go to this database."""
        event.listen(engine, "after_cursor_execute", lambda *_: self.statements.inc())

    def serve(self, settings: Settings) -> None:
        """Answer scrapes and `/health` on the port of the settings, if there is one; a taken port stops no work.

        An answer at `/health` says that this process lives; one that hangs in its work ends itself, see lease.py.
        """
        if not settings.metrics_port:
            return
        try:
            server = make_server(settings.metrics_host, settings.metrics_port, self._answer, _Server, _Handler)
        except OSError as error:
            log.error("metrics port cannot be opened", extra={"port": settings.metrics_port, "error": error.strerror})
            return
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/health":
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"alive\n"]
        scraped: Iterable[bytes] = self._scraped(environ, start)
        return scraped


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line for each scrape would hide the rest."""
