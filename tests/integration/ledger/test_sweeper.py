"""The sweeper: what lost its worker comes back, what kills workers is held, and one leader at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from orchestrator.errors import FencedError
from orchestrator.ledger import artifacts
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches, claims, outcomes, sweeper, wakeups, workers
from orchestrator.ledger.tables.rows import Artifact, Attempt, Leader, Wakeup, Worker
from orchestrator.runtime.broker import Bell
from orchestrator.runtime.sweeping import Sweeper
from orchestrator.settings import Settings
from tests.integration.ledger.helpers import batch, claim, end, expire, item_of, let_time_pass, on, stage_of, submit


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, max_crashes=3)


def test_a_lapsed_lease_of_a_group_puts_all_of_it_back_under_suspicion_without_a_strike(
    ledger: Ledger, settings: Settings
) -> None:
    submit(ledger, 2)
    held = claim(ledger, limit=2)
    for c in held:
        expire(ledger, c)

    swept = sweeper.sweep(ledger, settings)

    assert (swept.requeued, swept.held) == (2, 0)
    for c in held:
        stage = stage_of(ledger, c)
        assert (stage.state, stage.crashes, stage.alone, stage.token) == ("queued", 0, True, 2)
        assert item_of(ledger, c).error_code == "worker_lost"
    with pytest.raises(FencedError):
        outcomes.publish(ledger, held[0], end)


def test_an_item_that_kills_its_worker_three_times_alone_is_held(ledger: Ledger, settings: Settings) -> None:
    batch_id = submit(ledger)
    for strikes in (1, 2, 3):
        [c] = claim(ledger)
        expire(ledger, c)
        sweeper.sweep(ledger, settings)
        assert stage_of(ledger, c).crashes == strikes
        let_time_pass(ledger, 60)

    assert item_of(ledger, c).state == "held"
    assert "3 times" in (item_of(ledger, c).error_message or "")
    assert claim(ledger) == []
    assert batch(ledger, batch_id).state == "completed_with_errors"


def test_a_lease_that_is_alive_is_left_alone(ledger: Ledger, settings: Settings) -> None:
    submit(ledger)
    [c] = claim(ledger)

    swept = sweeper.sweep(ledger, settings)

    assert swept.requeued == 0
    outcomes.publish(ledger, c, end)


def test_a_worker_without_progress_loses_its_item_although_its_lease_is_fresh(
    ledger: Ledger, settings: Settings
) -> None:
    submit(ledger)
    [c] = claim(ledger)
    let_time_pass(ledger, settings.stall_seconds + 1)
    claims.beat(ledger, [c], progress={c.stage_id: claims.Sign()}, lease_seconds=60)

    sweeper.sweep(ledger, settings)

    with ledger.read() as session:
        assert session.scalars(select(Attempt.outcome)).all() == ["stalled"]
    assert stage_of(ledger, c).state == "queued"


def test_the_dead_of_this_host_are_found_without_waiting_for_their_leases(ledger: Ledger, settings: Settings) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    worker_id = workers.register(ledger, owner="ann", device="cpu", queues=["gpu.generate"])
    with ledger.write() as session:
        session.execute(update(Worker).where(Worker.id == worker_id).values(pid=gone.pid))
    submit(ledger)
    [c] = claim(ledger, worker=worker_id)

    swept = sweeper.sweep(ledger, settings)

    assert swept.requeued == 1
    assert stage_of(ledger, c).state == "queued"
    with ledger.read() as session:
        assert session.get_one(Worker, worker_id).state == "gone"


def test_a_cancel_whose_worker_died_ends_as_cancelled(ledger: Ledger, settings: Settings) -> None:
    batch_id = submit(ledger)
    [c] = claim(ledger)
    batches.cancel(ledger, "ann", batch_id)
    expire(ledger, c)

    swept = sweeper.sweep(ledger, settings)

    assert swept.cancelled == 1
    assert batch(ledger, batch_id).state == "cancelled"


def test_one_leader_at_a_time_and_a_silent_one_is_replaced(ledger: Ledger) -> None:
    def lead(holder: str, seconds: float = 30) -> bool:
        return sweeper.lead(ledger, holder=holder, owner="ann", seconds=seconds)

    assert lead("a")
    assert lead("a"), "the leader renews"
    assert not lead("b")
    assert lead("a", seconds=-1)
    assert lead("b")


def test_a_clock_that_is_turned_back_delays_nothing(ledger: Ledger, settings: Settings) -> None:
    submit(ledger, 2)
    [lost] = claim(ledger)
    assert sweeper.lead(ledger, holder="before", owner="ann", seconds=30)
    worker_id = workers.register(ledger, owner="ann", device="cpu", queues=["gpu.generate"])
    workers.beat(ledger, worker_id, state="ready")
    assert wakeups.ring(ledger, lambda *_: None, ttl_seconds=30) == 1
    let_time_pass(ledger, -7200)
    with ledger.write() as session:
        session.execute(update(Leader).values(lease_until=now(session) + timedelta(hours=2)))
    assert claim(ledger) == []

    assert sweeper.lead(ledger, holder="after", owner="ann", seconds=30)
    sweeper.sweep(ledger, settings)

    assert wakeups.ring(ledger, lambda *_: None, ttl_seconds=30) == 1
    [other] = claim(ledger)
    assert other.item_id != lost.item_id
    until = stage_of(ledger, lost).lease_until
    assert until is not None
    with ledger.read() as session:
        assert until <= now(session) + timedelta(seconds=settings.lease_seconds)


def test_bytes_without_a_reference_expire_and_referred_ones_do_not(ledger: Ledger) -> None:
    def reserve(sha: str) -> str:
        return artifacts.reserve(ledger, owner="ann", sha256=sha, key=f"k/{sha}", size=1, media_type="image/png")

    kept, lost = reserve("a" * 64), reserve("b" * 64)
    with ledger.write() as session:
        artifacts.confirm(session, kept)
        session.execute(
            update(Artifact).where(Artifact.id == lost).values(expires_at=now(session) - timedelta(seconds=1))
        )

    assert sweeper.expired_artifacts(ledger) == [(lost, f"k/{'b' * 64}")]
    with pytest.raises(Exception, match="is being deleted"):
        reserve("b" * 64)
    sweeper.artifacts_deleted(ledger, [lost])

    artifacts.came_late(ledger, [kept, lost])
    assert sweeper.expired_artifacts(ledger) == [(lost, f"k/{'b' * 64}")], "put after it had been cleaned up"
    sweeper.artifacts_deleted(ledger, [lost])

    assert reserve("b" * 64) == lost
    assert reserve("a" * 64) == kept


def test_messages_are_bounded_by_the_living_workers_however_long_these_are_busy(ledger: Ledger) -> None:
    submit(ledger, 50)
    sent: list[tuple[str, dict[str, object]]] = []

    def ring() -> int:
        return wakeups.ring(ledger, lambda queue, body: sent.append((queue, body)), ttl_seconds=900)

    assert ring() == 0, "nobody listens"
    worker_id = workers.register(ledger, owner="ann", device="cpu", queues=["gpu.generate", "cpu.io"])
    workers.beat(ledger, worker_id, state="ready")
    assert (ring(), ring()) == (2, 0)
    assert {queue for queue, _ in sent} == {"gpu.generate"}
    assert set(sent[0][1]) == {"v", "queue", "stage_id"}

    for c in claim(ledger, limit=50):  # the backlog falls, and nobody takes a message: not one more is sent
        outcomes.publish(ledger, c, on)
        assert ring() == 0
    wakeups.taken(ledger, int(str(sent[0][1]["stage_id"])))
    assert (ring(), ring()) == (1, 0)
    assert sent[-1][0] == "cpu.io"
    wakeups.lost(ledger, ["gpu.generate", "cpu.io"])
    assert (ring(), ring()) == (2, 0)


@pytest.mark.parametrize("age", [901, -7200])
def test_a_message_that_nobody_takes_is_sent_again(ledger: Ledger, age: int) -> None:
    submit(ledger)
    worker_id = workers.register(ledger, owner="ann", device="cpu", queues=["gpu.generate"])
    workers.beat(ledger, worker_id, state="ready")
    assert len(wakeups.take(ledger, ttl_seconds=900)) == 1
    with ledger.write() as session:  # the second was sent before the clock was turned back
        session.execute(update(Wakeup).values(sent_at=now(session) - timedelta(seconds=age)))
    assert len(wakeups.take(ledger, ttl_seconds=900)) == 1


def test_what_waits_in_a_paused_batch_wakes_nobody(ledger: Ledger) -> None:
    batches.pause(ledger, "ann", submit(ledger, 20))
    worker_id = workers.register(ledger, owner="ann", device="cpu", queues=["gpu.generate"])
    workers.beat(ledger, worker_id, state="ready")
    assert wakeups.take(ledger, ttl_seconds=900) == []


def test_a_new_batch_is_announced_without_waiting_for_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state_dir=tmp_path / "state", sweep_seconds=60, ring_seconds=0.05)
    schema.upgrade(settings.database_url)
    ledger = Ledger(settings.database_url)
    worker_id = workers.register(ledger, owner="ann", device="cpu", queues=["gpu.generate"])
    workers.beat(ledger, worker_id, state="ready")
    swept, announced, stop = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(Bell, "send", lambda *_: announced.set())
    sweep = Sweeper.round
    monkeypatch.setattr(Sweeper, "round", lambda self: (sweep(self), swept.set()))
    thread = threading.Thread(target=Sweeper(settings).run, args=(stop,))
    thread.start()
    try:
        assert swept.wait(60)
        submit(ledger, 1)
        assert announced.wait(20)
    finally:
        stop.set()
        thread.join()
        ledger.dispose()


def test_a_request_is_noticed_once_and_other_commits_are_none(ledger: Ledger) -> None:
    requests = wakeups.Requests(ledger)
    requests.came()
    assert not requests.came()

    submit(ledger)
    assert requests.came()
    assert not requests.came()
    workers.register(ledger, owner="o", device="cpu", queues=["cpu.io"])
    assert not requests.came()
    submit(ledger)
    assert requests.came()
    ledger.dispose()
