"""Metrics of the server for Prometheus: its own requests, and what the ledger says at the moment somebody asks.

Names carry units; labels are queues, states, devices and routes, never ids. Workers measure their stages themselves.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import workers
from orchestrator.ledger.views import health, latency, listings
from orchestrator.pipelines import QUEUES
from orchestrator.settings import Settings

GRACE_SECONDS = 60.0
"""What a sweeper does within seconds counts as late only after so long."""
WAITED = {
    "first_picture": "Median of the newest batches, from submit to the first picture.",
    "item": "Median of items of the newest batches, from being taken up to their end.",
    "enrolment": "Median of the newest enrolments, from submit to end.",
}


class ServerMetrics:
    """Metrics of this process, and of the ledger at the moment somebody asks."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fpga_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "fpga_http_request_seconds", "Time until an answer began.", ["route"], registry=self.registry
        )
        self._ledger, self._settings = ledger, settings
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield what the ledger says now."""
        with self._ledger.read() as session:
            moment = now(session)
            stages = listings.queues(session)
            devices = [worker.device for worker in workers.living(session, moment)]
            batches = health.open_batches(session)
            oldest = health.oldest_due(session, moment)
            demand = dict.fromkeys(QUEUES, 0) | health.demand(session, moment)
            late = health.backlog(session, moment, grace_seconds=GRACE_SECONDS)
            waited = {one.lane: one.medians for one in latency.lately(session)}
            unheard = health.late_deliveries(session, moment, grace_seconds=10 * GRACE_SECONDS)
        open_stages = GaugeMetricFamily("fpga_open_stages", "Stages that have not ended.", labels=["queue", "state"])
        for queue, states in stages.items():
            for state, count in states.items():
                open_stages.add_metric([queue, state], count)
        yield open_stages
        yield _by("fpga_workers", "Workers that are alive.", "device", {d: devices.count(d) for d in devices})
        yield _by("fpga_open_batches", "Batches that have not ended.", "state", batches)
        said = "Stages that a worker could take now or holds: what to scale workers by."
        yield _by("fpga_queue_demand", said, "queue", demand)
        yield _by("fpga_oldest_due_seconds", "Wait of the oldest stage that a worker could take.", "queue", oldest)
        for figure, said in WAITED.items():
            medians = {lane: found[figure] for lane, found in waited.items() if figure in found}
            yield _by(f"fpga_{figure}_seconds", said, "lane", medians)
        leading = late.leader_until is not None and late.leader_until > moment
        for name, said, value in (
            ("fpga_sweeper_leads", "1 while some sweeper leads.", int(leading)),
            ("fpga_overdue_leases", "Leases a minute past their time.", late.overdue_leases),
            ("fpga_expired_objects", "Objects not removed a minute past their time.", late.expired_artifacts),
            ("fpga_late_effects", "Effects not delivered a minute past their time.", late.late_effects),
            ("fpga_late_deliveries", "Events not delivered to a webhook for ten minutes.", unheard),
            ("fpga_held_items", "Items held because they killed their worker.", late.held_items),
            ("fpga_disk_free_bytes", "Room under the state directory.", _free(self._settings)),
        ):
            yield GaugeMetricFamily(name, said, value=value)


def _by(name: str, said: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, said, labels=[label])
    for value, figure in values.items():
        family.add_metric([value], figure)
    return family


def _free(settings: Settings) -> int:
    folder = next(path for path in (settings.state_dir, *settings.state_dir.parents) if path.exists())
    return shutil.disk_usage(folder).free
