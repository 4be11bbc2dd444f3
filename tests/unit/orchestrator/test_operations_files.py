"""Dashboard, alert rules and runbook name only figures that there are, and every alert has its page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from orchestrator.api.metrics import ServerMetrics
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from workers.runtime.metrics import WorkerMetrics

ROOT = Path(__file__).parents[3]
FOREIGN = {"up"}
"""Made by Prometheus itself."""
UNITS = ("_seconds", "_bytes", "_total")
COUNTS = {
    "fpga_open_stages", "fpga_queue_demand", "fpga_workers", "fpga_open_batches", "fpga_sweeper_leads",
    "fpga_overdue_leases", "fpga_expired_objects", "fpga_late_effects", "fpga_late_deliveries", "fpga_held_items",
}  # fmt: skip
"""Gauges that count things: the thing is the unit."""


def names(registry: CollectorRegistry) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield (name of a sample as it is scraped, its labels)."""
    for family in registry.collect():
        for name in {family.name, *(sample.name for sample in family.samples)}:
            yield name, frozenset(label for sample in family.samples for label in sample.labels)
        if family.type == "counter":
            yield f"{family.name}_total", frozenset()
        if family.type == "histogram":
            yield from ((f"{family.name}{end}", frozenset()) for end in ("_bucket", "_count", "_sum"))


@pytest.fixture
def known(ledger: Ledger, settings: Settings) -> dict[str, frozenset[str]]:
    return dict([*names(ServerMetrics(ledger, settings).registry), *names(WorkerMetrics().registry)])


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def expressions() -> dict[str, str]:
    board = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    shown = {f"{p['title']} {t['refId']}": t["expr"] for p in board["panels"] for t in p["targets"]}
    return shown | {rule["alert"]: rule["expr"] for rule in rules()}


def figures_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:fpga|process)_\w+|\bup\b", re.sub(r'"[^"]*"', "", expression)))


def test_every_expression_names_figures_that_are_really_exported(known: dict[str, frozenset[str]]) -> None:
    used = {name: figures_in(expression) for name, expression in expressions().items()}

    assert all(used.values()), "every expression asks for something"
    assert {name: found - set(known) - FOREIGN for name, found in used.items() if found - set(known) - FOREIGN} == {}


def test_names_carry_their_unit_and_labels_are_never_ids(known: dict[str, frozenset[str]]) -> None:
    ours = {name for name in known if name.startswith("fpga_")}
    bare = {name for name in ours if not name.endswith((*UNITS, "_bucket", "_count", "_sum", "_created"))}
    families = {name for name in bare if f"{name}_total" not in ours}

    assert families <= COUNTS, f"{families - COUNTS} tell no unit"
    labels = frozenset().union(*known.values())
    assert labels <= {"queue", "state", "device", "method", "route", "status", "stage", "outcome", "le"}


def test_every_alert_has_a_page_in_the_runbook_and_no_page_is_left_over() -> None:
    pages = set(re.findall(r"^## (Fpga\w+)", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))

    assert pages == {rule["alert"] for rule in rules()}


def test_every_alert_says_for_how_long_how_bad_and_what(known: dict[str, frozenset[str]]) -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["for"], rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]


def test_what_is_exported_is_text_that_prometheus_reads(ledger: Ledger, settings: Settings) -> None:
    text = generate_latest(ServerMetrics(ledger, settings).registry).decode()

    assert "# TYPE fpga_oldest_due_seconds gauge" in text
    assert re.search(r"^fpga_sweeper_leads 0\.0$", text, re.MULTILINE)
