"""Where a batch stands and when it will be done: counts by query, time from measured history, waiting kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy.orm import Session

from orchestrator import pipelines
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED, ENDED
from orchestrator.ledger.queue import batches, workers
from orchestrator.ledger.tables.rows import Batch, Worker
from orchestrator.ledger.views import history
from orchestrator.planning.estimate import MIN_HISTORY, Eta, estimate
from orchestrator.portraits.submit import stage_loads


@dataclass(frozen=True, kw_only=True)
class StageNow:
    """Items that stand at a stage: waiting, running, and the mean share that the running ones have done."""

    name: str
    waiting: int
    running: int
    progress: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One look at a batch. `eta` is None before anything was measured, while paused, and where nobody works."""

    batch_id: str
    state: str
    total: int
    done: int
    counts: dict[str, int]
    verdicts: dict[str, int]
    errors: dict[str, int]
    stages: tuple[StageNow, ...]
    workers: int
    queue_p50: float | None
    run_p50: float | None
    elapsed: float
    eta: Eta | None
    unmeasured: tuple[str, ...]
    """Stages still to come that never ran here; the estimate leaves them out."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in BATCH_ENDED

    def as_json(self) -> dict[str, Any]:
        """Return the object that watchers print, one line for each look."""
        return {"object": "batch.progress", **asdict(self)}

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Progress:
        """Return the look that an object of `as_json` tells of; names that a newer server added are left out."""
        known = {field.name: said[field.name] for field in fields(cls)}
        stages = tuple(StageNow(**stage) for stage in said["stages"])
        eta = Eta(**said["eta"]) if said["eta"] else None
        return cls(**known | {"stages": stages, "eta": eta, "unmeasured": tuple(said["unmeasured"])})


def look(ledger: Ledger, owner: str, batch_id: str) -> Progress:
    """Take one look at a batch, in one read of the ledger.

    Raises:
        NotFoundError: there is no such batch of this owner.
    """
    with ledger.read() as session:
        moment = now(session)
        batch = batches.get(session, owner, batch_id)
        counts = batches.counts(session, batch.id)
        left = remaining(session, batch, living := workers.living(session, moment))
        times = history.stage_times(session, batch.id)
        waits = sorted(seconds for of_stage in times.values() for seconds in of_stage.queue)
        runs = sorted(seconds for of_stage in times.values() for seconds in of_stage.run)
        return Progress(
            batch_id=batch.id,
            state=batch.state,
            total=batch.total,
            done=sum(counts[state] for state in ENDED),
            counts=counts,
            verdicts=batches.verdict_counts(session, batch.id),
            errors=batches.error_counts(session, batch.id),
            stages=left.stages,
            workers=len(living),
            queue_p50=_middle(waits),
            run_p50=_middle(runs),
            elapsed=((batch.finished_at or moment) - batch.created_at).total_seconds(),
            eta=left.eta,
            unmeasured=left.unmeasured,
        )


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What a batch has still before it: where its items stand, and the time that its own work needs."""

    stages: tuple[StageNow, ...]
    eta: Eta | None
    unmeasured: tuple[str, ...]


def remaining(session: Session, batch: Batch, living: Sequence[Worker]) -> Remaining:
    """Return what a batch has before it, at a cost that does not grow with what it has done."""
    stages = _stages(history.open_stages(session, batch.id))
    pace = history.running_pace(session, batch.id)
    loads = [load for load in stage_loads(session, batch.preset, _left(batch, stages), pace=pace) if load.left]
    measured = [load for load in loads if len(load.durations) >= MIN_HISTORY]
    open_ = batch.state == "in_progress" and bool(living) and bool(measured)
    return Remaining(
        stages=stages,
        eta=estimate(measured) if open_ else None,
        unmeasured=tuple(load.name for load in loads if load not in measured),
    )


def _stages(found: Sequence[history.OpenStage]) -> tuple[StageNow, ...]:
    names = dict.fromkeys(stage.name for stage in found)
    summed = []
    for name in names:
        running = [s for s in found if s.name == name and s.state in ("running", "cancelling", "leased")]
        count = sum(s.count for s in running)
        summed.append(
            StageNow(
                name=name,
                waiting=sum(s.count for s in found if s.name == name and s.state == "queued"),
                running=count,
                progress=round(sum(s.progress for s in running) / count, 3) if count else 0.0,
            )
        )
    return tuple(summed)


def _left(batch: Batch, stages: tuple[StageNow, ...]) -> dict[str, int]:
    """Return how many items have each stage of the pipeline still before them, work already done deducted."""
    pipeline = pipelines.of(batch.kind).names
    left = dict.fromkeys(pipeline, 0)
    for stage in stages:
        if stage.name not in left:
            continue
        here = pipeline.index(stage.name)
        left[stage.name] += stage.waiting + round(stage.running * (1 - stage.progress))
        for later in pipeline[here + 1 :]:
            left[later] += stage.waiting + stage.running
    return left


def _middle(ranked: list[float]) -> float | None:
    return round(ranked[(len(ranked) - 1) // 2], 3) if ranked else None
