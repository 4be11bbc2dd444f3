"""When each open batch will be done: the claims that are to come, played forward over the queue as it stands.

The whole way is counted, waiting included: workers take groups in the order in which the ledger gives them out (lane,
priority, ageing, owner, the stage nearest to the end), each as long as its like took lately. What is submitted later
is not known. Where something that nobody measured stands in the way, there is no estimate.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.ledger.queue.claims import AGEING_SECONDS, LANES
from orchestrator.ledger.views.standing import Group, Hand, Queue, Standing, Step
from orchestrator.pipelines import CROWDED_SECONDS
from orchestrator.wording import duration

MIN_ITEMS = 3
"""So many items must have been measured at a stage; of one that comes alone, one is enough."""
RECENT = 40
Z90 = 1.2816
"""90 % point of the standard normal distribution."""
OUTLIER = 3.0
"""Groups beyond so many medians count as that much: a first one that waits for weights to load is not the rule."""
DOUBT = 0.3
"""Spread of groups of which only one was measured, as a share of its time [ours]."""
SHARE = 0.2
"""Who has done so much tells by itself how long the rest takes."""
EXACT, COARSER = 400, 150
"""Claims that are played one by one; behind them they grow, twice as large after so many more: the cost stays bounded,
and an error of one group is small by then."""
MOST_CLAIMS = 4000


@dataclass(frozen=True, kw_only=True)
class Eta:
    """Seconds until everything is done: even odds by p50, nine in ten by p90; `samples` of the thinnest history."""

    p50: float
    p90: float
    samples: int


@dataclass(frozen=True)
class Pace:
    """How long a group of a stage keeps a worker busy: `fixed` and `each` seconds an item; `spread` is of a group."""

    fixed: float
    each: float
    spread: float
    items: int
    largest: int

    def seconds(self, items: int, group: int) -> float:
        """Return the seconds of so many items in groups of so many."""
        return self.fixed * math.ceil(items / group) + self.each * items


def pace(groups: Sequence[Group]) -> Pace | None:
    """Return how fast the newest groups went, outliers cut; None where there are none.

    Where groups of different sizes were seen, what a group costs and what an item costs are told apart.
    """
    recent = groups[:RECENT]
    if not recent:
        return None
    middle = statistics.median(group.seconds / group.items for group in recent)
    cut = [(group.items, min(group.seconds, OUTLIER * middle * group.items)) for group in recent]
    items = sum(count for count, _ in cut)
    each = sum(seconds for _, seconds in cut) / items
    least, most = min(count for count, _ in cut), max(count for count, _ in cut)
    fixed = 0.0
    if least < most:
        low, high = (statistics.fmean(s for n, s in cut if n == size) for size in (least, most))
        slope = max(0.0, min((high - low) / (most - least), each))
        fixed, each = max(0.0, sum(s - slope * n for n, s in cut) / len(cut)), slope
    rest = [seconds - fixed - each * count for count, seconds in cut]
    spread = statistics.stdev(rest) if len(rest) > 1 else DOUBT * cut[0][1]
    return Pace(fixed=fixed, each=each, spread=spread, items=items, largest=most)


@dataclass
class _Batch:
    standing: Standing
    waiting: list[int]
    served: float
    parked: int
    held: int = 0

    @property
    def over(self) -> bool:
        return not (self.held or self.parked or any(self.waiting))


@dataclass
class _Job:
    batch: _Batch
    place: int
    items: int
    left: float
    """Seconds that are left of it."""
    turn: float = 0.0
    """Seconds that it goes on before it ends or makes room for others."""


@dataclass
class _Worker:
    queues: frozenset[str]
    variance: float = 0.0
    job: _Job | None = None
    aside: _Job | None = None
    """Long work that has made room, for the batches of some lanes and until some moment."""
    lanes: tuple[str, ...] = ()
    until: float = math.inf


@dataclass
class _Play:
    """The queue played forward; `ends` has the answer for each batch."""

    queue: Queue
    batches: list[_Batch] = field(default_factory=list)
    workers: list[_Worker] = field(default_factory=list)
    events: list[tuple[float, int]] = field(default_factory=list)
    idle: set[int] = field(default_factory=set)
    ends: dict[str, Eta] = field(default_factory=dict)
    paces: dict[tuple[str, str], Pace | None] = field(default_factory=dict)
    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    turns: dict[tuple[str, str], float] = field(default_factory=dict)
    claims: int = 0
    group: int = 1
    """So many items are taken at once, by the largest group that was seen."""

    def run(self) -> dict[str, Eta]:
        """Play until everything has ended, or until something is claimed of which nobody knows how long it takes."""
        self._begin()
        while self.events and self.claims < MOST_CLAIMS:
            moment, number = heapq.heappop(self.events)
            if moment == math.inf:
                break
            worker = self.workers[number]
            if worker.job is not None:
                self._end(worker, moment)
            if not self._claim(number, moment):
                break  # whatever ends later may have waited for what is not known
        return self.ends

    def _begin(self) -> None:
        self.turns = dict(self.queue.turns)
        for one in self.queue.batches:
            served = one.created if one.served is None else one.served
            self.batches.append(_Batch(one, [step.waiting for step in one.steps], served, one.parked))
        seen = (group.items for one in self.queue.batches for step in one.steps for group in step.groups)
        self.group = max([1, *seen, *(hand.group for hand in self.queue.hands)])
        by_id = {batch.standing.id: batch for batch in self.batches}
        for worker_id, queues in self.queue.workers.items():
            worker = _Worker(frozenset(queues))
            self.workers.append(worker)
            busy = 0.0
            mine = [hand for hand in self.queue.hands if hand.worker == worker_id and hand.batch in by_id]
            for hand in sorted(mine, key=lambda hand: hand.began):
                newest = hand.began == max(one.began for one in mine)
                busy = self._take_over(worker, by_id[hand.batch], hand, newest=newest)
            heapq.heappush(self.events, (busy, len(self.workers) - 1))

    def _take_over(self, worker: _Worker, batch: _Batch, hand: Hand, *, newest: bool) -> float:
        """Give a worker what it holds now and return the seconds until that is done; inf where nobody knows."""
        place = next((n for n, step in enumerate(batch.standing.steps) if step.stage.name == hand.stage), None)
        if place is None:
            return 0.0
        step, known = batch.standing.steps[place], self._pace(batch, place)
        # long work beside which others were begun has stood still since its batch was last served
        passed = -hand.since if newest or not step.stage.gives_way else max(0.0, batch.served - hand.since)
        whole = known.seconds(hand.group, self.group) if known else None
        rest: float
        if step.left is not None:
            rest = step.left
        elif hand.share >= SHARE:
            rest = passed / hand.share * (1 - hand.share)
        elif whole is not None:
            rest = max(whole - passed, 0.05 * whole)
        else:
            rest = math.inf
        if worker.job is not None:
            self._is_elder(worker, worker.job, batch)
        batch.held += hand.items
        # long work that made room counts from when it went on
        return self._begin_job(worker, _Job(batch, place, hand.items, rest), 0.0, min(passed, -batch.served))

    def _is_elder(self, worker: _Worker, job: _Job, beside: _Batch) -> None:
        """Take what a worker holds beside what it has begun later: its end is being recorded, or it made room."""
        if job.batch.standing.steps[job.place].stage.gives_way:
            self._make_room(worker, job, ("interactive", beside.standing.lane), job.batch.served)
        else:
            job.batch.held -= job.items
            self._go_on(job.batch, job.place, job.items)

    def _make_room(self, worker: _Worker, job: _Job, lanes: tuple[str, ...], since: float) -> None:
        most = AGEING_SECONDS if job.batch.standing.lane == "training" else CROWDED_SECONDS
        worker.aside, worker.lanes, worker.until = job, lanes, since + most

    def _begin_job(self, worker: _Worker, job: _Job, moment: float, passed: float = 0.0) -> float:
        """Let a worker begin or go on with a job and return when it comes to its end, or makes room."""
        stage, seconds = job.batch.standing.steps[job.place].stage, job.left
        if stage.gives_way:
            lanes = {one.standing.lane for one in self.batches if self._due(one, worker, brief=True)}
            if "interactive" in lanes:
                seconds, worker.lanes = min(seconds, 1.0), ("interactive",)
            elif "bulk" in lanes:
                seconds, worker.lanes = min(seconds, max(1.0, CROWDED_SECONDS - passed)), ("interactive", "bulk")
        worker.job, job.turn = job, seconds
        return moment + seconds

    def _pace(self, batch: _Batch, place: int) -> Pace | None:
        step = batch.standing.steps[place]
        key = (batch.standing.id, step.stage.name)
        if key not in self.paces:
            found = pace(step.groups)
            enough = found and found.items >= (MIN_ITEMS if step.stage.groups else 1)
            self.paces[key] = found if enough else self._by_hand(batch, step)
        return self.paces[key]

    def _by_hand(self, batch: _Batch, step: Step) -> Pace | None:
        """Return a pace by what is being done now and has come far enough to tell."""
        for hand in self.queue.hands:
            if (hand.batch, hand.stage) == (batch.standing.id, step.stage.name) and hand.share >= SHARE:
                return pace([Group(items=hand.group, seconds=-hand.since / hand.share)])
        return None

    def _end(self, worker: _Worker, moment: float) -> None:
        assert worker.job is not None
        job, worker.job = worker.job, None
        batch = job.batch
        if job.turn < job.left:
            job.left -= job.turn
            self._make_room(worker, job, worker.lanes, moment)
        else:
            batch.held -= job.items
            self._go_on(batch, job.place, job.items)
            if batch.over:
                self._over(batch, worker, moment)
        for number in self.idle:
            heapq.heappush(self.events, (moment, number))
        self.idle.clear()

    def _go_on(self, batch: _Batch, place: int, items: int) -> None:
        """Let items go on behind a stage; where their batch gathers they wait for all of it first."""
        steps = batch.standing.steps
        if steps[place].stage.gathers:
            batch.waiting[place + 1], batch.parked = batch.waiting[place + 1] + batch.parked, 0
        elif place + 1 < len(steps) and steps[place + 1].stage.gathers:
            batch.parked += items
            if not batch.waiting[place] and not batch.held:
                batch.waiting[place + 1] = 1
        elif place + 1 < len(steps):
            batch.waiting[place + 1] += items

    def _over(self, batch: _Batch, worker: _Worker, moment: float) -> None:
        """Write down when a batch ends: its spread is that of its groups, and the doubt about how fast its like is."""
        variance, samples = worker.variance, []
        for key, items in self.taken.items():
            known = self.paces.get(key)
            if known is not None:
                groups = max(1.0, known.items / known.largest)
                share = items / known.largest / len(self.workers)
                variance += (known.spread * share) ** 2 / groups
                samples += [known.items] if key[0] == batch.standing.id else []
        p90 = moment + Z90 * math.sqrt(variance)
        self.ends[batch.standing.id] = Eta(p50=moment, p90=p90, samples=min(samples, default=0))

    def _claim(self, number: int, moment: float) -> bool:
        """Let a worker take what the ledger would give it; return whether it is known how long that takes."""
        worker, aside = self.workers[number], self.workers[number].aside
        due = [
            (self._rank(batch, moment), n)
            for n, batch in enumerate(self.batches)
            if self._due(batch, worker, brief=aside is not None)
            and (aside is None or (batch.standing.lane in worker.lanes and moment < worker.until))
        ]
        if not due and aside is not None:
            worker.aside = None
            heapq.heappush(self.events, (self._begin_job(worker, aside, moment), number))
        elif not due:
            self.idle.add(number)
        else:
            return self._begin_claim(number, self.batches[min(due)[1]], moment)
        return True

    def _begin_claim(self, number: int, batch: _Batch, moment: float) -> bool:
        worker = self.workers[number]
        place = max(self._due(batch, worker, brief=worker.aside is not None))
        step, known = batch.standing.steps[place], self._pace(batch, place)
        seconds = step.left
        if known is None and seconds is None:
            worker.queues = frozenset()  # it is lost to this; if others work, they may end what is before them
            return len(self.workers) > 1
        coarse = 2 ** max(0, (self.claims - EXACT) // COARSER)
        room = self.group * coarse if step.stage.groups else 1
        items = min(batch.waiting[place], room)
        if seconds is None:
            assert known is not None
            seconds = known.seconds(items, self.group) * (1 + batch.standing.again)
            worker.variance += known.spread**2 * max(1.0, items / self.group)
        batch.waiting[place] -= items
        batch.held += items
        batch.served = self.turns[batch.standing.owner, batch.standing.lane] = moment
        key = (batch.standing.id, step.stage.name)
        self.taken[key] = self.taken.get(key, 0) + items
        self.claims += 1
        heapq.heappush(self.events, (self._begin_job(worker, _Job(batch, place, items, seconds), moment), number))
        return True

    def _due(self, batch: _Batch, worker: _Worker, *, brief: bool) -> list[int]:
        return [
            place
            for place, step in enumerate(batch.standing.steps)
            if batch.waiting[place] and step.stage.queue in worker.queues and not (brief and step.stage.gives_way)
        ]

    def _rank(self, batch: _Batch, moment: float) -> tuple[float, float, float, str]:
        """Return what a claim sorts by, the first first."""
        one = batch.standing
        age = (moment - batch.served) / AGEING_SECONDS
        turn = self.turns.get((one.owner, one.lane), -math.inf)
        return -math.floor(LANES.get(one.lane, 1.0) + one.priority + age), turn, one.created, one.id


def forecast(queue: Queue) -> dict[str, Eta]:
    """Return when each batch of the queue will be done, by id; those of which nobody can tell are left out.

    Takes some ten milliseconds, however much waits.
    """
    return _Play(queue).run() if queue.workers else {}


def unmeasured(standing: Standing) -> tuple[str, ...]:
    """Return the stages that are still before some item of a batch and that were never measured."""
    found, before = [], standing.parked > 0
    for step in standing.steps:
        before = before or step.waiting > 0
        measured = sum(group.items for group in step.groups) >= (MIN_ITEMS if step.stage.groups else 1)
        if before and not measured and step.left is None:
            found.append(step.stage.name)
    return tuple(found)


def describe(eta: Eta | None) -> str:
    """Say an estimate in a few words, such as `about 40 s, likely within 55 s`."""
    if eta is None:
        return "time not known yet"
    if eta.p90 == 0:
        return "done"
    if eta.p50 < 1:
        return "less than a second" if eta.p90 < 1 else f"likely within {duration(round(eta.p90))}"
    p50, p90 = duration(round(eta.p50)), duration(round(eta.p90))
    return f"about {p50}" if p50 == p90 else f"about {p50}, likely within {p90}"
