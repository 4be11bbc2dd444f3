"""What is held is released or given up by a person, and only where the batch can still go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConflictError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import claims, outcomes, quarantine, sweeper
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.settings import Settings
from tests.integration.ledger.helpers import batch, claim, end, expire, item_of, stage_of, submit


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, max_crashes=1)


def hold(ledger: Ledger, settings: Settings, queue: str = "gpu.generate") -> claims.Claim:
    """Let a worker die of the one stage that is due next."""
    (c,) = claim(ledger, queue=queue)
    expire(ledger, c)
    sweeper.sweep(ledger, settings)
    assert item_of(ledger, c).state == "held"
    return c


def test_a_released_item_is_worked_on_alone_and_ends_the_batch_again(ledger: Ledger, settings: Settings) -> None:
    batch_id = submit(ledger)
    c = hold(ledger, settings)
    assert batch(ledger, batch_id).state == "completed_with_errors"

    assert quarantine.release(ledger, "ann", batch_id, reason="looked at") == [c.item_id]

    assert (batch(ledger, batch_id).state, batch(ledger, batch_id).finished_at) == ("in_progress", None)
    assert (stage_of(ledger, c).crashes, stage_of(ledger, c).alone) == (0, True)
    (again,) = claim(ledger, limit=2)
    outcomes.publish(ledger, again, end)
    assert batch(ledger, batch_id).state == "completed"
    with pytest.raises(ConflictError, match="no item"):
        quarantine.release(ledger, "ann", batch_id, reason="looked at")


def test_a_batch_whose_end_had_consequences_is_not_opened_again(ledger: Ledger, settings: Settings) -> None:
    batch_id = submit(ledger, kind="train")
    c = hold(ledger, settings, "gpu.train")

    with pytest.raises(ConflictError, match="retry it"):
        quarantine.release(ledger, "ann", batch_id, reason="looked at")

    assert quarantine.reject(ledger, "ann", batch_id, reason="looked at") == [c.item_id]
    assert item_of(ledger, c).state == "cancelled"


def test_a_photo_that_missed_the_gathering_of_its_archive_is_not_left_waiting(
    ledger: Ledger, settings: Settings
) -> None:
    batch_id = submit(ledger, 2, kind=photos.KIND, options={"cluster": True})
    hold(ledger, settings, "cpu.io")
    (other,) = claim(ledger, queue="cpu.io")
    outcomes.publish(ledger, other, Outcome(then="wait"))
    with ledger.write() as session:
        photos.gather(session, batch_id, now(session))
    (gathering,) = claim(ledger, queue="cpu.io")
    outcomes.publish(ledger, gathering, end)

    with pytest.raises(ConflictError, match="brought together without"):
        quarantine.release(ledger, "ann", batch_id, reason="looked at")
