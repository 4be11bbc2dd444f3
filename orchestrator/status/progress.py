"""Where a batch stands and when it will be done: counts by query, time from measured history, waiting included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from orchestrator import pipelines
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED, ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.views import history, standing
from orchestrator.ledger.views.standing import Queue
from orchestrator.planning.estimate import Eta, forecast, unmeasured


@dataclass(frozen=True, kw_only=True)
class StageNow:
    """Items that stand at a stage: waiting, running, and the mean share that the running ones have done."""

    name: str
    waiting: int
    running: int
    progress: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One look at a batch. `eta` is the whole way, waiting included; None while not known, paused, or nobody works.

    `share` in [0, 1] is what is done, in stages.
    """

    batch_id: str
    state: str
    total: int
    done: int
    counts: dict[str, int]
    verdicts: dict[str, int]
    errors: dict[str, int]
    share: float
    stages: tuple[StageNow, ...]
    workers: int
    queue_p50: float | None
    run_p50: float | None
    elapsed: float
    eta: Eta | None
    unmeasured: tuple[str, ...]
    """Stages still to come that never ran here: the time is not known before they have."""

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
        ahead = outlook(session, moment)
        left = remaining(session, batch, ahead)
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
            share=left.share,
            stages=left.stages,
            workers=len(ahead.queue.workers),
            queue_p50=_middle(waits),
            run_p50=_middle(runs),
            elapsed=((batch.finished_at or moment) - batch.created_at).total_seconds(),
            eta=left.eta,
            unmeasured=left.unmeasured,
        )


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The whole queue as it stands, and when each batch of it will be done: read once for all that are looked at."""

    queue: Queue
    etas: Mapping[str, Eta]


def outlook(session: Session, moment: datetime) -> Outlook:
    """Look ahead over the queue of everybody."""
    queue = standing.look(session, moment)
    return Outlook(queue=queue, etas=forecast(queue))


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What a batch has still before it: where its items stand, the share that is done, and the time to go.

    `share` in [0, 1] counts stages, so that what is drawn and not yet scored is worth something.
    """

    stages: tuple[StageNow, ...]
    share: float
    eta: Eta | None
    unmeasured: tuple[str, ...]


def remaining(session: Session, batch: Batch, ahead: Outlook) -> Remaining:
    """Return what a batch has before it, at a cost that does not grow with what it has done."""
    stages = _stages(history.open_stages(session, batch.id))
    here = next((one for one in ahead.queue.batches if one.id == batch.id), None)
    return Remaining(
        stages=stages,
        share=_share(session, batch, stages),
        eta=ahead.etas.get(batch.id),
        unmeasured=unmeasured(here) if here else (),
    )


def _share(session: Session, batch: Batch, stages: Sequence[StageNow]) -> float:
    pipeline = pipelines.of(batch.kind)
    names = pipeline.names
    left = 0.0
    for stage in stages:
        before = names.index(stage.name) if stage.name in names else 1
        left += (stage.waiting + stage.running) * (len(names) - before) - stage.running * stage.progress
    if pipeline.gathering:
        left += standing.parked(session, batch.id) * (len(names) - 1)
    return round(1 - min(1.0, left / max(1, batch.total * len(names))), 4)


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


def _middle(ranked: list[float]) -> float | None:
    return round(ranked[(len(ranked) - 1) // 2], 3) if ranked else None
