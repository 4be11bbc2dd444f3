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

from sqlalchemy import ColumnElement, Float, and_, case, cast, exists, extract, func, insert, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from orchestrator import pipelines
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import LEASED, BatchState, State
from orchestrator.ledger.queue import lifecycle
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Stage

LANES = {"interactive": 2.0, "bulk": 1.0, "training": 0.0}
AGEING_SECONDS = 600.0
"""Waiting so long is worth as much as one lane or one step of priority."""
BATCHES_LOOKED_AT = 8


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on one stage, and what is needed for it."""

    stage_id: int
    token: int
    item_id: str
    batch_id: str
    kind: str
    owner: str
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
    queue: str,
    limit: int,
    lease_seconds: float,
    warm: str | None = None,
    begin: bool = False,
) -> list[Claim]:
    """Lease up to `limit` due stages of one batch in `queue` to a worker; an empty list means nothing is due.

    All of one claim share batch, stage name and preset, so they may run as one batch of the networks. A stage under
    suspicion (it was in a group that died) comes alone.

    Args:
        warm: model version that the worker has loaded; its batches are preferred among equals.
        begin: whether the work begins at once; else `start` says so later.
    """
    with ledger.write() as session:
        moment = now(session)
        for batch_id in _batches_in_order(session, queue, moment, warm):
            stages = _lease(session, batch_id, queue, limit, worker_id, moment, lease_seconds)
            if stages:
                first = func.coalesce(Batch.started_at, moment)
                session.execute(
                    update(Batch).where(Batch.id == batch_id).values(served_at=moment, started_at=first),
                    execution_options={"synchronize_session": False},
                )
                held = _claims(session, stages, worker_id, moment)
                return _start(session, held, moment) if begin else held
    return []


def _batches_in_order(session: Session, queue: str, moment: datetime, warm: str | None) -> Sequence[str]:
    """Order the open batches that have something due: best rank first, then the owner served longest ago."""
    due = exists().where(
        Stage.batch_id == Batch.id,
        Stage.queue == queue,
        Stage.state == State.QUEUED,
        Stage.next_at <= moment,
        Stage.name.in_(pipelines.stages()),
    )
    other = aliased(Batch)
    owner_served = (
        select(func.max(other.served_at)).where(other.owner == Batch.owner, other.lane == Batch.lane).scalar_subquery()
    )
    if session.get_bind().dialect.name == "sqlite":
        age = (func.julianday(moment) - func.julianday(func.coalesce(Batch.served_at, Batch.created_at))) * 86400.0
    else:
        age = cast(extract("epoch", moment - func.coalesce(Batch.served_at, Batch.created_at)), Float)
    lane = case(*[(Batch.lane == name, worth) for name, worth in LANES.items()], else_=1.0)
    rank = func.floor(lane + Batch.priority + age / AGEING_SECONDS)
    query = (
        select(Batch.id)
        .where(Batch.state == BatchState.IN_PROGRESS, due)
        .order_by(
            rank.desc(),
            owner_served.asc().nulls_first(),
            (Batch.model_version_id == (warm or "")).desc(),
            Batch.created_at,
            Batch.id,
        )
        .limit(BATCHES_LOOKED_AT)
    )
    return session.scalars(query).all()


def _lease(
    session: Session,
    batch_id: str,
    queue: str,
    limit: int,
    worker_id: str,
    moment: datetime,
    lease_seconds: float,
) -> Sequence[tuple[int, str]]:
    # coalesce hides the time from SQLite's planner, which would take the index by time and sort all that waits
    ripe = func.coalesce(Stage.next_at, moment) <= moment
    known = pipelines.stages()
    here = Stage.batch_id == batch_id, Stage.queue == queue, Stage.state == State.QUEUED
    due = and_(*here, ripe, Stage.name.in_(known))
    # both orders are the index's own, so that a claim costs the same whatever waits behind it
    first = session.execute(
        select(Stage.name, Stage.alone, Stage.ordinal)
        .where(due)
        .order_by(Stage.alone.desc(), Stage.ordinal.desc())
        .limit(1)
    ).first()
    if first is None:
        return []
    room = 1 if first.alone or not known[first.name].groups else limit
    like = select(Stage.id).where(due, Stage.name == first.name, Stage.alone == first.alone)
    same = like.where(Stage.ordinal == first.ordinal).order_by(Stage.id).limit(room).with_for_update(skip_locked=True)
    chosen = list(session.scalars(same))
    if len(chosen) < room:  # earlier rounds of the same stage may run with it
        earlier = like.where(Stage.ordinal < first.ordinal).order_by(Stage.ordinal.desc(), Stage.id)
        chosen += session.scalars(earlier.limit(room - len(chosen)).with_for_update(skip_locked=True))
    return lifecycle.move(
        session,
        State.LEASED,
        Stage.id.in_(chosen),
        token=Stage.token + 1,
        worker_id=worker_id,
        lease_until=moment + timedelta(seconds=lease_seconds),
        progress=0.0,
        progress_at=moment,
        started_at=moment,
        finished_at=None,
    )


def _claims(session: Session, stages: Sequence[tuple[int, str]], worker_id: str, moment: datetime) -> list[Claim]:
    ids = [stage_id for stage_id, _ in stages]
    rows = session.execute(
        select(
            Stage.id.label("stage_id"),
            Stage.token,
            Item.id.label("item_id"),
            Item.batch_id,
            Batch.kind,
            Item.owner,
            Stage.name,
            Stage.round,
            Stage.token.label("attempt"),
            Item.custom_id,
            Item.params,
            Item.seed,
            Batch.preset,
            Batch.model_version_id,
            Batch.options,
            Batch.traceparent,
        )
        .join(Item, Item.id == Stage.item_id)
        .join(Batch, Batch.id == Stage.batch_id)
        .where(Stage.id.in_(ids))
        .order_by(Item.position)
    ).all()
    held = [Claim(**row._mapping) for row in rows]
    tried = {"worker_id": worker_id, "group_size": len(held), "started_at": moment}
    session.execute(
        insert(Attempt), [{"stage_id": c.stage_id, "token": c.token, "owner": c.owner, **tried} for c in held]
    )
    return held


@retrying
def start(ledger: Ledger, claims: Sequence[Claim]) -> list[Claim]:
    """Say that the work on these claims begins now; return those that are still ours."""
    with ledger.write() as session:
        return _start(session, claims, now(session))


def _start(session: Session, claims: Sequence[Claim], moment: datetime) -> list[Claim]:
    began = {"started_at": func.coalesce(Item.started_at, moment)}
    moved = lifecycle.move(session, State.RUNNING, *ours(*claims), of_item=began, progress_at=moment)
    begun = {stage_id for stage_id, _ in moved}
    return [c for c in claims if c.stage_id in begun]


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What the ledger answered to a heartbeat: stage ids whose work must stop, by reason."""

    lost: frozenset[int] = frozenset()
    cancelled: frozenset[int] = frozenset()
    paused: frozenset[int] = frozenset()


@retrying
def beat(ledger: Ledger, claims: Sequence[Claim], *, progress: Mapping[int, float], lease_seconds: float) -> Beat:
    """Renew the leases of these claims, store their progress, and return which of them must stop and why.

    `progress` maps stage id to a share in [0, 1]; only a change of it counts as a sign of life of the work itself.
    """
    lost, cancelled = set(), set()
    with ledger.write() as session:
        moment = now(session)
        for c in claims:
            share = progress.get(c.stage_id, 0.0)
            renewed = session.execute(
                update(Stage)
                .where(*ours(c), Stage.state.in_(LEASED))
                .values(
                    lease_until=moment + timedelta(seconds=lease_seconds),
                    progress_at=case((Stage.progress == share, Stage.progress_at), else_=moment),
                    progress=share,
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
