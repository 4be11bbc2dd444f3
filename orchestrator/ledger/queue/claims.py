"""Claims and leases: who works on which stage, proved by a token.

Claim = one conditional update that raises the token; every later statement about the stage names that token, so a
holder that lost its lease (paused process, cut network) changes nothing any more. What is claimed next is decided
here and only here: lane and priority with ageing, round robin by owner, pause, warm model with a bound kept by the
caller. The queue message that woke the worker has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Float, and_, case, cast, exists, extract, func, insert, literal, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from orchestrator.errors import FencedError, FpgaError
from orchestrator.ledger import artifacts
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.queue import lifecycle
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Output, Stage

LANES = {"interactive": 2.0, "bulk": 1.0, "training": 0.0}
AGEING_SECONDS = 600.0
"""Waiting so long is worth as much as one lane or one step of priority."""
BATCHES_LOOKED_AT = 8
QUEUES: Mapping[str, str] = {
    "ingest": "cpu.io",
    "generate": "gpu.generate",
    "restore": "gpu.restore",
    "score": "cpu.io",
    "train": "gpu.train",
    "evaluate": "gpu.generate",
    "annotate": "gpu.generate",
    "arrange": "cpu.io",
    "ingest_photo": "cpu.io",
    "cluster": "cpu.io",
    "score_photo": "cpu.io",
    "publish_photo": "cpu.io",
    "probe": "cpu.io",
}
"""Queue of each stage name, by the kind of machine that it needs.

A stage that is not here was queued by a later version, whose workers share our queues while they are being replaced;
it is left to them. So a stage whose parameters change their meaning takes a new name.
"""
SINGLE = frozenset({"train", "evaluate", "annotate", "arrange", "cluster"})
"""Stages that are long already: a claim takes one of them, so that other workers get theirs."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on one stage, and what is needed for it."""

    stage_id: int
    token: int
    item_id: str
    batch_id: str
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
        Stage.state == "queued",
        Stage.next_at <= moment,
        Stage.name.in_(QUEUES),
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
        .where(Batch.state == "in_progress", due)
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
    due = and_(Stage.batch_id == batch_id, Stage.queue == queue, Stage.state == "queued", ripe, Stage.name.in_(QUEUES))
    # both orders are the index's own, so that a claim costs the same whatever waits behind it
    first = session.execute(
        select(Stage.name, Stage.alone, Stage.ordinal)
        .where(due)
        .order_by(Stage.alone.desc(), Stage.ordinal.desc())
        .limit(1)
    ).first()
    if first is None:
        return []
    room = 1 if first.alone or first.name in SINGLE else limit
    like = select(Stage.id).where(due, Stage.name == first.name, Stage.alone == first.alone)
    same = like.where(Stage.ordinal == first.ordinal).order_by(Stage.id).limit(room).with_for_update(skip_locked=True)
    chosen = list(session.scalars(same))
    if len(chosen) < room:  # earlier rounds of the same stage may run with it
        earlier = like.where(Stage.ordinal < first.ordinal).order_by(Stage.ordinal.desc(), Stage.id)
        chosen += session.scalars(earlier.limit(room - len(chosen)).with_for_update(skip_locked=True))
    return lifecycle.move_stages(
        session,
        "leased",
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
    lifecycle.move_items(session, "leased", Item.id.in_([item_id for _, item_id in stages]))
    rows = session.execute(
        select(
            Stage.id.label("stage_id"),
            Stage.token,
            Item.id.label("item_id"),
            Item.batch_id,
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
    begun = {stage_id for stage_id, _ in lifecycle.move_stages(session, "running", *_ours(*claims), progress_at=moment)}
    items = Item.id.in_([c.item_id for c in claims if c.stage_id in begun])
    lifecycle.move_items(session, "running", items, started_at=func.coalesce(Item.started_at, moment))
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
                .where(*_ours(c), Stage.state.in_(("leased", "running", "cancelling")))
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
            elif renewed.state == "cancelling":
                cancelled.add(c.stage_id)
        paused_batches = set(
            session.scalars(select(Batch.id).where(Batch.id.in_({c.batch_id for c in claims}), Batch.state == "paused"))
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
    cancelled = {i for i, row in seen.items() if row.state == "cancelling"}
    paused = {i for i, row in seen.items() if row.batch == "paused"}
    return Beat(
        lost=frozenset(lost), cancelled=frozenset(cancelled - lost), paused=frozenset(paused - lost - cancelled)
    )


@dataclass(frozen=True, kw_only=True)
class Next:
    """What follows a finished stage: another stage of the item, or the item's end."""

    stage: str | None = None
    round: int = 0
    ordinal: int = 0
    wait: bool = False
    """Without a stage: the item waits for others of its batch; whoever brings them together queues its next stage."""


Effect = Callable[[Session, datetime], Next]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished stage, as it is to be recorded."""

    claim: Claim
    result: dict[str, Any]
    effect: Effect
    """Writes what the stage made (an output, references, a verdict) in the same transaction and says what follows."""
    artifacts: Sequence[str] = ()
    """Reserved bytes to which the effect refers; they are confirmed before it is called."""


def publish(ledger: Ledger, c: Claim, result: dict[str, Any], effect: Effect) -> None:
    """Record one stage's result; see `publish_all`.

    Raises:
        FencedError: the lease was lost or the item was cancelled; nothing was written.
    """
    if publish_all(ledger, [Finished(claim=c, result=result, effect=effect)]):
        raise FencedError(f"stage {c.stage_id} is no longer held by attempt {c.token}")


@retrying
def publish_all(ledger: Ledger, finished: Sequence[Finished]) -> list[Claim]:
    """Record the results of some stages in one transaction, each only if its token is the live one.

    Returns:
        The claims that are not ours any more: a lease was lost or an item cancelled. Nothing was written of them.

    Raises:
        TransientError: bytes were removed before they could be recorded.

    An effect that raises undoes the whole transaction; published one by one, it is its own item's fault alone.
    """
    with ledger.write() as session:
        moment = now(session)
        moved = lifecycle.move_stages(
            session,
            "completed",
            *_ours(*[f.claim for f in finished]),
            worker_id=None,
            lease_until=None,
            progress=1.0,
            result=case({f.claim.stage_id: literal(f.result, JSON) for f in finished}, value=Stage.id),
            finished_at=moment,
        )
        ended = {stage_id for stage_id, _ in moved}
        ours = [f for f in finished if f.claim.stage_id in ended]
        if ours:
            _end_attempts(session, [f.claim for f in ours], "completed", moment)
            artifacts.confirm(session, *[artifact_id for f in ours for artifact_id in f.artifacts])
            _go_on(session, [(f.claim, f.effect(session, moment)) for f in ours], moment)
    return [f.claim for f in finished if f.claim.stage_id not in ended]


def _go_on(session: Session, ended: Sequence[tuple[Claim, Next]], moment: datetime) -> None:
    """Queue what follows these ended stages, or end their items."""
    for c, following in ended:
        if following.stage is not None:
            queue_stage(session, c.item_id, c.batch_id, c.owner, following, moment)
    over = [c for c, following in ended if following.stage is None and not following.wait]
    if rest := [c.item_id for c, _ in ended if c not in over]:
        lifecycle.move_items(session, "queued", Item.id.in_(rest))
    if over:
        ids = [c.item_id for c in over]
        lifecycle.move_items(session, "completed", Item.id.in_(ids), finished_at=moment, **NO_STORY)
        for batch_id in dict.fromkeys(c.batch_id for c in over):
            lifecycle.close_batch(session, batch_id, moment)


def queue_stage(session: Session, item_id: str, batch_id: str, owner: str, following: Next, moment: datetime) -> None:
    """Add the next stage of an item, ready to be claimed."""
    assert following.stage is not None, "an end of the item has no stage"
    session.add(
        Stage(
            item_id=item_id,
            batch_id=batch_id,
            owner=owner,
            name=following.stage,
            round=following.round,
            ordinal=following.ordinal,
            queue=QUEUES[following.stage],
            state="queued",
            next_at=moment,
            queued_at=moment,
        )
    )


@retrying
def fail(ledger: Ledger, c: Claim, error: FpgaError, *, max_failures: int, backoff_seconds: float) -> str:
    """Record that an attempt failed; return the state the stage is in now.

    A retryable error queues the stage again with a growing delay, up to `max_failures` times; any other ends the item.

    Raises:
        FencedError: the lease was lost; nothing was written.
    """
    with ledger.write() as session:
        moment = now(session)
        stage = session.get(Stage, c.stage_id)
        if stage is None or stage.token != c.token:
            raise FencedError(f"stage {c.stage_id} is no longer held by attempt {c.token}")
        failures = stage.failures + 1
        again = error.retryable and failures < max_failures
        values: dict[str, Any] = {"worker_id": None, "lease_until": None, "failures": failures}
        if again:
            values["next_at"] = moment + timedelta(seconds=min(600.0, backoff_seconds * 2 ** (failures - 1)))
            values["hinted_at"] = None
        else:
            values["finished_at"] = moment
        target = "queued" if again else "failed"
        if not lifecycle.move_stages(session, target, *_ours(c), **values):
            raise FencedError(f"stage {c.stage_id} is {stage.state} and cannot become {target}")
        _end_attempts(session, [c], "failed", moment, error)
        story = _story(c.name, c.token, error)
        lifecycle.move_items(
            session, target, Item.id == c.item_id, **story, **({} if again else {"finished_at": moment})
        )
        if not again and lifecycle.close_batch(session, c.batch_id, moment) is None:
            lifecycle.pause_hopeless(session, c.batch_id, moment)
        return target


@retrying
def release(ledger: Ledger, claims: Sequence[Claim], *, alone: bool = False) -> None:
    """Give claims back unharmed (drain, pause): queued again at once, no strike, no failure.

    `alone` makes each of them run by itself next time, after a fault of the group that nobody in it can be blamed for.
    """
    with ledger.write() as session:
        moment = now(session)
        for c in claims:
            moved = lifecycle.move_stages(
                session,
                "queued",
                *_ours(c),
                worker_id=None,
                lease_until=None,
                hinted_at=None,
                next_at=moment,
                **({"alone": True} if alone else {}),
            )
            if moved:
                _end_attempts(session, [c], "released", moment)
                lifecycle.move_items(session, "queued", Item.id == c.item_id)


@retrying
def confirm_cancel(ledger: Ledger, claims: Sequence[Claim]) -> None:
    """Say that the work on these cancelled claims has really stopped."""
    with ledger.write() as session:
        moment = now(session)
        for c in claims:
            end_cancelled(session, Stage.id == c.stage_id, Stage.token == c.token, moment=moment)
        for batch_id in {c.batch_id for c in claims}:
            lifecycle.close_batch(session, batch_id, moment)


def end_cancelled(session: Session, *where: Any, moment: datetime) -> None:
    """Move the matching stages and their items from cancelling to cancelled."""
    moved = lifecycle.move_stages(
        session,
        "cancelled",
        Stage.state == "cancelling",
        *where,
        worker_id=None,
        lease_until=None,
        finished_at=moment,
    )
    for stage_id, item_id in moved:
        session.execute(
            update(Attempt)
            .where(Attempt.stage_id == stage_id, Attempt.outcome.is_(None))
            .values(outcome="cancelled", ended_at=moment)
        )
        lifecycle.move_items(session, "cancelled", Item.id == item_id, finished_at=moment)


def _ours(*claims: Claim) -> tuple[Any, ...]:
    # the ids by themselves too: no planner takes the index for pairs
    held = [(c.stage_id, c.token) for c in claims]
    return Stage.id.in_([c.stage_id for c in claims]), tuple_(Stage.id, Stage.token).in_(held)


NO_STORY = dict.fromkeys(("error_code", "error_message", "error_stage", "error_attempt"))


def _story(stage: str, attempt: int, error: FpgaError) -> dict[str, Any]:
    return {
        "error_code": error.code,
        "error_message": error.message,
        "error_stage": stage,
        "error_attempt": attempt,
    }


def _end_attempts(
    session: Session, claims: Sequence[Claim], outcome: str, moment: datetime, error: FpgaError | None = None
) -> None:
    held = [(c.stage_id, c.token) for c in claims]
    session.execute(
        update(Attempt)
        .where(Attempt.stage_id.in_([c.stage_id for c in claims]), tuple_(Attempt.stage_id, Attempt.token).in_(held))
        .values(
            outcome=outcome,
            ended_at=moment,
            error_code=error.code if error else None,
            error_message=error.message if error else None,
        )
        .execution_options(synchronize_session=False)
    )


def best_output(session: Session, item_id: str) -> Output | None:
    """Return the item's output that was accepted, or else the one most like the people it should show."""
    order = case((Output.verdict == "accepted", 0), (Output.verdict == "needs_review", 1), else_=2)
    return session.scalars(
        select(Output).where(Output.item_id == item_id).order_by(order, Output.similarity.desc()).limit(1)
    ).first()
