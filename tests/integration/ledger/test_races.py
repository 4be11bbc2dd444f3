"""What happens at the same moment: submits under one key, cancels against claims and publishing."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from sqlalchemy import func, select

from orchestrator.errors import ConflictError, FencedError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, claims, outcomes
from orchestrator.ledger.tables.rows import Batch, Item, Stage
from tests.integration.ledger.helpers import end, submit


def test_twenty_submits_under_one_key_at_once_make_one_batch(ledger: Ledger) -> None:
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(submit, ledger, 3, idempotency_key="monday", request_sha256="a" * 64) for _ in range(20)]

    assert len({answer.result() for answer in asked}) == 1
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(Batch)) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_cancel_that_races_with_the_work_ends_each_item_one_way(ledger: Ledger, seed: int) -> None:
    chance = random.Random(seed)
    made = [submit(ledger, 1) for _ in range(60)]

    def work() -> None:
        held = claims.claim(ledger, worker_id="w1", queues=["gpu.generate"], limit=1, lease_seconds=60)
        for c in claims.start(ledger, held):
            with suppress(FencedError):
                outcomes.publish(ledger, c, end)
        outcomes.confirm_cancel(ledger, held)

    def cancel(batch_id: str) -> None:
        with suppress(ConflictError):
            batches.cancel(ledger, "ann", batch_id)

    acts = [work] * 60 + [partial(cancel, batch_id) for batch_id in made]
    chance.shuffle(acts)
    with ThreadPoolExecutor(8) as pool:
        for act in [pool.submit(act) for act in acts]:
            act.result()

    with ledger.read() as session:
        states = Counter(session.scalars(select(Item.state)))
        held = session.scalar(select(func.count()).select_from(Stage).where(Stage.worker_id.is_not(None)))
        done = session.scalar(select(func.count()).select_from(Stage).where(Stage.state == "completed"))
    assert set(states) <= {"completed", "cancelled"}
    assert (states["completed"], held) == (done, 0)
