"""Batches and their items: submit, look, cancel, pause, resume, retry, release what is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from orchestrator import pipelines, tracing
from orchestrator.contracts.base import JsonObject
from orchestrator.contracts.batches import BatchOptions
from orchestrator.errors import ConflictError, FpgaError, NotFoundError, UsageError
from orchestrator.ledger import artifacts, audit
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BAD, BATCH_ENDED, STATES, BatchState, State
from orchestrator.ledger.queue import lifecycle, outbox, quotas
from orchestrator.ledger.queue.claims import LANES
from orchestrator.ledger.tables.rows import Artifact, Attempt, Batch, Item, ItemIdentity, Output, Stage
from orchestrator.ledger.tables.rows_reviews import Review
from orchestrator.pipelines import Pipeline, Place

RETRIES = BatchOptions.column_key("retries")
MOST_PRIORITY = 3
STATE_WORDS = {"succeeded": "completed", "canceled": "cancelled", "error": "failed"}
"""Other spellings that filters accept."""


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """One item as the planner made it."""

    custom_id: str
    params: JsonObject
    params_sha256: str
    seed: int
    cost: float = 0.0
    identities: tuple[str, ...] = ()
    """Ids of the people that the item shows."""
    error: FpgaError | None = None
    """Why nothing can be done about it: the item is entered as failed, at stage `validate`."""


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    """A batch as it is submitted."""

    owner: str
    kind: str
    name: str
    preset: str
    items: Sequence[NewItem]
    first: str | None = None
    """The stage with which its items begin, where it is not the first of their pipeline."""
    lane: str = "bulk"
    priority: int = 0
    model_version_id: str | None = None
    parent_id: str | None = None
    idempotency_key: str | None = None
    request_sha256: str | None = None
    options: JsonObject = field(default_factory=dict)
    rejected_rows: Sequence[JsonObject] = ()
    flow: bool = True
    """Whether a flow run should show this batch."""
    effects: Sequence[str] = ()
    """What the sweeper shall do for it beside: kinds of rows of the outbox."""
    paused: bool = False
    open: bool = False
    """Whether more items will be appended; such a batch ends only after it was closed."""
    follows: bool = False
    """Whether it ends what another batch began, and was counted with it."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The answer to a submit; `repeated` says that the same request had been made before."""

    batch_id: str
    repeated: bool


@retrying
def submit(ledger: Ledger, new: NewBatch) -> Submitted:
    """Write a batch with all its items and first stages in one transaction.

    Nothing is sent anywhere: what is committed will be found. The same idempotency key with the same request gives
    the batch that was made first.

    Raises:
        ConflictError: the idempotency key was used for another request.
        LimitError: the owner has too much waiting.
        UsageError: the idempotency key is empty.
    """
    with tracing.span("batch.submit", kind=new.kind, items=len(new.items)):
        try:
            with ledger.write() as session:
                return enter(session, new)
        except IntegrityError:
            if new.idempotency_key is None:
                raise
            # somebody took the key between our look and our commit; the second look finds their batch
            with ledger.write() as session:
                return enter(session, new)


def enter(session: Session, new: NewBatch) -> Submitted:
    """Do what `submit` does inside the caller's transaction.

    Raises:
        ConflictError, UsageError: as `submit`.
    """
    moment = now(session)
    if new.idempotency_key == "":
        raise UsageError("an idempotency key is not empty; leave it out for a request of its own", code="bad_key")
    if new.idempotency_key is not None:
        known = session.scalars(
            select(Batch).where(Batch.owner == new.owner, Batch.idempotency_key == new.idempotency_key)
        ).first()
        if known is not None:
            if known.request_sha256 != new.request_sha256:
                raise ConflictError(
                    f"idempotency key {new.idempotency_key!r} belongs to batch {known.id} with another request",
                    code="idempotency_conflict",
                )
            return Submitted(batch_id=known.id, repeated=True)
    if not new.follows:
        quotas.check_items(session, new.owner, new.kind, _waiting(new.items), moment)
    batch_id = new_id("bat")
    session.add(
        Batch(
            id=batch_id,
            owner=new.owner,
            kind=new.kind,
            name=new.name,
            state=BatchState.PAUSED if new.paused else BatchState.IN_PROGRESS,
            paused_at=moment if new.paused else None,
            lane=new.lane,
            priority=new.priority,
            preset=new.preset,
            model_version_id=new.model_version_id,
            parent_id=new.parent_id,
            idempotency_key=new.idempotency_key,
            request_sha256=new.request_sha256,
            options=new.options,
            total=len(new.items),
            rejected_rows=list(new.rejected_rows),
            open=new.open,
            traceparent=tracing.traceparent(),
            created_at=moment,
        )
    )
    session.flush()
    pipeline = pipelines.of(new.kind)
    place = pipeline.place(new.first or pipeline.names[0])
    _insert_items(session, batch_id, new.owner, pipeline, place, new.items, moment)
    shown = ("flow.start",) if new.flow else ()
    for effect in (*shown, *new.effects):
        outbox.add(session, new.owner, effect, batch_id, {"kind": new.kind}, moment)
    audit.write(session, new.owner, "batch.submit", batch_id, {"items": len(new.items), "kind": new.kind}, moment)
    if not new.items:
        lifecycle.close_batch(session, batch_id, moment)
    return Submitted(batch_id=batch_id, repeated=False)


def _waiting(items: Sequence[NewItem]) -> list[JsonObject]:
    """Return the parameters of the items that will wait for a worker."""
    return [item.params for item in items if item.error is None]


def _insert_items(
    session: Session,
    batch_id: str,
    owner: str,
    pipeline: Pipeline,
    first: Place,
    items: Sequence[NewItem],
    moment: datetime,
    *,
    start: int = 0,
) -> None:
    if not items:
        return
    ids = [new_id("itm") for _ in items]
    stages = list(pipeline.names[pipeline.names.index(first.stage.name) :])
    session.execute(
        insert(Item),
        [
            {
                "id": item_id,
                "batch_id": batch_id,
                "owner": owner,
                "position": position,
                "custom_id": item.custom_id,
                "state": State.FAILED if item.error else State.QUEUED,
                "stages": stages,
                "params": item.params,
                "params_sha256": item.params_sha256,
                "seed": item.seed,
                "cost": item.cost,
                "redraws": 0,
                "error_code": item.error.code if item.error else None,
                "error_message": item.error.message if item.error else None,
                "error_stage": "validate" if item.error else None,
                "created_at": moment,
                "finished_at": moment if item.error else None,
            }
            for position, (item_id, item) in enumerate(zip(ids, items, strict=True), start=start)
        ],
    )
    shown = [
        {"item_id": item_id, "identity_id": identity_id, "owner": owner}
        for item_id, item in zip(ids, items, strict=True)
        for identity_id in dict.fromkeys(item.identities)
    ]
    if shown:
        session.execute(insert(ItemIdentity), shown)
    ready = [item_id for item_id, item in zip(ids, items, strict=True) if item.error is None]
    lifecycle.enqueue(session, ready, first, batch_id=batch_id, owner=owner, moment=moment)


@retrying
def append(
    ledger: Ledger, owner: str, batch_id: str, items: Sequence[NewItem], *, artifact_ids: Sequence[str] = ()
) -> int:
    """Add items to an open batch and return how many were new; those it has already, by custom_id, are left out.

    Args:
        artifact_ids: stored bytes that the items refer to, made live in the same transaction.

    Raises:
        ConflictError: the batch was closed, or is being cancelled.
        LimitError: the owner has too much waiting; nothing was added.
        TransientError: the cleaner took one of the artifacts; store it again.
    """
    with ledger.write() as session:
        moment = now(session)
        batch = session.get_one(Batch, get(session, owner, batch_id).id, with_for_update=True, populate_existing=True)
        if not batch.open or batch.state not in (BatchState.IN_PROGRESS, BatchState.PAUSED):
            raise ConflictError(f"batch {batch.id} is {batch.state} and takes no more items", code="batch_closed")
        known = set(
            session.scalars(
                select(Item.custom_id).where(
                    Item.batch_id == batch.id, Item.custom_id.in_([item.custom_id for item in items])
                )
            )
        )
        fresh = [item for item in items if item.custom_id not in known]
        quotas.check_items(session, owner, batch.kind, _waiting(fresh), moment)
        for artifact_id in dict.fromkeys(artifact_ids):
            artifacts.confirm(session, artifact_id)
        pipeline = pipelines.of(batch.kind)
        first = pipeline.place(pipeline.names[0])
        _insert_items(session, batch.id, owner, pipeline, first, fresh, moment, start=batch.total)
        batch.total += len(fresh)
        return len(fresh)


@retrying
def close(
    ledger: Ledger, owner: str, batch_id: str, *, rejected: FpgaError | None = None, options: JsonObject | None = None
) -> None:
    """Say that no more items will come.

    Args:
        options: what the batch's options are from now on, if they change.
        rejected: why its source could not be read to the end; it stands among the batch's errors.
    """
    with ledger.write() as session:
        batch = session.get_one(Batch, get(session, owner, batch_id).id, with_for_update=True, populate_existing=True)
        if batch.open:
            batch.open = False
            batch.options = options or batch.options
            if rejected is not None:
                row = {"row": None, "custom_id": None, "field": "source"}
                batch.rejected_rows = [*batch.rejected_rows, {**row, **rejected.as_json()}]
            session.flush()
            audit.write(session, owner, "batch.close", batch.id, {"items": batch.total}, now(session))
        lifecycle.close_batch(session, batch.id, now(session))


def get(session: Session, owner: str, batch_id: str) -> Batch:
    """Return a batch of this owner; a unique beginning of its id is enough.

    Raises:
        NotFoundError: there is none, or it is somebody else's.
        ConflictError: several begin so.
    """
    query = select(Batch).where(Batch.owner == owner, Batch.id.startswith(batch_id, autoescape=True)).limit(2)
    found = session.scalars(query).all()
    exact = [batch for batch in found if batch.id == batch_id]
    if not exact and len(found) > 1:
        raise ConflictError(f"several batches begin with {batch_id!r}; give more of the id", code="ambiguous_id")
    if not found:
        raise NotFoundError(f"there is no batch {batch_id!r}", code="batch_not_found")
    return (exact or list(found))[0]


def one(session: Session, batch_id: str) -> Batch:
    """Return a batch by its whole id, whoever owns it; it is there."""
    return session.get_one(Batch, batch_id)


def custom_ids(session: Session, batch_id: str) -> set[str]:
    """Return the custom_ids that a batch has already."""
    return set(session.scalars(select(Item.custom_id).where(Item.batch_id == batch_id)))


def children(session: Session, batch_id: str) -> Sequence[Batch]:
    """Return the batches that were made from this one."""
    return session.scalars(select(Batch).where(Batch.parent_id == batch_id)).all()


def by_idempotency_key(session: Session, owner: str, key: str) -> Batch | None:
    """Return the batch that was made under this idempotency key, or None."""
    return session.scalars(select(Batch).where(Batch.owner == owner, Batch.idempotency_key == key)).first()


def listing(
    session: Session, owner: str, *, states: Sequence[str] = (), kind: str | None = None, limit: int = 50
) -> Sequence[Batch]:
    """Return the newest batches of this owner."""
    query = select(Batch).where(Batch.owner == owner).order_by(Batch.created_at.desc(), Batch.id.desc()).limit(limit)
    if states:
        query = query.where(Batch.state.in_([STATE_WORDS.get(s, s) for s in states]))
    if kind:
        query = query.where(Batch.kind == kind)
    return session.scalars(query).all()


def counts(session: Session, batch_id: str) -> dict[str, int]:
    """Return the number of items in every state, zeros included."""
    found = dict(
        session.execute(select(Item.state, func.count()).where(Item.batch_id == batch_id).group_by(Item.state))
        .tuples()
        .all()
    )
    return {state: found.get(state, 0) for state in STATES}


def error_counts(session: Session, batch_id: str) -> dict[str, int]:
    """Return the number of items that ended badly, by error code."""
    query = (
        select(Item.error_code, func.count())
        .where(Item.batch_id == batch_id, Item.state.in_(BAD), Item.error_code.is_not(None))
        .group_by(Item.error_code)
        .order_by(func.count().desc())
    )
    return {code: count for code, count in session.execute(query).tuples() if code is not None}


def verdict_counts(session: Session, batch_id: str) -> dict[str, int]:
    """Return the number of items by verdict."""
    query = (
        select(Item.verdict, func.count())
        .where(Item.batch_id == batch_id, Item.verdict.is_not(None))
        .group_by(Item.verdict)
    )
    return {verdict: count for verdict, count in session.execute(query).tuples() if verdict is not None}


def unchanged_counts(session: Session, batch_id: str) -> dict[str, int]:
    """Return the number of photos that came back as they were, by the code of the reason."""
    code = Output.scores["reason"]["code"].as_string()
    query = (
        select(code, func.count())
        .join(Item, Item.output_id == Output.id)
        .where(Item.batch_id == batch_id, Item.verdict == "unchanged")
        .group_by(code)
    )
    return {reason: count for reason, count in session.execute(query).tuples() if reason is not None}


def items(
    session: Session, batch_id: str, *, states: Sequence[str] = (), after: int = -1, limit: int | None = None
) -> Sequence[Item]:
    """Return items in the order of the manifest, those after position `after`."""
    query = select(Item).where(Item.batch_id == batch_id, Item.position > after).order_by(Item.position)
    if states:
        query = query.where(Item.state.in_([STATE_WORDS.get(s, s) for s in states]))
    return session.scalars(query.limit(limit) if limit else query).all()


@dataclass(frozen=True, kw_only=True)
class ItemDetail:
    """An item with everything that happened to it."""

    item: Item
    stages: list[Stage]
    attempts: list[Attempt]
    outputs: list[tuple[Output, Artifact]]
    review: Review | None = None


def details(session: Session, found: Sequence[Item]) -> Iterator[ItemDetail]:
    """Yield these items with their stages, attempts and outputs, four queries for each 500."""
    for start in range(0, len(found), 500):
        part = found[start : start + 500]
        ids = [item.id for item in part]
        stages: dict[str, list[Stage]] = {i: [] for i in ids}
        attempts: dict[str, list[Attempt]] = {i: [] for i in ids}
        outputs: dict[str, list[tuple[Output, Artifact]]] = {i: [] for i in ids}
        for stage in session.scalars(select(Stage).where(Stage.item_id.in_(ids)).order_by(Stage.id)):
            stages[stage.item_id].append(stage)
        for attempt, item_id in session.execute(
            select(Attempt, Stage.item_id)
            .join(Stage, Stage.id == Attempt.stage_id)
            .where(Stage.item_id.in_(ids))
            .order_by(Attempt.stage_id, Attempt.token)
        ).tuples():
            attempts[item_id].append(attempt)
        for output, artifact in session.execute(
            select(Output, Artifact)
            .join(Artifact, Artifact.id == Output.artifact_id)
            .where(Output.item_id.in_(ids))
            .order_by(Output.round)
        ).tuples():
            outputs[output.item_id].append((output, artifact))
        reviewed = {row.item_id: row for row in session.scalars(select(Review).where(Review.item_id.in_(ids)))}
        for item in part:
            yield ItemDetail(
                item=item,
                stages=stages[item.id],
                attempts=attempts[item.id],
                outputs=outputs[item.id],
                review=reviewed.get(item.id),
            )


@retrying
def cancel(ledger: Ledger, owner: str, batch_id: str) -> str:
    """Cancel a batch and return the state it is in now: `cancelling` until the last worker has confirmed.

    Raises:
        ConflictError: the batch had ended.
    """
    with ledger.write() as session:
        moment = now(session)
        batch = get(session, owner, batch_id)
        if batch.state == BatchState.CANCELLING:
            return batch.state
        if batch.state in BATCH_ENDED or not lifecycle.cancel_batch(session, batch.id, moment):
            raise ConflictError(f"batch {batch.id} has ended as {batch.state}", code="batch_ended")
        audit.write(session, owner, "batch.cancel", batch.id, {}, moment)
        session.refresh(batch)
        return batch.state


@retrying
def pause(ledger: Ledger, owner: str, batch_id: str, *, reason: str | None = None) -> None:
    """Stop starting work of this batch; workers give back what they hold within one step.

    Raises:
        ConflictError: the batch is not in progress.
    """
    with ledger.write() as session:
        moment = now(session)
        batch = get(session, owner, batch_id)
        if batch.state == BatchState.PAUSED:
            return
        if not lifecycle.move_batch(session, batch.id, BatchState.PAUSED, paused_at=moment, reason=reason):
            raise ConflictError(f"batch {batch.id} is {batch.state} and cannot be paused", code="batch_ended")
        audit.write(session, owner, "batch.pause", batch.id, {}, moment)


@retrying
def resume(ledger: Ledger, owner: str, batch_id: str) -> None:
    """Let a paused batch go on.

    Raises:
        ConflictError: the batch is not paused.
    """
    with ledger.write() as session:
        moment = now(session)
        batch = get(session, owner, batch_id)
        if not lifecycle.resume_batch(session, batch, moment):
            raise ConflictError(f"batch {batch.id} is {batch.state}, not paused", code="batch_not_paused")


@retrying
def reorder(ledger: Ledger, owner: str, batch_id: str, *, lane: str | None = None, priority: int | None = None) -> None:
    """Move a batch that has not ended to another lane or priority within it; what a worker holds of it goes on.

    Raises:
        UsageError: there is no such lane, or the priority is out of range.
        ConflictError: the batch has ended.
    """
    if lane is not None and lane not in LANES:
        raise UsageError(f"lane must be one of {', '.join(LANES)}, got {lane!r}")
    if priority is not None and abs(priority) > MOST_PRIORITY:
        raise UsageError(f"priority must lie between -{MOST_PRIORITY} and {MOST_PRIORITY}, got {priority}")
    with ledger.write() as session:
        batch = get(session, owner, batch_id)
        if batch.state in BATCH_ENDED:
            raise ConflictError(f"batch {batch.id} has ended as {batch.state}", code="batch_ended")
        detail = {"lane": lane or batch.lane, "priority": batch.priority if priority is None else priority}
        audit.write(session, owner, "batch.reorder", batch.id, detail, now(session))
        session.execute(update(Batch).where(Batch.id == batch.id).values(**detail))


@retrying
def retry(ledger: Ledger, owner: str, batch_id: str, *, codes: Sequence[str] = (), again: bool = False) -> Submitted:
    """Make a child batch of the items that failed or were held (those with one of `codes`, if given).

    What an earlier retry has finished, or is still at, is left out; what failed there as well is tried once more.

    Args:
        again: take also what an earlier retry has.

    Raises:
        ConflictError: nothing of it failed so, an earlier retry has all of it, or the batch still runs.
    """
    with ledger.read() as session:
        batch = get(session, owner, batch_id)
        if batch.state not in BATCH_ENDED:
            raise ConflictError(
                f"batch {batch.id} is {batch.state}; retry it when it has ended", code="batch_in_progress"
            )
        bad = [item for item in items(session, batch.id, states=BAD) if not codes or item.error_code in codes]
        if not bad:
            wanted = f" with code {' or '.join(codes)}" if codes else ""
            raise ConflictError(f"batch {batch.id} has no failed item{wanted}", code="nothing_to_retry")
        taken = {} if again else _retried(session, batch.id)
        if all(item.custom_id in taken for item in bad):
            by = ", ".join(sorted(set(taken.values())))
            raise ConflictError(f"what failed in batch {batch.id} was retried already, by {by}", code="already_retried")
        bad = [item for item in bad if item.custom_id not in taken]
        shown: dict[str, list[str]] = {}
        for item_id, identity_id in session.execute(
            select(ItemIdentity.item_id, ItemIdentity.identity_id)
            .join(Item, Item.id == ItemIdentity.item_id)
            .where(Item.batch_id == batch.id)
        ).tuples():
            shown.setdefault(item_id, []).append(identity_id)
    return submit(
        ledger,
        NewBatch(
            owner=owner,
            kind=batch.kind,
            name=f"{batch.name} (retry)",
            preset=batch.preset,
            first=bad[0].stages[0],
            items=[
                NewItem(
                    custom_id=item.custom_id,
                    params=item.params,
                    params_sha256=item.params_sha256,
                    seed=item.seed,
                    cost=item.cost,
                    identities=tuple(shown.get(item.id, ())),
                )
                for item in bad
            ],
            lane=batch.lane,
            priority=batch.priority,
            model_version_id=batch.model_version_id,
            parent_id=batch.id,
            options=_retry_options(batch),
        ),
    )


def _retried(session: Session, batch_id: str) -> dict[str, str]:
    """Return which batch retries an item of this one, by custom_id, where it has not failed there as well."""
    query = (
        select(Item.custom_id, Item.batch_id)
        .join(Batch, Batch.id == Item.batch_id)
        .where(Batch.parent_id == batch_id, Batch.options[RETRIES].as_boolean().is_(True), Item.state.not_in(BAD))
    )
    return dict(session.execute(query).tuples().all())


def _retry_options(batch: Batch) -> JsonObject:
    """Return the options of a retry: people who were found in the whole archive are not looked for in a part of it."""
    return lifecycle.changed(
        batch, retries=True, forgiven=0, people_of=BatchOptions.load(batch.options).people_of or batch.id
    )


@retrying
def set_flow_run(ledger: Ledger, batch_id: str, flow_run_id: str) -> None:
    """Remember which flow run watches this batch."""
    with ledger.write() as session:
        session.execute(update(Batch).where(Batch.id == batch_id).values(flow_run_id=flow_run_id))


def shown(session: Session) -> dict[str, tuple[str, str]]:
    """Return (flow run, state) of every batch that has not ended and that a flow run shows, by the batch's id."""
    query = select(Batch.id, Batch.flow_run_id, Batch.state).where(
        Batch.state.in_(set(BatchState).difference(BATCH_ENDED)), Batch.flow_run_id.is_not(None)
    )
    return {batch_id: (str(run_id), state) for batch_id, run_id, state in session.execute(query).tuples()}
