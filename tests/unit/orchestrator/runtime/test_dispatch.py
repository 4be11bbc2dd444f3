"""What leaves the ledger when Prefect is absent, away or unwilling: batches go on, effects wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from orchestrator.errors import TransientError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows import Batch, Outbox
from orchestrator.runtime.dispatch import deliver, start_flow
from orchestrator.settings import Settings

NOBODY = "http://127.0.0.1:9/api"
"""The discard port: nothing listens there."""


def submit(ledger: Ledger, kind: str = "generate", items: int = 1) -> str:
    made = [NewItem(custom_id=f"i{n}", params={}, params_sha256="0" * 64, seed=n) for n in range(items)]
    new = NewBatch(owner="local", kind=kind, name="test", preset="mini", items=made)
    return batches.submit(ledger, new).batch_id


def effects(ledger: Ledger) -> dict[str, Outbox]:
    with ledger.read() as session:
        return {row.kind: row for row in session.scalars(select(Outbox))}


def test_without_a_prefect_server_flow_runs_wait_untried(ledger: Ledger, settings: Settings) -> None:
    submit(ledger)
    assert deliver(ledger, settings) == 0
    assert (effects(ledger)["flow.start"].tries, effects(ledger)["flow.start"].sent_at) == (0, None)


def test_a_prefect_server_that_does_not_answer_postpones_the_flow_run(ledger: Ledger, settings: Settings) -> None:
    submit(ledger)
    away = Settings(state_dir=settings.state_dir, prefect_api_url=NOBODY)

    assert deliver(ledger, away) == 0

    row = effects(ledger)["flow.start"]
    assert (row.tries, row.sent_at) == (1, None)
    assert row.error is not None
    assert "Prefect cannot be reached" in row.error
    assert row.next_at > datetime.now(UTC) + timedelta(seconds=3)
    assert deliver(ledger, away) == 0, "it is not due yet"
    assert effects(ledger)["flow.start"].tries == 1


def test_the_end_of_a_batch_is_delivered_though_prefect_is_away(ledger: Ledger, settings: Settings) -> None:
    submit(ledger, items=0)
    assert deliver(ledger, settings) == 1
    assert effects(ledger)["batch.ended"].sent_at is not None


def test_kinds_without_a_flow_are_settled_at_once(ledger: Ledger, settings: Settings) -> None:
    submit(ledger, kind="enrol")
    assert deliver(ledger, Settings(state_dir=settings.state_dir, prefect_api_url=NOBODY)) == 1


def test_a_batch_that_ended_long_ago_gets_no_flow_run_any_more(ledger: Ledger, settings: Settings) -> None:
    batch_id = submit(ledger, items=0)
    with ledger.write() as session:
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        session.execute(update(Batch).where(Batch.id == batch_id).values(finished_at=long_ago))
    assert deliver(ledger, Settings(state_dir=settings.state_dir, prefect_api_url=NOBODY)) == 2
    assert effects(ledger)["flow.start"].sent_at is not None


def test_starting_a_flow_without_any_server_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(TransientError, match="fpga up"):
        start_flow(settings, "bat_1", "generate")
