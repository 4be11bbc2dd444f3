"""A day of a studio in virtual time: real batches, claims and publishes in a real ledger; only the computing is played.

Stages take the times of a table, scattered; what a worker holds, gives back and reports goes through the same doors as
a worker's. So whatever decides the order in the product decides it here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from sqlalchemy import update

from orchestrator import pipelines
from orchestrator.ledger.engine import session as clocked
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, claims, outcomes, workers
from orchestrator.ledger.queue.claims import Claim, Sign
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import Batch, Worker
from orchestrator.pipelines import CROWDED_SECONDS
from orchestrator.status.progress import outlook

BEGIN = datetime(2026, 11, 30, 20, tzinfo=UTC)
FOREVER = 1e7
GROUP = 8
EACH = {
    "generate": 0.55, "score": 0.06, "ingest": 0.2, "ingest_photo": 0.15, "restore": 2.4, "score_photo": 0.3,
    "publish_photo": 0.2, "annotate": 45.0, "evaluate": 200.0,
}  # fmt: skip
"""Seconds of one item; a group of drawings costs FIXED besides."""
FIXED = {"generate": 0.4, "restore": 0.5}
SPREAD = 0.2
Kind = str


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A batch that is submitted at a second of the trace; `cost` times as much work in a drawing as usual."""

    at: float
    owner: str
    kind: Kind
    count: int
    lane: str = "bulk"
    priority: int = 0
    cost: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was said of a batch at a second, and what came true; `said` is None for "not known yet"."""

    batch: str
    at: float
    said: float | None
    true: float


@dataclass
class _Job:
    held: Sequence[Claim]
    seconds: float
    since: float
    """When it was begun, or went on after it had made room."""
    done: float = 0.0
    room: float | None = None
    """When it makes room for others."""

    @property
    def ends(self) -> float:
        return self.since + self.seconds - self.done if self.room is None else self.room

    def share(self, now: float) -> float:
        return (self.done + now - self.since) / self.seconds


@dataclass
class Trace:
    """One ledger, its workers by name with their queues, and the clock that all of them read."""

    ledger: Ledger
    monkeypatch: pytest.MonkeyPatch
    seed: int
    queues: Sequence[Sequence[str]]
    look_seconds: float = 15.0
    now: float = 0.0
    costs: dict[str, float] = field(default_factory=dict)
    arrived: dict[str, tuple[float, Arrival]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the clock over."""
        self.dice = random.Random(self.seed)
        trace = self

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return BEGIN + timedelta(seconds=trace.now)

        self.monkeypatch.setattr(clocked, "datetime", Clock)
        self.workers = [
            workers.register(self.ledger, owner="local", device="cpu", queues=list(queues)) for queues in self.queues
        ]
        self.jobs: dict[int, _Job] = {}
        self.aside: dict[int, tuple[_Job, Sequence[str], float]] = {}
        """What made room, by worker: for which lanes, and until when."""
        self.lanes: dict[int, Sequence[str]] = {}

    def play(self, arrivals: Sequence[Arrival], *, judge: bool = True) -> list[Judged]:
        """Play until everything has ended; return every estimate that was given on the way with what came true."""
        first = self.now
        coming = sorted(arrivals, key=lambda one: one.at)
        said: list[tuple[str, float, float | None]] = []
        next_look = first + self.look_seconds / 2
        while True:
            self._let_work()
            times = [job.ends for job in self.jobs.values()]
            times += [first + coming[0].at] if coming else []
            if not times:
                break
            self.now = max(self.now, min([*times, next_look] if judge else times))
            while coming and first + coming[0].at <= self.now:
                self._submit(coming.pop(0))
            if judge and self.now >= next_look:
                said += self._look()
                next_look += self.look_seconds
            for number in [n for n, job in self.jobs.items() if job.ends <= self.now]:
                self._end(number, self.jobs.pop(number))
        with self.ledger.read() as session:
            ends = {
                batch_id: (batch.finished_at - BEGIN).total_seconds()
                for batch_id in self.arrived
                if (batch := session.get_one(Batch, batch_id)).finished_at is not None
            }
        return [
            Judged(batch=batch_id, at=at - first, said=eta, true=ends[batch_id] - at)
            for batch_id, at, eta in said
            if batch_id in ends
        ]

    def _submit(self, one: Arrival) -> None:
        items = [
            batches.NewItem(custom_id=f"c{n}", params={}, params_sha256=f"{n:064d}", seed=n, cost=one.cost)
            for n in range(one.count)
        ]
        new = batches.NewBatch(
            owner=one.owner, kind=one.kind, name=one.kind, preset="mini", items=items, lane=one.lane,
            priority=one.priority, flow=False,
        )  # fmt: skip
        made = batches.submit(self.ledger, new).batch_id
        self.costs[made], self.arrived[made] = one.cost, (self.now, one)

    def _let_work(self) -> None:
        for number in range(len(self.workers)):
            if number not in self.jobs:
                self._next(number)
        for number, job in self.jobs.items():
            if number not in self.aside:
                self._ask(number, job)

    def _next(self, number: int) -> None:
        """Give a worker what it would claim, or let it go on with what made room for others."""
        waits, lanes, until = self.aside.get(number, (None, (), math.inf))
        held: Sequence[Claim] = ()
        if self.now < until:
            held = claims.claim(
                self.ledger,
                worker_id=self.workers[number],
                queues=self.queues[number],
                limit=GROUP,
                lease_seconds=FOREVER,
                begin=True,
                brief=lanes,
            )
        if held:
            self.jobs[number] = self._job(held)
        elif waits is not None:
            del self.aside[number]
            claims.step_back(self.ledger, waits.held[0], self.now - waits.since)
            self.jobs[number] = replace(waits, since=self.now, room=None)

    def _job(self, held: Sequence[Claim]) -> _Job:
        first = held[0]
        scatter = self.dice.lognormvariate(0, SPREAD)
        cost = self.costs[first.batch_id] if first.name in ("generate", "restore") else 1.0
        seconds = (FIXED.get(first.name, 0.0) + EACH[first.name] * len(held)) * cost * scatter
        return _Job(held, seconds, self.now)

    def _ask(self, number: int, job: _Job) -> None:
        """Note when long work makes room for others, if they are due."""
        if not pipelines.stages()[job.held[0].name].gives_way:
            return
        job.room = None
        crowded = max(self.now, job.since + CROWDED_SECONDS)
        for lanes, at in ((("interactive", "bulk"), crowded), (("interactive",), self.now + 1.0)):
            if at < job.ends and claims.wanted(self.ledger, queues=self.queues[number], lanes=lanes):
                job.room, self.lanes[number] = at, lanes

    def _end(self, number: int, job: _Job) -> None:
        if job.room is None:
            outcomes.publish_all(self.ledger, [(c, Outcome()) for c in job.held])
            return
        claims.step_aside(self.ledger, job.held[0])
        most = claims.AGEING_SECONDS if job.held[0].lane == "training" else CROWDED_SECONDS
        paused = replace(job, done=job.done + self.now - job.since, since=self.now)
        self.aside[number] = (paused, self.lanes[number], self.now + most)

    def _look(self) -> list[tuple[str, float, float | None]]:
        for number, job in self.jobs.items():
            signs = {c.stage_id: Sign(count=1, share=job.share(self.now)) for c in job.held}
            if number % 2 == 0 or number in self.aside or job.seconds > 40:  # not every stage tells how far it is
                claims.beat(self.ledger, job.held, progress=signs, lease_seconds=FOREVER)
        for job, _, _ in self.aside.values():
            sign = Sign(count=2, share=job.done / job.seconds)
            claims.beat(self.ledger, job.held, progress={job.held[0].stage_id: sign}, lease_seconds=FOREVER)
        with self.ledger.write() as session:
            session.execute(update(Worker).values(heartbeat_at=BEGIN + timedelta(seconds=self.now), state="ready"))
        with self.ledger.read() as session:
            ahead = outlook(session, BEGIN + timedelta(seconds=self.now))
        etas = {one.id: ahead.etas.get(one.id) for one in ahead.queue.batches}
        return [(batch_id, self.now, eta.p50 if eta else None) for batch_id, eta in etas.items()]
