"""A batch in which too much goes wrong stops by itself, and a resume bears as much again."""

from __future__ import annotations

import pytest

from orchestrator.contracts.batches import BatchOptions
from orchestrator.errors import FpgaError
from orchestrator.ledger import audit
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, outcomes, sweeper
from orchestrator.settings import Settings
from tests.integration.ledger.helpers import batch, claim, end, expire, submit


def fail(ledger: Ledger, count: int) -> None:
    for _ in range(count):
        (held,) = claim(ledger)
        outcomes.fail(ledger, held, FpgaError("no", code="no_face"), max_failures=5, backoff_seconds=0)


def test_it_pauses_at_so_many_failures_and_a_resume_bears_as_many_again(ledger: Ledger) -> None:
    made = submit(ledger, 8, options={"stop_after": 2})
    fail(ledger, 1)
    assert batch(ledger, made).state == "in_progress"
    fail(ledger, 1)
    assert batch(ledger, made).state == "paused"
    assert "2 items went wrong" in str(batch(ledger, made).reason)
    assert claim(ledger) == []
    with ledger.read() as session:
        written = audit.last(session, made, "batch.pause")
        assert written is not None
        assert (written.actor, written.detail) == ("ann", {"went_wrong": 2, "stop_after": 2})
        assert audit.verify(session).broken is None

    batches.resume(ledger, "ann", made)
    fail(ledger, 1)
    assert batch(ledger, made).state == "in_progress"
    fail(ledger, 1)
    assert batch(ledger, made).state == "paused"


def test_without_the_option_every_item_is_tried(ledger: Ledger) -> None:
    made = submit(ledger, 3)
    fail(ledger, 2)
    (held,) = claim(ledger)
    outcomes.publish(ledger, held, end)

    assert batch(ledger, made).state == "completed_with_errors"


def test_the_last_failure_ends_the_batch(ledger: Ledger) -> None:
    made = submit(ledger, 2, options={"stop_after": 2})
    fail(ledger, 2)

    assert batch(ledger, made).state == "completed_with_errors"


def test_items_that_kill_their_workers_count_too(ledger: Ledger, settings: Settings) -> None:
    made = submit(ledger, 2, options={"stop_after": 1})
    (held,) = claim(ledger)
    expire(ledger, held)
    assert sweeper.sweep(ledger, settings).held == 1

    assert batch(ledger, made).state == "paused"


def test_a_retry_bears_as_many_again(ledger: Ledger) -> None:
    made = submit(ledger, 3, options={"stop_after": 1})
    fail(ledger, 1)
    batches.resume(ledger, "ann", made)
    fail(ledger, 1)
    batches.resume(ledger, "ann", made)
    fail(ledger, 1)
    again = batches.retry(ledger, "ann", made).batch_id

    kept = BatchOptions.load(batch(ledger, again).options)
    assert (kept.stop_after, kept.forgiven) == (1, 0)


@pytest.fixture
def settings(ledger: Ledger) -> Settings:
    return Settings(max_crashes=1)
