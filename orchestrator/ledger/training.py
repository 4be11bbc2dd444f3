"""Training runs in the ledger: submit, go on, checkpoints behind the fencing token, records of what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, select, tuple_, union_all, update
from sqlalchemy.orm import Session

from orchestrator.contracts.base import JsonObject
from orchestrator.contracts.training import RunOptions, TrainOptions, TrainParams
from orchestrator.errors import ConflictError, FencedError, NotFoundError
from orchestrator.ledger import artifacts, models
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BATCH_ENDED, LEASED
from orchestrator.ledger.queue import batches, lifecycle
from orchestrator.ledger.queue.batches import NewBatch, NewItem, Submitted
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import Artifact, Attempt, Batch, Consent, Item, Stage
from orchestrator.ledger.tables.rows_datasets import DataSetIdentity
from orchestrator.ledger.tables.rows_training import (
    ModelFile,
    TrainCheckpoint,
    TrainCheckpointFile,
    TrainingRun,
    TrainRecord,
)

KIND = "train"
KEEP = 2
"""So many of the newest checkpoints of a run are kept while it trains; one of a finished run."""


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A training run as it is submitted; `plan` is the trainer's, `options` are evaluation, gate and promotion."""

    owner: str
    name: str
    preset: str
    dataset_id: str | None
    parent_id: str | None
    plan: JsonObject
    options: RunOptions = field(default_factory=RunOptions)
    seed: int = 0
    idempotency_key: str | None = None
    request_sha256: str | None = None
    paused: bool = False


@retrying
def submit(ledger: Ledger, new: NewRun) -> tuple[str, Submitted]:
    """Write a run with its first batch in one transaction and return its id; a repeated request gives the first run.

    Raises:
        ConflictError: the idempotency key was used for another request.
    """
    with ledger.write() as session:
        run_id = new_id("trn")
        submitted = batches.enter(session, _batch(new, run_id))
        if submitted.repeated:
            return by_batch(session, submitted.batch_id).id, submitted
        session.add(
            TrainingRun(
                id=run_id,
                owner=new.owner,
                name=new.name,
                preset=new.preset,
                dataset_id=new.dataset_id,
                parent_id=new.parent_id,
                plan=new.plan,
                options=new.options.dump(),
                batch_id=submitted.batch_id,
                created_at=now(session),
            )
        )
        return run_id, submitted


def _batch(new: NewRun, run_id: str, parent_id: str | None = None) -> NewBatch:
    params = TrainParams(
        run=run_id,
        plan=new.plan,
        dataset=new.dataset_id,
        parent=new.parent_id,
        gate=new.options.gate,
        evaluations=new.options.evaluations,
        promote=new.options.promote,
    )
    item = NewItem(custom_id=run_id, params=params.dump(), params_sha256=new.request_sha256 or run_id, seed=new.seed)
    return NewBatch(
        owner=new.owner,
        kind=KIND,
        name=new.name,
        preset=new.preset,
        items=[item],
        lane="training",
        model_version_id=new.parent_id,
        parent_id=parent_id,
        idempotency_key=new.idempotency_key,
        request_sha256=new.request_sha256,
        options=TrainOptions(run=run_id).dump(),
        paused=new.paused,
    )


@retrying
def go_on(ledger: Ledger, owner: str, run_id: str) -> str:
    """Let a paused, failed or cancelled run go on from its last checkpoint and return the batch that does it.

    Raises:
        NotFoundError: no such run.
        ConflictError: it runs, or it has its version already.
    """
    with ledger.write() as session:
        run = get(session, owner, run_id)
        batch = session.get_one(Batch, run.batch_id)
        if lifecycle.resume_batch(session, batch, now(session)):
            return batch.id
        if run.model_version_id is not None:
            raise ConflictError(f"run {run.id} has made version {run.model_version_id} already", code="run_ended")
        if batch.state not in BATCH_ENDED:
            raise ConflictError(f"run {run.id} is {batch.state}", code="run_in_progress")
        again = NewRun(
            owner=owner,
            name=run.name,
            preset=run.preset,
            dataset_id=run.dataset_id,
            parent_id=run.parent_id,
            plan=run.plan,
            options=RunOptions.load(run.options),
            seed=int(run.plan.get("seed", 0)),
        )
        run.batch_id = batches.enter(session, _batch(again, run.id, batch.id)).batch_id
        return run.batch_id


def get(session: Session, owner: str, wanted: str) -> TrainingRun:
    """Return a run by id, a unique beginning of it, or the id of one of its batches.

    Raises:
        NotFoundError: there is none.
    """
    query = select(TrainingRun).where(TrainingRun.owner == owner)
    found = session.scalars(
        query.where(TrainingRun.id.startswith(wanted, autoescape=True) | (TrainingRun.batch_id == wanted)).limit(2)
    ).all()
    if len(found) != 1:
        raise NotFoundError(f"there is no one training run {wanted!r}; see `fpga train list`", code="run_not_found")
    return found[0]


def by_batch(session: Session, batch_id: str) -> TrainingRun:
    """Return the run that a batch works on.

    Raises:
        NotFoundError: it is no training batch.
    """
    run_id = TrainOptions.load(session.get_one(Batch, batch_id).options).run
    run = session.get(TrainingRun, run_id) if run_id else None
    if run is None:
        raise NotFoundError(f"batch {batch_id} does not belong to a training run", code="run_not_found")
    return run


def listing(session: Session, owner: str, *, limit: int = 50) -> Sequence[tuple[TrainingRun, Batch]]:
    """Return the newest runs with the batch that works on each."""
    query = (
        select(TrainingRun, Batch)
        .join(Batch, Batch.id == TrainingRun.batch_id)
        .where(TrainingRun.owner == owner)
        .order_by(TrainingRun.created_at.desc())
        .limit(limit)
    )
    return session.execute(query).tuples().all()


def attempts(session: Session, run_id: str) -> Sequence[tuple[Stage, Attempt]]:
    """Return every try of every stage of a run, oldest first."""
    query = (
        select(Stage, Attempt)
        .join(Attempt, Attempt.stage_id == Stage.id)
        .join(Item, Item.id == Stage.item_id)
        .where(Item.custom_id == run_id)
        .order_by(Attempt.started_at, Attempt.token)
    )
    return session.execute(query).tuples().all()


def missing_consents(session: Session, dataset_id: str, moment: datetime) -> list[str]:
    """Return the ids of people in a data set version who do not allow `train` now."""
    allowed = select(Consent.identity_id).where(
        Consent.scope == "train",
        Consent.revoked_at.is_(None),
        Consent.expires_at.is_(None) | (Consent.expires_at > moment),
    )
    query = select(DataSetIdentity.identity_id).where(
        DataSetIdentity.data_set_version_id == dataset_id, DataSetIdentity.identity_id.not_in(allowed)
    )
    return list(session.scalars(query.order_by(DataSetIdentity.identity_id)))


@retrying
def save_checkpoint(ledger: Ledger, c: Claim, run_id: str, step: int, files: Mapping[str, str]) -> None:
    """Record a whole checkpoint, its files being in the byte store already, and let older ones go.

    A run that saves is making progress, so the crashes counted against its stage are forgotten.

    Args:
        files: artifact id by path.

    Raises:
        FencedError: another worker holds the run by now; nothing was written.
        TransientError: the cleaner took a file; store it again.
    """
    with ledger.write() as session:
        moment = now(session)
        held(session, c)
        session.execute(update(Stage).where(Stage.id == c.stage_id).values(crashes=0))
        if session.get(TrainCheckpoint, (run_id, step)) is None:
            session.add(TrainCheckpoint(run_id=run_id, step=step, owner=c.owner, created_at=moment))
            for path, artifact_id in files.items():
                artifacts.confirm(session, artifact_id)
                row = TrainCheckpointFile(run_id=run_id, step=step, path=path, owner=c.owner, artifact_id=artifact_id)
                session.add(row)
            session.flush()
        drop_checkpoints(session, run_id, keep=KEEP, moment=moment)


def held(session: Session, c: Claim) -> None:
    """Check inside a transaction that this claim still holds its stage, and keep others off until it is over.

    Raises:
        FencedError: it does not.
    """
    ours = (Stage.id == c.stage_id, Stage.token == c.token, Stage.state.in_(LEASED))
    if session.scalar(select(Stage.id).where(*ours).with_for_update()) is None:
        raise FencedError(f"stage {c.stage_id} is no longer held by attempt {c.token}")


def drop_checkpoints(session: Session, run_id: str, *, keep: int, moment: datetime) -> None:
    """Forget all but the newest checkpoints of a run; the cleaner takes bytes that nothing else refers to."""
    steps = session.scalars(
        select(TrainCheckpoint.step).where(TrainCheckpoint.run_id == run_id).order_by(TrainCheckpoint.step.desc())
    ).all()
    old = steps[keep:]
    files = TrainCheckpointFile.run_id == run_id, TrainCheckpointFile.step.in_(old)
    freed = set(session.scalars(select(TrainCheckpointFile.artifact_id).where(*files)))
    session.execute(delete(TrainCheckpointFile).where(*files))
    session.execute(delete(TrainCheckpoint).where(TrainCheckpoint.run_id == run_id, TrainCheckpoint.step.in_(old)))
    release_files(session, freed, moment)


def release_files(session: Session, artifact_ids: set[str], moment: datetime) -> None:
    """Let the cleaner take those of these artifacts that no checkpoint, version or record refers to."""
    used = union_all(*(_used(table, artifact_ids) for table in (TrainCheckpointFile, ModelFile, TrainRecord)))
    free = artifact_ids - set(session.scalars(used))
    session.execute(update(Artifact).where(Artifact.id.in_(free)).values(expires_at=moment))


def _used(table: type[TrainCheckpointFile | ModelFile | TrainRecord], artifact_ids: set[str]) -> Select[Any]:
    return select(table.artifact_id).where(table.artifact_id.in_(artifact_ids))


@retrying
def drop_checkpoint(ledger: Ledger, c: Claim, run_id: str, step: int) -> None:
    """Forget a checkpoint that cannot be read.

    Raises:
        FencedError: another worker holds the run by now.
    """
    with ledger.write() as session:
        held(session, c)
        for table in (TrainCheckpointFile, TrainCheckpoint):
            session.execute(delete(table).where(table.run_id == run_id, table.step == step))


def checkpoints(session: Session, run_id: str) -> list[tuple[int, dict[str, Artifact]]]:
    """Return step and files by path of the checkpoints of a run, newest first."""
    query = (
        select(TrainCheckpointFile.step, TrainCheckpointFile.path, Artifact)
        .join(Artifact, Artifact.id == TrainCheckpointFile.artifact_id)
        .where(TrainCheckpointFile.run_id == run_id)
        .order_by(TrainCheckpointFile.step.desc(), TrainCheckpointFile.path)
    )
    found: dict[int, dict[str, Artifact]] = {}
    for step, path, artifact in session.execute(query).tuples():
        found.setdefault(step, {})[path] = artifact
    return list(found.items())


@dataclass(frozen=True, kw_only=True)
class NewRecord:
    """What a run says about one of its steps; `kind` is step, validation or sample."""

    kind: str
    step: int
    facts: dict[str, Any]
    artifact_id: str | None = None


@retrying
def record(ledger: Ledger, c: Claim, run_id: str, found: Sequence[NewRecord]) -> None:
    """Write records of a run; a step that is done again after a loss replaces what was said about it.

    Raises:
        FencedError: another worker holds the run by now; nothing was written.
    """
    with ledger.write() as session:
        moment = now(session)
        held(session, c)
        keys = [(new.kind, new.step) for new in found]
        mine = TrainRecord.run_id == run_id, tuple_(TrainRecord.kind, TrainRecord.step).in_(keys)
        session.execute(delete(TrainRecord).where(*mine))
        for new in found:
            if new.artifact_id is not None:
                artifacts.confirm(session, new.artifact_id)
            session.add(
                TrainRecord(
                    run_id=run_id,
                    kind=new.kind,
                    step=new.step,
                    owner=c.owner,
                    facts=new.facts,
                    artifact_id=new.artifact_id,
                    at=moment,
                )
            )


def records(session: Session, run_id: str, kind: str, *, after: int = -1, limit: int = 10_000) -> Sequence[TrainRecord]:
    """Return records of one kind with a step greater than `after`, in the order of steps."""
    query = (
        select(TrainRecord)
        .where(TrainRecord.run_id == run_id, TrainRecord.kind == kind, TrainRecord.step > after)
        .order_by(TrainRecord.step)
        .limit(limit)
    )
    return session.scalars(query).all()


def last_record(session: Session, run_id: str, kind: str) -> TrainRecord | None:
    """Return the newest record of one kind, or None."""
    query = select(TrainRecord).where(TrainRecord.run_id == run_id, TrainRecord.kind == kind)
    return session.scalars(query.order_by(TrainRecord.step.desc()).limit(1)).first()


def steps(run: TrainingRun) -> int:
    """Return the steps of all stages of a run's plan."""
    return sum(int(run.plan[stage]["steps"]) for stage in ("mmf", "clone"))


def seconds_left(run: TrainingRun, last: TrainRecord | None) -> float | None:
    """Return how long a run still computes by its last report of a step; None where that tells no pace."""
    pace = last.facts.get("steps_per_s") if last else None
    return round((steps(run) - last.step) / float(pace), 1) if last and pace else None


def forget(session: Session, dataset_ids: Sequence[str], moment: datetime) -> list[str]:
    """Stop the runs on these data sets, take away their checkpoints and pictures, taint their versions; return those.

    Called in the transaction that erases a person or taints a data set.
    """
    for run in session.scalars(select(TrainingRun).where(TrainingRun.dataset_id.in_(dataset_ids))).all():
        lifecycle.cancel_batch(session, run.batch_id, moment, reason="its data set was withdrawn")
        drop_checkpoints(session, run.id, keep=0, moment=moment)
        pictures = TrainRecord.run_id == run.id, TrainRecord.kind == "sample"
        shown = set(session.scalars(select(TrainRecord.artifact_id).where(*pictures))) - {None}
        session.execute(delete(TrainRecord).where(*pictures))
        release_files(session, {artifact_id for artifact_id in shown if artifact_id}, moment)
    return models.taint(session, dataset_ids, moment)
