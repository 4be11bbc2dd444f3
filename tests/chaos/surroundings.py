"""What is done to database, store, disk and network."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from orchestrator.ledger.engine.session import now
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch, Stage, Worker
from tests.chaos.deployment import Deployment
from tests.chaos.run import Run
from tests.integration.workers.rig import OWNER
from tests.services.tcp_proxy import CALM, Weather

ITEMS_A_SECOND, AT_ONCE = 1.0, 5
"""Pace of submits over a bad network."""
MOST_IDLE_SECONDS = 90.0


def database_restarts(run: Run) -> None:
    """PostgreSQL restarted the immediate way, sessions ended by an administrator, connections cut inside commits."""
    d, server, line = run.deployment, run.ground.postgres, run.ground.line
    assert server is not None, "SQLite has no server"
    assert line is not None, "PostgreSQL is reached through a proxy"
    line.cut_commits = 0.02
    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND usename = 'postgres'"
    )

    def spoil() -> None:
        d.story.database_faults += 1
        if run.dice.random() < 0.4:
            server.kill()
            server.start()
        else:
            server.execute(terminate)

    run.disturb(spoil)
    line.cut_commits = 0.0
    run.notes["connections cut in commits"] = line.cuts


def store_faults(run: Run) -> None:
    """A fifth of all requests to the byte store fail: 500, 503, cut, spoiled, or the answer is lost after success.

    Nothing is spoiled on the way up: unlike a real store, moto keeps what does not have the digest sent along.
    """
    proxy = run.ground.store
    assert proxy is not None, "the store is behind a proxy"
    kinds = (500, 503, "cut", "flip", "lose")
    proxy.rule = lambda _: run.dice.choice(kinds) if run.dice.random() < 0.2 else "pass"  # type: ignore[return-value,arg-type]  # one of the rule's words
    run.deployment.wait_ended(run.submit(), 600)
    proxy.rule = lambda _: "pass"
    run.deployment.story.store_faults = len(proxy.seen)


def full_disk(run: Run) -> None:
    """The byte store's file system runs full; the batch pauses saying so, and goes on when there is room again."""
    d = run.deployment
    ballast = Path(d.settings.store_url.removeprefix("file://")) / "ballast"
    batch_id = run.submit()
    d.wait(lambda: d.done(batch_id) >= run.size.items // 4, "some are done", 120)
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    d.wait(lambda: d.state(batch_id) == "paused", "the batch is paused", 60)
    with d.ledger.read() as session:
        run.notes["reason"] = batches.get(session, OWNER, batch_id).reason
    ballast.unlink()
    batches.resume(d.ledger, OWNER, batch_id)
    d.wait_ended(batch_id, 300)


def bad_network(run: Run) -> None:
    """Database, broker and store answer late or not at all, and connections end, while items come in at a pace.

    A round trip takes 200 ms +- 100; a transaction is ten to thirty pieces of data, so that about one in ten is cut.
    """
    d, lines = run.deployment, run.ground.lines
    longest = 30.0 if run.size.items > 100 else 6.0
    storm = Weather(
        delay=(0.05, 0.15),
        stalls=0.01,
        stall=(0.5, 3.0),
        resets=0.005,
        silences=0.001,
        silence=(1.0, longest),
    )
    for line in lines:
        line.weather = storm
    began, idle = time.monotonic(), Idle()
    while run.submitted < run.size.items or not all(map(d.ended, run.batches)):
        if time.monotonic() - began > run.submitted / ITEMS_A_SECOND and run.submitted < run.size.items:
            run.submit(AT_ONCE)
        idle.look(d)
        assert time.monotonic() - began < 120 + 4 * run.size.items / ITEMS_A_SECOND, "it does not get anywhere"
        time.sleep(0.25)
    for line in lines:
        line.weather = CALM
    run.notes |= {
        "seconds of it": round(time.monotonic() - began),
        "connections reset": sum(line.resets for line in lines),
        "fallen silent": sum(line.silences for line in lines),
        "stalls": sum(line.stalls for line in lines),
        "a worker idle beside waiting work at most, s": round(idle.longest, 1),
    }
    assert idle.longest < MOST_IDLE_SECONDS, f"a worker idled for {idle.longest:.0f} s while work waited"


@dataclass
class Idle:
    """For how long a living worker held nothing while work waited."""

    longest: float = 0.0
    _since: dict[str, float] = field(default_factory=dict)

    def look(self, d: Deployment) -> None:
        """Look at the ledger now."""
        moment, pids = time.monotonic(), set(d.pids())
        with d.ledger.read() as session:
            due = select(Stage.id).join(Batch, Batch.id == Stage.batch_id)
            due = due.where(Stage.state == "queued", Stage.next_at <= now(session), Batch.state == "in_progress")
            waits = session.scalar(due.limit(1)) is not None
            busy = set(session.scalars(select(Stage.worker_id).where(Stage.worker_id.is_not(None))))
            living = {
                row.id for row in session.scalars(select(Worker).where(Worker.state == "ready", Worker.pid.in_(pids)))
            }
        self._since = {one: self._since.get(one, moment) for one in living - busy} if waits else {}
        self.longest = max([self.longest, *(moment - since for since in self._since.values())])
