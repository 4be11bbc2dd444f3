"""Random interleavings of everything that may happen to a batch, held against a model in plain dictionaries.

Time does not pass by itself here: leases lapse, delays end and sweepers run when the machine decides so. Each of them
takes minutes, so that no run of the machine, however slow, sees one end by the clock.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from orchestrator.errors import ConflictError, FencedError, InputError, StoreUnavailableError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED, ENDED
from orchestrator.ledger.queue import batches, claims, outcomes, sweeper
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Output, Stage
from orchestrator.settings import Settings
from tests.integration.ledger.helpers import end, on, submit

OWNER = "ann"
LEASE, DELAY = 3600.0, 200.0
"""Seconds; a delay doubled once stays below the ten minutes after which the sweeper doubts the clock."""
WORKERS = ("w1", "w2", "w3")


class Lifecycle(RuleBasedStateMachine):
    """The rules are what clients, workers, the clock and the sweeper may do, in any order."""

    url: ClassVar[str]

    batches_made = Bundle("batches")
    held = Bundle("held")

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.fresh_url())
        self.settings = Settings(
            state_dir=self.folder, max_crashes=3, max_failures=3, lease_seconds=LEASE, stall_seconds=LEASE
        )
        self.published: dict[int, int] = {}
        """Stage id to the token that published it, as the machine saw it succeed."""

    def fresh_url(self) -> str:
        raise AssertionError("a database is chosen below")

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.dispose()
            shutil.rmtree(self.folder)

    @rule(target=batches_made, count=st.integers(1, 4), owner=st.sampled_from((OWNER, "bob")))
    def submit_batch(self, count: int, owner: str) -> tuple[str, str]:
        return submit(self.ledger, count, owner=owner), owner

    @rule(
        target=held,
        worker=st.sampled_from(WORKERS),
        queue=st.sampled_from(("gpu.generate", "cpu.io")),
        limit=st.integers(1, 3),
        started=st.booleans(),
    )
    def claim(self, worker: str, queue: str, limit: int, started: bool) -> object:
        found = claims.claim(self.ledger, worker_id=worker, queues=[queue], limit=limit, lease_seconds=LEASE)
        return multiple(*(claims.start(self.ledger, found) if started else found))

    @rule(target=held, c=held, worker=st.sampled_from(WORKERS))
    def lose_to_another(self, c: Claim, worker: str) -> object:
        """The whole story of a lost lease at once: it lapses, is swept, and somebody else gets the stage."""
        self.lapse(c)
        self.sweep()
        self.delays_end()
        queue = "gpu.generate" if c.name == "generate" else "cpu.io"
        return self.claim(worker, queue, 3, True)

    def _holds(self, c: Claim) -> bool:
        with self.ledger.read() as session:
            return session.scalar(select(Stage.token).where(Stage.id == c.stage_id)) == c.token

    @rule(c=held)
    def publish(self, c: Claim) -> None:
        held = self._holds(c)
        try:
            outcomes.publish(self.ledger, c, on if c.name == "generate" else end)
        except FencedError:
            return
        assert held, "a result was published under a token that had been lost"
        assert c.stage_id not in self.published, "a stage was published twice"
        self.published[c.stage_id] = c.token

    @rule(c=held, retryable=st.booleans())
    def fail(self, c: Claim, retryable: bool) -> None:
        held = self._holds(c)
        error = StoreUnavailableError("away") if retryable else InputError("bad", code="bad")
        try:
            outcomes.fail(self.ledger, c, error, max_failures=3, backoff_seconds=DELAY)
        except FencedError:
            return
        assert held, "a loser's late failure hit the live attempt"
        assert c.stage_id not in self.published, "a published stage was failed"

    @rule(c=consumes(held), alone=st.booleans())
    def release(self, c: Claim, alone: bool) -> None:
        outcomes.release(self.ledger, [c], alone=alone)

    @rule(c=held)
    def confirm_cancel(self, c: Claim) -> None:
        outcomes.confirm_cancel(self.ledger, [c])

    @rule(c=held, share=st.floats(0, 1))
    def beat(self, c: Claim, share: float) -> None:
        answer = claims.beat(
            self.ledger, [c], progress={c.stage_id: claims.Sign(count=1, share=share)}, lease_seconds=LEASE
        )
        if c.stage_id in self.published or not self._holds(c):
            assert answer.lost == {c.stage_id}

    @rule(c=held)
    def lapse(self, c: Claim) -> None:
        with self.ledger.write() as session:
            session.execute(
                update(Stage)
                .where(Stage.id == c.stage_id, Stage.token == c.token, Stage.lease_until.is_not(None))
                .values(lease_until=now(session) - timedelta(seconds=1))
            )

    @rule()
    def delays_end(self) -> None:
        with self.ledger.write() as session:
            session.execute(update(Stage).where(Stage.state == "queued").values(next_at=now(session)))

    @rule()
    def sweep(self) -> None:
        sweeper.sweep(self.ledger, self.settings)

    @rule(made=batches_made)
    def cancel(self, made: tuple[str, str]) -> None:
        self._allowed_to_conflict(lambda: batches.cancel(self.ledger, made[1], made[0]))

    @rule(made=batches_made)
    def pause(self, made: tuple[str, str]) -> None:
        self._allowed_to_conflict(lambda: batches.pause(self.ledger, made[1], made[0]))

    @rule(made=batches_made)
    def resume(self, made: tuple[str, str]) -> None:
        self._allowed_to_conflict(lambda: batches.resume(self.ledger, made[1], made[0]))

    def _allowed_to_conflict(self, act: Callable[[], object]) -> None:
        with suppress(ConflictError):
            act()

    @invariant()
    def the_ledger_holds_together(self) -> None:
        if not hasattr(self, "ledger"):
            return
        with self.ledger.read() as session:
            self._items_agree_with_their_stages(session)
            self._ended_batches_have_nothing_open(session)
            published = dict(
                session.execute(select(Attempt.stage_id, Attempt.token).where(Attempt.outcome == "completed"))
                .tuples()
                .all()
            )
            assert published == self.published
            assert session.scalar(select(func.count()).select_from(Output)) == 0

    def _items_agree_with_their_stages(self, session: Session) -> None:
        for item in session.scalars(select(Item)):
            stages = list(session.scalars(select(Stage).where(Stage.item_id == item.id).order_by(Stage.id)))
            last = stages[-1]
            assert all(stage.state == "completed" for stage in stages[:-1])
            assert item.state == last.state, f"item {item.state}, stage {last.name} {last.state}"
            assert (item.finished_at is not None) == (item.state in ENDED)
            assert last.crashes <= self.settings.max_crashes
            assert (last.worker_id is not None) == (last.state in ("leased", "running", "cancelling"))

    def _ended_batches_have_nothing_open(self, session: Session) -> None:
        for batch in session.scalars(select(Batch)):
            states = set(session.scalars(select(Item.state).where(Item.batch_id == batch.id)))
            if batch.state in BATCH_ENDED:
                assert states <= set(ENDED), f"{batch.state} with {states}"
                assert batch.finished_at is not None
            else:
                assert batch.finished_at is None


def machine(name: str, url: str) -> type[Lifecycle]:
    """Make the machine for one database."""

    def fresh_url(self: Lifecycle) -> str:
        if url.startswith("sqlite"):
            path = self.folder / "ledger.sqlite3"
            shutil.copy(url.removeprefix("sqlite:///"), path)
            return f"sqlite:///{path}"
        ledger = Ledger(url)
        with ledger.write() as session:  # the audit log may not be emptied
            for table in ("outbox", "attempt", "output", "stage", "item_identity", "item", "batch"):
                session.execute(Batch.metadata.tables[table].delete())
        ledger.dispose()
        return url

    return type(name, (Lifecycle,), {"fresh_url": fresh_url})


def run(url: str, examples: int) -> None:
    """Let the machine loose on a migrated database."""
    with mock.patch.object(sweeper, "CRASH_DELAY_SECONDS", DELAY):
        run_state_machine_as_test(
            machine("OnDatabase", url),
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_any_order_of_events_keeps_the_ledger_whole(migrated_sqlite: Path) -> None:
    run(f"sqlite:///{migrated_sqlite}", 15)


@pytest.mark.slow
def test_any_order_of_events_keeps_the_ledger_whole_at_length(migrated_sqlite: Path) -> None:
    run(f"sqlite:///{migrated_sqlite}", 600)


@pytest.mark.slow
def test_any_order_of_events_keeps_the_ledger_whole_on_postgresql(postgres_url: str) -> None:
    schema.upgrade(postgres_url)
    run(postgres_url, 50)
