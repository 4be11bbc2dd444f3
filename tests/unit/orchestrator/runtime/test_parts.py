"""What is down is one sentence, the same for doctor, Home, the list of schedules and receivers of events."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from orchestrator.contracts.photos import RestoreOptions
from orchestrator.ledger import photos, webhooks
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, sweeper
from orchestrator.ledger.queue.batches import NewBatch
from orchestrator.ledger.tables.rows import Leader, Outbox
from orchestrator.ledger.tables.rows_api import Delivery
from orchestrator.photos import restore
from orchestrator.runtime import parts
from orchestrator.runtime.parts import Teller, down
from orchestrator.runtime.running import announce, find_running
from orchestrator.settings import Settings, get_settings
from orchestrator.status import doctor

PAST = datetime.now(UTC) - timedelta(hours=1)


def led(ledger: Ledger) -> None:
    assert sweeper.lead(ledger, holder="here", owner="local", seconds=60)


def names(ledger: Ledger, settings: Settings) -> list[str]:
    return [one.part for one in down(ledger, settings)]


def test_a_sweeper_that_went_away_is_down_and_one_that_nobody_started_is_not(
    ledger: Ledger, settings: Settings
) -> None:
    assert names(ledger, settings) == []
    led(ledger)
    assert names(ledger, settings) == []
    with ledger.write() as session:
        session.execute(update(Leader).values(lease_until=PAST))
    assert names(ledger, settings) == ["sweeper"]
    found = {check.name: check for check in doctor.examine(settings, device=False)}
    assert found["sweeper"].status == "warn"


def test_a_child_that_was_given_up_is_down_until_the_stack_says_otherwise(ledger: Ledger, settings: Settings) -> None:
    led(ledger)
    announce(settings, down={"prefect-worker": "prefect-worker ended 5 times within 60 s; its log ends with: refused"})
    running = find_running(settings)
    assert running is not None
    assert running.pid == os.getpid()

    (one,) = down(ledger, settings)

    assert (one.part, one.sentence.endswith("refused")) == ("prefect-worker", True)
    assert "prefect-worker" in [check.name for check in doctor.examine(settings, device=False)]
    announce(settings)
    assert names(ledger, settings) == []


def test_flow_runs_that_cannot_be_shown_and_archives_that_nobody_reads_are_told(
    ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    led(ledger)
    batches.submit(ledger, NewBatch(owner="local", kind="generate", name="t", preset="mini", items=[], paused=True))
    (tmp_path / "album").mkdir()
    options = RestoreOptions(unknown="cluster", attested="rendered")
    restore.submit(ledger, settings, source=str(tmp_path / "album"), options=options, owner="local")
    assert names(ledger, settings) == []

    with ledger.write() as session:
        session.execute(update(Outbox).values(created_at=PAST))
        session.execute(update(Outbox).where(Outbox.kind == "flow.start").values(tries=1, error="401"))

    assert names(ledger, settings) == ["feeder", "prefect-server"]
    with ledger.write() as session:
        session.execute(update(Outbox).where(Outbox.kind == photos.SERVE).values(sent_at=PAST))
    assert names(ledger, settings) == ["prefect-server"]


def test_an_event_tells_once_of_what_went_down_and_once_of_what_came_back(ledger: Ledger, settings: Settings) -> None:
    receiver = {"webhook_id": "whk_1", "owner": "local", "url": "https://example.org", "data_key": "k", "secret": "s"}
    webhooks.add(ledger, events=parts.EVENTS, **receiver)
    teller = Teller(ledger, settings)
    led(ledger)
    for lost in ({}, {"api": "api ended"}, {"api": "api ended"}, {}):
        announce(settings, down=lost)
        teller.look()

    with ledger.read() as session:
        told = [row.event for row in session.scalars(select(Delivery).order_by(Delivery.id))]
    assert told == ["part.down", "part.up"]


def test_what_goes_to_this_machine_goes_past_a_proxy_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "intra.example")
    monkeypatch.delenv("no_proxy", raising=False)
    get_settings.cache_clear()
    try:
        get_settings()
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "intra.example,127.0.0.1,localhost,::1"
    finally:
        get_settings.cache_clear()
