"""How claims end: published with what follows, failed, given back, or cancelled; each only while its token is live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, ColumnElement, case, literal, tuple_, update
from sqlalchemy.orm import Session

from orchestrator import pipelines
from orchestrator.contracts.base import StageResult
from orchestrator.contracts.people import EnrolParams
from orchestrator.errors import FencedError, FpgaError
from orchestrator.ledger import artifacts, photos
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.queue import lifecycle
from orchestrator.ledger.queue.claims import Claim, ours
from orchestrator.ledger.tables.rows import Attempt, Item, Stage
from orchestrator.pipelines import Then

Write = Callable[[Session, datetime], None]


def _nothing(_: Session, __: datetime) -> None:
    """Write no more than the result."""


@dataclass(kw_only=True)
class Upload:
    """Bytes that a stage made; whoever publishes its result stores them first, and then knows their artifact."""

    key: str
    data: bytes
    sha256: str
    media_type: str
    artifact_id: str | None = None

    @property
    def artifact(self) -> str:
        """The artifact of the bytes, once they are stored."""
        assert self.artifact_id is not None, "asked for before the bytes were stored"
        return self.artifact_id


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage came to, all the way from its code into the ledger. What is next, the pipeline says."""

    then: Then = "done"
    result: dict[str, Any] = field(default_factory=dict)
    """Small JSON, kept with the stage."""
    write: Write = _nothing
    """Writes what the stage made (an output, references, a verdict) in the transaction that records its end."""
    uploads: Sequence[Upload] = ()
    """Bytes to be stored before; by the time of `write` each has its artifact, already confirmed."""

    @property
    def stored(self) -> list[str]:
        """The artifacts of the uploads whose bytes may be in the store by now."""
        return [upload.artifact_id for upload in self.uploads if upload.artifact_id]

    @property
    def named(self) -> list[str]:
        """Every artifact that the stage stored, by itself or as an upload."""
        return [*StageResult.load(self.result).artifacts, *self.stored]

    @property
    def kept(self) -> dict[str, Any]:
        """The result with every artifact that the stage stored."""
        return {**self.result, "artifacts": self.named} if self.named else self.result


def publish(ledger: Ledger, c: Claim, outcome: Outcome) -> None:
    """Record one stage's outcome; see `publish_all`.

    Raises:
        FencedError: the lease was lost or the item was cancelled; nothing was written.
    """
    if publish_all(ledger, [(c, outcome)]):
        raise FencedError(f"stage {c.stage_id} is no longer held by attempt {c.token}")


@retrying
def publish_all(ledger: Ledger, ended: Sequence[tuple[Claim, Outcome]]) -> list[Claim]:
    """Record the outcomes of some stages in one transaction, each only if its token is the live one.

    Returns:
        The claims that are not ours any more: a lease was lost or an item cancelled. Nothing was written of them.

    Raises:
        TransientError: bytes were removed before they could be recorded.

    A `write` that raises undoes the whole transaction; published one by one, it is its own item's fault alone.
    """
    with ledger.write() as session:
        moment = now(session)
        moved = lifecycle.complete_stages(
            session,
            *ours(*[c for c, _ in ended]),
            result=case({c.stage_id: literal(outcome.kept, JSON) for c, outcome in ended}, value=Stage.id),
            finished_at=moment,
        )
        live = [(c, outcome) for c, outcome in ended if c.stage_id in moved]
        if live:
            _end_attempts(session, [c for c, _ in live], State.COMPLETED, moment)
            artifacts.confirm(session, *[artifact_id for _, outcome in live for artifact_id in outcome.stored])
            for _, outcome in live:
                outcome.write(session, moment)
            _go_on(session, live, moment)
    return [c for c, _ in ended if c.stage_id not in moved]


def _go_on(session: Session, ended: Sequence[tuple[Claim, Outcome]], moment: datetime) -> None:
    """Queue what the pipelines say comes after these ended stages, or end their items."""
    over: list[Claim] = []
    for c, outcome in ended:
        pipeline = pipelines.of(c.kind)
        following = pipeline.after(c.name, c.round, outcome.then)
        if following is not None:
            items = [c.item_id]
            if pipeline.stages[pipeline.place(c.name).ordinal].gathers:
                items = list(dict.fromkeys([c.item_id, *photos.waiting(session, c.batch_id, pipeline)]))
            lifecycle.enqueue(session, items, following, batch_id=c.batch_id, owner=c.owner, moment=moment)
        elif outcome.then != "wait":
            over.append(c)
    if rest := [c.item_id for c, _ in ended if c not in over]:
        lifecycle.move_items(session, State.QUEUED, Item.id.in_(rest))
    if over:
        ids = [c.item_id for c in over]
        lifecycle.move_items(session, State.COMPLETED, Item.id.in_(ids), finished_at=moment, **NO_STORY)
        for batch_id in dict.fromkeys(c.batch_id for c in over):
            lifecycle.close_batch(session, batch_id, moment)


@retrying
def fail(ledger: Ledger, c: Claim, error: FpgaError, *, max_failures: int, backoff_seconds: float) -> State:
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
        values: dict[str, Any] = {"failures": failures}
        if again:
            delay = timedelta(seconds=min(600.0, backoff_seconds * 2 ** (failures - 1)))
            values |= {"next_at": moment + delay, "hinted_at": None}
        else:
            values["finished_at"] = moment
        target = State.QUEUED if again else State.FAILED
        story = _story(c.name, c.token, error) | ({} if again else {"finished_at": moment})
        if not lifecycle.move(session, target, *ours(c), of_item=story, **lifecycle.FREE, **values):
            raise FencedError(f"stage {c.stage_id} is {stage.state} and cannot become {target}")
        _end_attempts(session, [c], State.FAILED, moment, error)
        if not again:
            _let_go(session, c)
        if not again and lifecycle.close_batch(session, c.batch_id, moment) is None:
            lifecycle.pause_hopeless(session, c.batch_id, moment)
        return target


def _let_go(session: Session, c: Claim) -> None:
    """Discard the reference pictures of an enrolment that failed: no row refers to them, and they show a face."""
    given = EnrolParams.load(c.params).references if c.kind == "enrol" else ()
    if given:
        artifacts.discard(session, [reference.artifact_id for reference in given])


@retrying
def release(ledger: Ledger, claims: Sequence[Claim], *, alone: bool = False) -> None:
    """Give claims back unharmed (drain, pause): queued again at once, no strike, no failure.

    `alone` makes each of them run by itself next time, after a fault of the group that nobody in it can be blamed for.
    """
    with ledger.write() as session:
        moment = now(session)
        changes: dict[str, Any] = {"hinted_at": None, "next_at": moment, **({"alone": True} if alone else {})}
        moved = lifecycle.move(session, State.QUEUED, *ours(*claims), **lifecycle.FREE, **changes)
        freed = {stage_id for stage_id, _ in moved}
        _end_attempts(session, [c for c in claims if c.stage_id in freed], "released", moment)


@retrying
def confirm_cancel(ledger: Ledger, claims: Sequence[Claim]) -> None:
    """Say that the work on these cancelled claims has really stopped."""
    with ledger.write() as session:
        moment = now(session)
        end_cancelled(session, *ours(*claims), moment=moment)
        for batch_id in {c.batch_id for c in claims}:
            lifecycle.close_batch(session, batch_id, moment)


def end_cancelled(session: Session, *where: ColumnElement[bool], moment: datetime) -> None:
    """Move the matching stages and their items from cancelling to cancelled."""
    cancelling = Stage.state == State.CANCELLING
    ended = {"finished_at": moment}
    moved = lifecycle.move(session, State.CANCELLED, cancelling, *where, of_item=ended, **lifecycle.FREE, **ended)
    session.execute(
        update(Attempt)
        .where(Attempt.stage_id.in_([stage_id for stage_id, _ in moved]), Attempt.outcome.is_(None))
        .values(outcome=State.CANCELLED, ended_at=moment)
    )


NO_STORY = dict.fromkeys(("error_code", "error_message", "error_stage", "error_attempt"))


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
