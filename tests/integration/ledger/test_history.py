"""A ledger with history: what a claim, a look and a scrape read does not grow with what has ended or is paused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event

from benchmarks import ledger_size
from benchmarks.ledger_size import GROUP
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, workers
from tests.integration.ledger.helpers import LEASE, claim, submit

MOST = {"look": 200, "scrape": 2500}  # 1 000 due stages are counted in fifty batches
CHOOSING = 60
"""To choose the batch and the kind of stage that go next."""
A_STAGE = 55
"""To find, lock and write one stage of a group with its item and its attempt, each in all of its indexes."""


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
        told = "\n".join(f"{one.pages} {one.statement}" for one in costs)
        pages = sum(one.pages for one in costs)
        if name == "claim":
            choosing = sum(one.pages for one in costs[:2])
            assert choosing <= CHOOSING, told
            assert pages <= choosing + GROUP * A_STAGE, told
        else:
            assert pages <= MOST[name], f"{name}\n{told}"
    ledger.dispose()


def test_claims_of_one_batch_do_not_wait_for_each_other(postgres_url: str) -> None:
    """Eight claims stand at their commit together: none waits for a row that another has, the batch's least of all."""
    schema.upgrade(postgres_url)
    ledger = Ledger(postgres_url)
    submit(ledger, 40)
    claim(ledger)  # the first of an owner writes the row of its turn
    together = threading.Barrier(8, timeout=4.0)  # a claim that waits for a lock is not here within that
    event.listen(ledger.engine, "commit", lambda _: together.wait())

    def take(worker: int) -> list[int]:
        found = claims.claim(
            ledger, worker_id=f"w{worker}", queues=["gpu.generate"], limit=4, lease_seconds=LEASE, begin=True
        )
        return [c.stage_id for c in found]

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert [len(ids) for ids in taken] == [4] * 8
    assert len({stage_id for ids in taken for stage_id in ids}) == 32
    ledger.dispose()
