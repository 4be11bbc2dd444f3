"""The thread that records results: together where it can, one by one where it must, never more than a few behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from orchestrator.errors import StageError, StoreUnavailableError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import outcomes
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import Artifact, Stage
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store
from tests.integration.ledger.helpers import batch, claim, item_of, row, stage_of, submit
from workers.runtime.lease import Lease
from workers.runtime.metrics import WorkerMetrics
from workers.runtime.publishing import Publisher
from workers.runtime.stage import upload

GROUP = 4


class Rig:
    """A publisher with all that it needs, and the sizes of its transactions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(state_dir=folder, group_size=GROUP)
        schema.upgrade(settings.database_url)
        self.ledger, self.store = Ledger(settings.database_url), open_store(settings)
        self.lease = Lease(self.ledger, settings)
        self.publisher = Publisher(self.ledger, self.store, settings, self.lease, WorkerMetrics())
        self.go = threading.Event()
        self.sizes: list[int] = []
        publish_all = outcomes.publish_all

        def counted(ledger: Ledger, finished: list[tuple[Claim, Outcome]]) -> list[Claim]:
            assert self.go.wait(30)
            self.sizes.append(len(finished))
            return publish_all(ledger, finished)

        monkeypatch.setattr(outcomes, "publish_all", counted)

    def claim(self, count: int) -> list[Claim]:
        """Claim items of one batch as a worker does, and hold their leases."""
        submit(self.ledger, count)
        held = claim(self.ledger, limit=count)
        self.lease.hold(held)
        return held


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path, monkeypatch)
    yield made
    made.go.set()
    made.publisher.round()  # what is still held would end this process as stalled
    made.ledger.dispose()


def done(c: Claim) -> Outcome:
    return Outcome(then="end", uploads=[upload(c, f"of {c.item_id}".encode(), ".bin", "text/plain")])


def stored(store: ByteStore) -> int:
    return sum(1 for _ in store.list())


def test_what_waits_is_recorded_in_one_transaction_with_its_bytes_and_then_the_leases_end(rig: Rig) -> None:
    held = rig.claim(GROUP)
    for c in held:
        rig.publisher.hand(c, done(c))
    rig.go.set()
    rig.publisher.begin()
    rig.publisher.flush()

    assert rig.sizes == [GROUP]
    assert {item_of(rig.ledger, c).state for c in held} == {"completed"}
    assert batch(rig.ledger, held[0].batch_id).state == "completed"
    assert stored(rig.store) == GROUP
    assert not rig.lease.held
    for c in held:
        result = stage_of(rig.ledger, c).result
        assert result is not None
        assert row(rig.ledger, Artifact, id=result["artifacts"][0]).state == "live"


def test_a_result_that_cannot_be_recorded_fails_by_itself(rig: Rig) -> None:
    first, bad, odd, last = rig.claim(4)

    def refuse(_: Session, __: datetime) -> None:
        raise StageError("this one is wrong", code="wrong")

    def stumble(_: Session, __: datetime) -> None:
        raise KeyError("nobody thought of this")

    rig.publisher.hand(first, done(first))
    rig.publisher.hand(bad, Outcome(write=refuse))
    rig.publisher.hand(odd, Outcome(write=stumble))
    rig.publisher.hand(last, done(last))
    rig.go.set()
    rig.publisher.round()

    assert rig.sizes == [4, 1, 1, 1, 1]
    assert [item_of(rig.ledger, c).error_code for c in (first, bad, odd, last)] == [None, "wrong", "internal", None]
    assert batch(rig.ledger, first.batch_id).state == "completed_with_errors"


def test_a_full_store_pauses_the_batch_and_gives_the_item_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (c,) = rig.claim(1)

    def full(*_: object, **__: object) -> None:
        raise StoreUnavailableError("store is full", code="store_full")

    monkeypatch.setattr(rig.store, "put", full)
    rig.publisher.hand(c, done(c))
    rig.publisher.round()

    assert batch(rig.ledger, c.batch_id).state == "paused"
    assert row(rig.ledger, Stage, id=c.stage_id).state == "queued"


def test_who_computes_waits_when_two_groups_are_still_to_be_recorded(rig: Rig) -> None:
    held = rig.claim(2 * GROUP + 1)
    for c in held[:-1]:
        rig.publisher.hand(c, done(c))
    over = threading.Event()
    threading.Thread(target=lambda: (rig.publisher.hand(held[-1], done(held[-1])), over.set()), daemon=True).start()

    assert not over.wait(0.3)
    rig.go.set()
    rig.publisher.round()
    assert over.wait(30)
