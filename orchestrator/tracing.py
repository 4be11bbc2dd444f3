"""Traces from submit to publish, when OTEL_EXPORTER_OTLP_ENDPOINT says where to; otherwise every call is a no-op.

The trace of a submit is written into the batch (W3C traceparent), since a hint is only a bell and may be lost: whoever
claims a stage goes on with the trace. Spans carry ids and counts, never names or prompts. The SDK comes with the extra
`otel` and reads the other OTEL_* variables itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.settings import Settings

log = logging.getLogger(__name__)
PROPAGATOR = TraceContextTextMapPropagator()


def setup(settings: Settings, part: str) -> None:
    """Send the spans of this process to the endpoint of the settings; `part` is what it is called there.

    Tracing that was asked for and is not installed costs a line of the log, not the process.
    """
    if not settings.otel_endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 an extra
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 an extra
    except ImportError:
        log.warning("traces are asked for, but the extra `otel` is not installed")
        return
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: f"fpga-{part}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, *, parent: str | None = None, **attributes: str | int) -> Iterator[None]:
    """Time what happens inside; below `parent` (a traceparent) if one is given, else below what is open now."""
    context = PROPAGATOR.extract({"traceparent": parent}) if parent else None
    said = {f"fpga.{key}": value for key, value in attributes.items()}
    with trace.get_tracer("fpga").start_as_current_span(name, context=context, attributes=said):
        yield


def traceparent() -> str | None:
    """Return the place in the trace that is open now, or None when nothing is traced."""
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")
