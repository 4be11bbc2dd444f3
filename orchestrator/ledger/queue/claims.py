"""Claims and leases: who works on which stage, proved by a token.

Claim = one conditional update that raises the token; every later statement about the stage names that token, so a
holder that lost its lease (paused process, cut network) changes nothing any more. What is claimed next is decided
here and only here: lane and priority with ageing, round robin by owner, pause, warm model with a bound kept by the
caller. The queue message that woke the worker has no say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    and_,
    case,
    cast,
    exists,
    extract,
    func,
    insert,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from orchestrator import pipelines
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import LEASED, BatchState, State
from orchestrator.ledger.queue import lifecycle
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Stage, Turn

LANES = {"interactive": 2.0, "bulk": 1.0, "training": 0.0}
AGEING_SECONDS = 600.0
"""Waiting so long is worth as much as one lane or one step of priority."""
BATCHES_LOOKED_AT = 2
"""More than one, because others may be taking the last of the first."""
MOST_OPEN = 100_000
"""More batches than ever are open at once."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on one stage, and what is needed for it."""

    stage_id: int
    token: int
    item_id: str
    batch_id: str
    kind: str
    owner: str
    lane: str
    name: str
    round: int
    attempt: int
    custom_id: str
    params: dict[str, Any]
    seed: int
    preset: str
    model_version_id: str | None
    options: dict[str, Any]
    traceparent: str | None = None


@retrying
def claim(
    ledger: Ledger,
    *,
    worker_id: str,
    queues: Sequence[str],
    limit: int,
    lease_seconds: float,
    warm: str | None = None,
    begin: bool = False,
    brief: Sequence[str] = (),
) -> list[Claim]:
    """Lease up to `limit` due stages of one batch to a worker that serves these queues; none where nothing is due.

    One decision over all of its queues: the batch by lane, priority and ageing, then by the owner served longest ago;
    in the batch the stage that is nearest to the item's end, so that what is begun is finished before more is begun.

    All of one claim share batch, stage name and preset, so they may run as one batch of the networks. A stage under
    suspicion (it was in a group that died) comes alone.

    Args:
        warm: model version that the worker has loaded; its batches are preferred among equals.
        begin: whether the work begins at once; else `start` says so later.
        brief: only batches of these lanes, and of them stages that are short and under no suspicion, for who makes
            room in the middle of long work.
    """
    with ledger.write() as session:
        moment = now(session)
        for batch in _batches_in_order(session, queues, moment, warm, brief):
            chosen = _choose(session, batch.id, queues, limit, moment, brief=bool(brief))
            lease = Lease(worker_id=worker_id, moment=moment, until=moment + timedelta(seconds=lease_seconds))
            if held := _lease(session, batch.id, chosen, lease, State.RUNNING if begin else State.LEASED):
                _serve(session, batch, moment)
                return held
    return []


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who takes stages, when, and until when without a heartbeat."""

    worker_id: str
    moment: datetime
    until: datetime


@dataclass(frozen=True)
class Ranked:
    """A batch that has something due; `turned` says whether its owner was ever served in its lane."""

    id: str
    owner: str
    lane: str
    turned: bool


def _batches_in_order(
    session: Session, queues: Sequence[str], moment: datetime, warm: str | None, brief: Sequence[str]
) -> list[Ranked]:
    """Order the open batches that have something due: best rank first, then the owner served longest ago.

    Batches are ranked first and asked for due stages in that order, so that a claim looks into one or two of them. Who
    was served when stands in a row for each owner and lane: the batches that ended long ago are not asked.
    """
    waited = func.coalesce(Batch.served_at, Batch.created_at)
    if session.get_bind().dialect.name == "sqlite":
        age = (func.julianday(moment) - func.julianday(waited)) * 86400.0
    else:
        age = cast(extract("epoch", moment - waited), Float)
    lane = case(*[(Batch.lane == name, worth) for name, worth in LANES.items()], else_=1.0)
    ranked = (
        select(Batch.id, Batch.owner, Batch.lane, Turn.served_at.is_not(None).label("turned"))
        .outerjoin(Turn, (Turn.owner == Batch.owner) & (Turn.lane == Batch.lane))
        .where(Batch.state == BatchState.IN_PROGRESS, Batch.kind.in_(pipelines.PIPELINES))
        .where(Batch.lane.in_(brief) if brief else true())
        .order_by(
            func.floor(lane + Batch.priority + age / AGEING_SECONDS).desc(),
            Turn.served_at.asc().nulls_first(),
            (Batch.model_version_id == (warm or "")).desc(),
            Batch.created_at,
            Batch.id,
        )
        .limit(MOST_OPEN)  # no planner flattens a query with a limit, so the order is kept
        .subquery()
    )
    due = exists().where(
        Stage.batch_id == ranked.c.id,
        Stage.queue.in_(queues),
        Stage.state == State.QUEUED,
        Stage.next_at <= moment,
        Stage.name.in_(_known(brief=bool(brief))),
    )
    return [Ranked(*row) for row in session.execute(select(ranked).where(due).limit(BATCHES_LOOKED_AT)).tuples()]


def _known(*, brief: bool) -> dict[str, pipelines.Stage]:
    return {name: stage for name, stage in pipelines.stages().items() if not (brief and stage.gives_way)}


def _serve(session: Session, batch: Ranked, moment: datetime) -> None:
    """Note that a batch and its owner were served now; whoever finds that another claim is just noting it leaves it."""
    mine = select(Batch.id).where(Batch.id == batch.id).with_for_update(skip_locked=True, key_share=True)
    began = func.coalesce(Batch.started_at, moment)
    unlocked = {"synchronize_session": False}
    session.execute(
        update(Batch).where(Batch.id.in_(mine)).values(served_at=moment, started_at=began), execution_options=unlocked
    )
    turn = select(Turn.owner).where(Turn.owner == batch.owner, Turn.lane == batch.lane)
    if batch.turned:
        held = turn.with_for_update(skip_locked=True)
        mine_too = Turn.owner.in_(held), Turn.lane == batch.lane
        session.execute(update(Turn).where(*mine_too).values(served_at=moment), execution_options=unlocked)
        return
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"owner": batch.owner, "lane": batch.lane, "served_at": moment}
    session.execute(dialect.insert(Turn).values(**row).on_conflict_do_nothing())


def _choose(
    session: Session, batch_id: str, queues: Sequence[str], limit: int, moment: datetime, *, brief: bool
) -> Sequence[int]:
    """Return the ids of the stages of this batch that go next as one group, their rows locked for this transaction."""
    known = _known(brief=brief)
    # coalesce hides the time from SQLite's planner, which would take the index by time and sort all that waits
    ripe = func.coalesce(Stage.next_at, moment) <= moment
    here = and_(Stage.batch_id == batch_id, Stage.state == State.QUEUED, ripe, Stage.name.in_(known))
    if brief:  # who is under suspicion runs when nobody else is in the process
        here = and_(here, Stage.alone.is_(False))
    # these orders are the index's own, so that a claim costs the same whatever waits behind it
    tops = [
        select(
            select(Stage.queue, Stage.name, Stage.alone, Stage.ordinal)
            .where(here, Stage.queue == queue)
            .order_by(Stage.alone.desc(), Stage.ordinal.desc())
            .limit(1)
            .subquery()
        )
        for queue in queues
    ]
    found = session.execute(union_all(*tops)).all()
    if not found:
        return []
    first = max(found, key=lambda top: (top.alone, top.ordinal))
    room = 1 if first.alone or not known[first.name].groups else limit
    due = and_(here, Stage.queue == first.queue, Stage.name == first.name, Stage.alone == first.alone)
    like = select(Stage.id).where(due)
    same = like.where(Stage.ordinal == first.ordinal).order_by(Stage.id).limit(room).with_for_update(skip_locked=True)
    chosen = list(session.scalars(same))
    if len(chosen) < room:  # earlier rounds of the same stage may run with it
        earlier = like.where(Stage.ordinal < first.ordinal).order_by(Stage.ordinal.desc(), Stage.id)
        chosen += session.scalars(earlier.limit(room - len(chosen)).with_for_update(skip_locked=True))
    return chosen


def _lease(session: Session, batch_id: str, chosen: Sequence[int], lease: Lease, to: State) -> list[Claim]:
    """Move these stages to `leased` or `running` and write their attempts; each row is written once and read by that.

    Rows are what a claim costs: a stage that changes its state stands anew in every index.
    """
    if not chosen:
        return []
    stages, items = lifecycle.take(
        session,
        to,
        Stage.id.in_(chosen),
        of_item={"started_at": func.coalesce(Item.started_at, lease.moment)} if to == State.RUNNING else {},
        token=Stage.token + 1,
        worker_id=lease.worker_id,
        lease_until=lease.until,
        progress=0.0,
        signs=0,
        progress_at=lease.moment,
        started_at=lease.moment,
        finished_at=None,
    )
    if not stages:
        return []
    facts = (Batch.kind, Batch.lane, Batch.preset, Batch.model_version_id, Batch.options, Batch.traceparent)
    shared = session.execute(select(*facts).where(Batch.id == batch_id)).one()._mapping
    held = [
        Claim(
            stage_id=stage.id,
            token=stage.token,
            attempt=stage.token,
            name=stage.name,
            round=stage.round,
            item_id=item.id,
            batch_id=batch_id,
            owner=item.owner,
            custom_id=item.custom_id,
            params=item.params,
            seed=item.seed,
            **shared,
        )
        for stage in stages
        for item in (items[stage.item_id],)
    ]
    held.sort(key=lambda c: items[c.item_id].position)
    tried = {"worker_id": lease.worker_id, "group_size": len(held), "started_at": lease.moment}
    session.execute(
        insert(Attempt), [{"stage_id": c.stage_id, "token": c.token, "owner": c.owner, **tried} for c in held]
    )
    return held


@retrying
def step_aside(ledger: Ledger, c: Claim) -> bool:
    """Write down, before others are worked on in the middle of a claim, that it is not alone: their faults are theirs.

    Returns:
        Whether it may: one that is under suspicion has no company, nor one that is not ours any more.
    """
    with ledger.write() as session:
        free = exists().where(*ours(c), Stage.alone.is_(False))
        return _company(session, c, free, group_size=2)


@retrying
def step_back(ledger: Ledger, c: Claim, seconds: float) -> None:
    """Write down that a claim goes on by itself, after so many seconds in which others were worked on."""
    with ledger.write() as session:
        _company(session, c, true(), group_size=1, aside=Attempt.aside + seconds)


def _company(session: Session, c: Claim, where: ColumnElement[bool], **values: Any) -> bool:
    mine = Attempt.stage_id == c.stage_id, Attempt.token == c.token
    changed = session.execute(update(Attempt).where(*mine, where).values(**values).returning(Attempt.token)).first()
    session.execute(update(Batch).where(Batch.id == c.batch_id).values(served_at=now(session)))
    return changed is not None


def wanted(ledger: Ledger, *, queues: Sequence[str], lanes: Sequence[str]) -> bool:
    """Say whether something short of these lanes is due in these queues, for which long work should make room."""
    with ledger.read() as session:
        due = exists().where(
            Stage.batch_id == Batch.id,
            Stage.queue.in_(queues),
            Stage.state == State.QUEUED,
            Stage.next_at <= now(session),
            Stage.name.in_(_known(brief=True)),
        )
        open_ = Batch.state == BatchState.IN_PROGRESS, Batch.lane.in_(lanes)
        return session.scalar(select(Batch.id).where(*open_, due).limit(1)) is not None


@retrying
def start(ledger: Ledger, claims: Sequence[Claim]) -> list[Claim]:
    """Say that the work on these claims begins now; return those that are still ours."""
    with ledger.write() as session:
        moment = now(session)
        began = {"started_at": func.coalesce(Item.started_at, moment)}
        # a stage that was given back waits under the token of its last holder, who must not begin it
        leased = Stage.state == State.LEASED
        moved = lifecycle.move(session, State.RUNNING, leased, *ours(*claims), of_item=began, progress_at=moment)
        begun = {stage_id for stage_id, _ in moved}
        return [c for c in claims if c.stage_id in begun]


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A sign of life of the work on a claim: a count that rises with each, and the share done so far, in [0, 1]."""

    count: int = 0
    share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What the ledger answered to a heartbeat: stage ids whose work must stop, by reason."""

    lost: frozenset[int] = frozenset()
    cancelled: frozenset[int] = frozenset()
    paused: frozenset[int] = frozenset()


@retrying
def beat(ledger: Ledger, claims: Sequence[Claim], *, progress: Mapping[int, Sign], lease_seconds: float) -> Beat:
    """Renew the leases of these claims, store their progress, and return which of them must stop and why.

    `progress` maps stage id to a sign; only one that has risen since the last counts as life of the work itself.
    """
    lost, cancelled = set(), set()
    with ledger.write() as session:
        moment = now(session)
        for c in claims:
            sign = progress.get(c.stage_id, Sign())
            renewed = session.execute(
                update(Stage)
                .where(*ours(c), Stage.state.in_(LEASED))
                .values(
                    lease_until=moment + timedelta(seconds=lease_seconds),
                    progress_at=case((Stage.signs == sign.count, Stage.progress_at), else_=moment),
                    progress=sign.share,
                    signs=sign.count,
                )
                .returning(Stage.state)
                .execution_options(synchronize_session=False)
            ).first()
            if renewed is None:
                lost.add(c.stage_id)
            elif renewed.state == State.CANCELLING:
                cancelled.add(c.stage_id)
        paused_batches = set(
            session.scalars(
                select(Batch.id).where(Batch.id.in_({c.batch_id for c in claims}), Batch.state == BatchState.PAUSED)
            )
        )
    paused = {c.stage_id for c in claims if c.batch_id in paused_batches}
    return Beat(lost=frozenset(lost), cancelled=frozenset(cancelled), paused=frozenset(paused - lost - cancelled))


def look(ledger: Ledger, claims: Sequence[Claim]) -> Beat:
    """Read, without renewing anything, which of these claims must stop; cheap enough for every second."""
    with ledger.read() as session:
        rows = session.execute(
            select(Stage.id, Stage.token, Stage.state, Batch.state.label("batch"))
            .join(Batch, Batch.id == Stage.batch_id)
            .where(Stage.id.in_([c.stage_id for c in claims]))
        ).all()
    seen = {row.id: row for row in rows}
    lost = {c.stage_id for c in claims if c.stage_id not in seen or seen[c.stage_id].token != c.token}
    cancelled = {i for i, row in seen.items() if row.state == State.CANCELLING}
    paused = {i for i, row in seen.items() if row.batch == BatchState.PAUSED}
    return Beat(
        lost=frozenset(lost), cancelled=frozenset(cancelled - lost), paused=frozenset(paused - lost - cancelled)
    )


def ours(*claims: Claim) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which these claims still hold their stages."""
    # the ids by themselves too: no planner takes the index for pairs
    held = [(c.stage_id, c.token) for c in claims]
    return Stage.id.in_([c.stage_id for c in claims]), tuple_(Stage.id, Stage.token).in_(held)
