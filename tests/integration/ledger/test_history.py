"""A ledger with history: what a claim, a look and a scrape read does not grow with what has ended or is paused."""

from __future__ import annotations

import pytest

from benchmarks import ledger_size
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import workers

MOST = {"claim": 220, "look": 200, "scrape": 700}
"""In all: a claim takes eight stages, of which each is read and written. What it asks to choose them is less."""
CHOOSING = 60


@pytest.mark.slow
def test_what_is_asked_often_reads_few_pages_whatever_the_history(postgres_url: str) -> None:
    schema.upgrade(postgres_url)
    ledger = Ledger(postgres_url)
    ledger_size.fill(ledger, "ended", "completed", count=20_000, items=1)
    ledger_size.fill(ledger, "paused", "paused", count=1, items=20_000)
    ledger_size.fill(ledger, "running", "in_progress", count=50, items=20)
    ledger_size.settle(ledger)
    workers.register(ledger, owner="o", device="cpu", queues=["gpu.generate", "cpu.io"])
    asked = ledger_size.questions(ledger)
    asked["claim"]()  # the first of an owner writes the row of its turn

    for name, act in asked.items():
        costs = ledger_size.cost(ledger, act)
        assert costs
        if name == "claim":
            assert sum(one.pages for one in costs[:2]) <= CHOOSING, costs[:2]
        told = "\n".join(f"{one.pages} {one.statement}" for one in costs)
        assert sum(one.pages for one in costs) <= MOST[name], f"{name}\n{told}"
    ledger.dispose()
