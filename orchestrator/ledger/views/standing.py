"""What stands in the queue now and how fast its like went lately: all that an estimate of time is made of.

Of everybody's batches, since they share the workers; an estimate tells no more of others than how long they take.
Seconds are counted from now: what has been is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, zip_longest

from sqlalchemy import and_, case, func, select, union_all
from sqlalchemy.orm import Session

from orchestrator import pipelines
from orchestrator.contracts.photos import PhotoOptions
from orchestrator.contracts.portraits import PortraitOptions, PortraitParams
from orchestrator.ledger import photos, training
from orchestrator.ledger.engine.states import LEASED, UNENDED, BatchState, State, among
from orchestrator.ledger.queue import workers
from orchestrator.ledger.queue.batches import NewItem
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Stage, Turn
from orchestrator.ledger.tables.rows_training import TrainingRun

MOST = 200
"""So many open batches are looked at; what waits behind them is not in an estimate."""
LOOKED_BACK = 300
"""So many of the newest batches are searched for such as were worked on."""
ALIKE = 4
"""So many batches of the same kind and preset tell how fast one goes that has not begun."""
RECENT = 48
OWN = 3
"""So many of its own items tell more of a batch than any number of others do."""
FIRST_ITEMS = 24
CHUNK = 100
"""So many selects are put together in one statement."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Items that were worked on together, and the seconds in which they kept a worker busy."""

    items: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """The items of a batch that wait for one of its stages, and how such groups went, newest first.

    `left` is what a stage still needs that tells of itself how far it is (training), in seconds.
    """

    stage: pipelines.Stage
    waiting: int
    groups: tuple[Group, ...]
    left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """An open batch as a claim sees it. `parked` items wait until the stage that gathers their batch has run."""

    id: str
    owner: str
    lane: str
    priority: int
    created: float
    served: float | None
    steps: tuple[Step, ...]
    parked: int = 0
    again: float = 0.0
    """How many rounds more than one its items take, on average."""


@dataclass(frozen=True, kw_only=True)
class Hand:
    """Items of a batch that one worker holds, and the mean share that is done.

    `group` is how many they were at first, `since` counts from `began` without the time in which it made room.
    """

    worker: str
    batch: str
    stage: str
    items: int
    group: int
    began: float
    since: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Everything that is to be done, who does it, and when each owner was last served in a lane."""

    batches: tuple[Standing, ...]
    hands: tuple[Hand, ...]
    workers: Mapping[str, tuple[str, ...]]
    turns: Mapping[tuple[str, str], float]


def look(session: Session, moment: datetime, *, beside: Batch | None = None, items: Sequence[NewItem] = ()) -> Queue:
    """Return the queue as it stands.

    Args:
        beside: a batch that is not in the ledger, to be seen as if it had just been submitted, with its `items`.
    """
    found = list(
        session.scalars(
            select(Batch).where(Batch.state == BatchState.IN_PROGRESS).order_by(Batch.created_at, Batch.id).limit(MOST)
        )
    )
    ids = [batch.id for batch in found]
    waiting = _waiting(session, ids)
    living = {worker.id: tuple(worker.queues) for worker in workers.living(session, moment)}
    hands = list(_hands(session, ids, moment))
    for hand in hands:
        if hand.worker not in living:  # its lease runs out, then another takes it
            waiting[hand.batch, hand.stage] = waiting.get((hand.batch, hand.stage), 0) + hand.items
    everyone = [*found, beside] if beside else found
    speeds = _Speeds(session, everyone, beside, items)
    if beside:
        waiting[beside.id, pipelines.of(beside.kind).names[0]] = len(items)
    return Queue(
        batches=tuple(_standing(session, batch, waiting, speeds, moment, is_new=batch is beside) for batch in everyone),
        hands=tuple(hand for hand in hands if hand.worker in living),
        workers=living,
        turns={
            (owner, lane): _ago(served, moment)
            for owner, lane, served in session.execute(select(Turn.owner, Turn.lane, Turn.served_at)).tuples()
        },
    )


def each_seconds(session: Session, kind: str, name: str, preset: str) -> list[float]:
    """Return the seconds of an item in the newest groups of a stage, of batches of this kind and preset."""
    like = Batch(id="", kind=kind, preset=preset)
    groups = _Speeds(session, [like], like, ()).of(like, pipelines.of(kind).place(name).stage)
    return [group.seconds / group.items for group in groups]


def _waiting(session: Session, ids: Sequence[str]) -> dict[tuple[str, str], int]:
    query = (
        select(Stage.batch_id, Stage.name, func.count())
        .where(Stage.batch_id.in_(ids), Stage.state == State.QUEUED)
        .group_by(Stage.batch_id, Stage.name)
    )
    return {(batch_id, name): count for batch_id, name, count in session.execute(query).tuples()}


def _hands(session: Session, ids: Sequence[str], moment: datetime) -> Iterable[Hand]:
    query = (
        select(
            Stage.worker_id,
            Stage.batch_id,
            Stage.name,
            func.count(),
            Attempt.group_size,
            Stage.started_at,
            func.max(Attempt.aside),
            func.avg(case((Stage.state == State.RUNNING, Stage.progress), else_=0.0)),
        )
        .join(Attempt, and_(Attempt.stage_id == Stage.id, Attempt.token == Stage.token))
        .where(among(Stage.state, LEASED), Stage.batch_id.in_(ids), Stage.name.in_(pipelines.stages()))
        .group_by(Stage.worker_id, Stage.batch_id, Stage.name, Stage.started_at, Attempt.group_size)
    )
    known = pipelines.stages()
    for worker, batch_id, name, count, group, started, aside, share in session.execute(query).tuples():
        began = _ago(started, moment) if started else 0.0
        since = min(0.0, began + aside)
        group = group if known[name].groups else count  # what made room counts others too
        done = (group - count + float(share or 0) * count) / group  # those that have ended are not held any more
        yield Hand(
            worker=worker or "",
            batch=batch_id,
            stage=name,
            items=count,
            group=group,
            began=began,
            since=since,
            share=done,
        )


def _standing(
    session: Session,
    batch: Batch,
    waiting: Mapping[tuple[str, str], int],
    speeds: _Speeds,
    moment: datetime,
    *,
    is_new: bool,
) -> Standing:
    pipeline = pipelines.of(batch.kind)
    gathers = batch.kind == photos.KIND and PhotoOptions.load(batch.options).gathers()
    steps = tuple(
        Step(
            stage=stage,
            waiting=waiting.get((batch.id, stage.name), 0),
            groups=speeds.of(batch, stage),
            left=_left(session, batch) if stage.queue == "gpu.train" else None,
        )
        for stage in pipeline.stages
        if gathers or not stage.gathers
    )
    return Standing(
        id=batch.id,
        owner=batch.owner,
        lane=batch.lane,
        priority=batch.priority,
        created=0.0 if is_new else _ago(batch.created_at, moment),
        served=_ago(batch.served_at, moment) if batch.served_at else None,
        steps=steps,
        parked=parked(session, batch.id) if gathers else 0,
        again=_again(session, batch),
    )


def _ago(then: datetime, moment: datetime) -> float:
    return (then - moment).total_seconds()


def parked(session: Session, batch_id: str) -> int:
    """Return how many items of a batch wait without an open stage, for the stage that gathers it."""
    unended = select(func.count()).where(Item.batch_id == batch_id, Item.state.in_(UNENDED))
    open_ = select(func.count()).where(Stage.batch_id == batch_id, among(Stage.state, UNENDED))
    return max(0, (session.scalar(unended) or 0) - (session.scalar(open_) or 0))


def _again(session: Session, batch: Batch) -> float:
    """Return how many further rounds an item takes, by what its batch has seen so far."""
    most = PortraitOptions.load(batch.options).redraws if batch.kind == "generate" else 0
    if not most:
        return 0.0
    query = select(func.count(), func.sum(Item.redraws)).where(Item.batch_id == batch.id, Item.verdict.is_not(None))
    scored, redrawn = session.execute(query).tuples().one()
    return float(redrawn or 0) / scored if scored else 0.0


def _left(session: Session, batch: Batch) -> float | None:
    """Return the seconds that a training still needs by its last report; None before the first."""
    run = session.scalars(select(TrainingRun).where(TrainingRun.batch_id == batch.id)).first()
    last = training.last_record(session, run.id, "step") if run else None
    return None if run is None or last is None else training.seconds_left(run, last)


class _Speeds:
    """How fast the groups of batches went: of a batch itself, and of others of its kind and preset."""

    def __init__(
        self, session: Session, wanted: Sequence[Batch], beside: Batch | None, items: Sequence[NewItem]
    ) -> None:
        alike: dict[tuple[str, str], list[str]] = {(batch.kind, batch.preset): [] for batch in wanted}
        newest = select(Batch.id, Batch.kind, Batch.preset, Batch.served_at).order_by(Batch.id.desc())
        for batch_id, kind, preset, served in session.execute(newest.limit(LOOKED_BACK)).tuples():
            others = alike.get((kind, preset))
            if others is not None and served is not None and len(others) < ALIKE:
                others.append(batch_id)
        kinds = {batch.id: batch.kind for batch in wanted if batch is not beside}
        kinds |= {batch_id: kind for (kind, _), ids in alike.items() for batch_id in ids}
        self._alike = alike
        self._costs = _costs(session, [batch_id for batch_id, kind in kinds.items() if kind == "generate"])
        if beside is not None and items:
            self._costs[beside.id] = _cost_of(items)
        self._groups = _groups(session, kinds)

    def of(self, batch: Batch, stage: pipelines.Stage) -> tuple[Group, ...]:
        """Return how groups went at a stage: the batch's own first, then those of others, by what items cost."""
        own = self._groups.get((batch.id, stage.name), [])
        if sum(group.items for group in own) >= OWN:
            return tuple(own)
        cost, again = self._costs.get(batch.id, (0.0, False))
        others: list[list[Group]] = []
        for other in self._alike[batch.kind, batch.preset]:
            theirs, theirs_again = self._costs.get(other, (0.0, False))
            if other == batch.id or (stage.draws and theirs_again != again):
                continue
            times = cost / theirs if stage.draws and cost and theirs else 1.0
            found = self._groups.get((other, stage.name), [])
            others.append([Group(items=one.items, seconds=one.seconds * times) for one in found])
        mixed = [one for row in zip_longest(*others) for one in row if one is not None]
        return tuple(own + mixed)[:RECENT]


def _costs(session: Session, ids: Sequence[str]) -> dict[str, tuple[float, bool]]:
    """Return what the first items of these batches cost, and whether most have small faces drawn again."""
    faces = Item.params[PortraitParams.column_key("small_faces")].as_string()
    firsts = [
        select(
            select(Item.batch_id, Item.cost, case((faces == "restore", 1.0), else_=0.0).label("again"))
            .where(Item.batch_id == batch_id)
            .order_by(Item.position)
            .limit(FIRST_ITEMS)
            .subquery()
        )
        for batch_id in ids
    ]
    found: dict[str, list[tuple[float, float]]] = {}
    for start in range(0, len(firsts), CHUNK):
        for batch_id, cost, again in session.execute(union_all(*firsts[start : start + CHUNK])).tuples():
            found.setdefault(batch_id, []).append((cost, again))
    return {
        batch_id: (sum(cost for cost, _ in rows) / len(rows), sum(again for _, again in rows) > len(rows) / 2)
        for batch_id, rows in found.items()
    }


def _cost_of(items: Sequence[NewItem]) -> tuple[float, bool]:
    again = sum(PortraitParams.load(item.params).small_faces == "restore" for item in items)
    return sum(item.cost for item in items) / len(items), again > len(items) / 2


def _groups(session: Session, kinds: Mapping[str, str]) -> dict[tuple[str, str], list[Group]]:
    """Return how the newest groups of these batches went, by batch and stage, newest first.

    A result is recorded while the next group is computed: a group takes from its claim to its last end or to the next
    claim of its worker, whichever comes first.
    """
    newest = [
        select(
            select(Stage.id)
            .where(
                Stage.batch_id == batch_id,
                Stage.queue == place.stage.queue,
                Stage.state == State.COMPLETED,
                Stage.alone.is_(False),
                Stage.ordinal == place.ordinal,
            )
            .order_by(Stage.id.desc())
            .limit(RECENT)
            .subquery()
        )
        for batch_id, kind in kinds.items()
        for place in map(pipelines.of(kind).place, (stage.name for stage in pipelines.of(kind).stages))
    ]
    tried = select(
        Stage.batch_id,
        Stage.name,
        Attempt.worker_id,
        Attempt.started_at,
        Attempt.ended_at,
        Attempt.group_size,
        Attempt.aside,
    ).join(Stage, Stage.id == Attempt.stage_id)
    ends: dict[tuple[str, datetime], tuple[datetime, int, float, str, str]] = {}
    for start in range(0, len(newest), CHUNK):
        some = union_all(*newest[start : start + CHUNK]).subquery()
        query = tried.join(some, some.c.id == Stage.id).where(Attempt.outcome == "completed")
        for batch_id, name, worker, began, ended, size, aside in session.execute(query).tuples():
            if ended is not None:
                last = ends.get((worker, began), (ended,))[0]
                ends[worker, began] = (max(ended, last), size, aside, batch_id, name)
    found: dict[tuple[str, str], list[tuple[datetime, Group]]] = {}
    in_order = sorted(ends.items())
    nexts = [b[0][1] if a[0][0] == b[0][0] else None for a, b in pairwise(in_order)]
    for ((_, began), (ended, size, aside, batch_id, name)), following in zip(in_order, [*nexts, None], strict=False):
        until = ended if following is None or aside else min(ended, following)
        group = Group(items=size, seconds=(until - began).total_seconds() - aside)
        found.setdefault((batch_id, name), []).append((began, group))
    return {key: [group for _, group in sorted(groups, key=_began, reverse=True)] for key, groups in found.items()}


def _began(one: tuple[datetime, Group]) -> datetime:
    return one[0]
