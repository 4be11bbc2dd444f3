"""A local collector sees one trace: from the submit in one process to the publishing of the items in another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.workers.rig import ROOT

SUBMIT = """
from benchmarks import probes
from orchestrator.cli.common import services
with services() as s:
    probes.submit(s.ledger, s.settings, items=3, milliseconds=1)
"""
WORK = """
from orchestrator import tracing
from orchestrator.settings import get_settings
from workers.runtime.process import Process
tracing.setup(get_settings(), "worker")
Process(get_settings()).run()
"""


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    received: list[ExportTraceServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()


def test_one_trace_goes_from_submit_to_publish(
    collector: tuple[str, list[ExportTraceServiceRequest]], tmp_path: Path
) -> None:
    endpoint, received = collector
    given = {
        "FPGA_STATE_DIR": str(tmp_path / "state"),
        "FPGA_PROBES": "true",
        "FPGA_WORKER_QUEUES": "cpu.io",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
    }
    for program in (SUBMIT, WORK):
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, **given},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr

    spans = [
        span for sent in received for one in sent.resource_spans for scope in one.scope_spans for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == ["batch.submit", *["item.publish"] * 3, "stage.probe"]
    assert len({span.trace_id for span in spans}) == 1
    by_name = {span.name: span for span in spans}
    assert by_name["stage.probe"].parent_span_id == by_name["batch.submit"].span_id
    assert by_name["item.publish"].parent_span_id == by_name["stage.probe"].span_id
