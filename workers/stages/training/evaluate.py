"""Stage `evaluate`: measures model versions on held-out people and keeps the figures as rows.

After a training it measures the new version, and the live one as well where the gate could not compare them otherwise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.orm import Session

from fpga_models.errors import ModelError as NetworkError
from fpga_models.lab.evaluations import held_out_errors as held_out
from fpga_models.lab.measures.evaluate import measure
from orchestrator.contracts.training import EvaluateParams, Measured, Suite
from orchestrator.errors import NotFoundError, StageError
from orchestrator.ledger import evaluations, models
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows_training import TrainingRun
from workers.runtime.lease import Lease
from workers.runtime.stage import DrainedError, Ended, StageContext, one_by_one, version_of
from workers.stages.datasets.local_copy import materialise

log = logging.getLogger(__name__)
Advance = Callable[[int], None]
Track = Callable[[str, int], Advance]
SHARES = 100


class StoppedError(Exception):
    """The claim must stop in the middle of a measurement."""


def evaluate(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Measure what these claims ask for, one after the other; one that must stop is left out.

    Raises:
        DrainedError: the worker must stop now; what is left goes back to the queue.
    """
    for c in held:
        try:
            yield from one_by_one(context, [c], lease, lambda c: _evaluate(context, c, lease))
        except StoppedError:
            if context.draining():
                raise DrainedError from None


def _evaluate(context: StageContext, c: Claim, lease: Lease) -> Outcome:
    asked = EvaluateParams.load(c.params)
    dataset_id = asked.data_set()
    todo = _todo(context, c, asked, dataset_id)
    track = _tracker(context, c, lease, len(todo))
    found = [(version_id, suite, _figures(context, c, version_id, suite, track)) for version_id, suite in todo]

    def write(session: Session, moment: datetime) -> None:
        for version_id, suite, metrics in found:
            evaluations.store(
                session,
                c.owner,
                version_id,
                suite,
                metrics,
                dataset_id=dataset_id,
                batch_id=c.batch_id,
                moment=moment,
            )

    measured = tuple((version_id, suite.suite) for version_id, suite in todo)
    return Outcome(result=Measured(measured=measured).dump(), write=write)


def _todo(context: StageContext, c: Claim, asked: EvaluateParams, dataset_id: str | None) -> list[tuple[str, Suite]]:
    """Choose what to measure: every suite for the version, and for the live one where that was never measured."""
    with context.ledger.read() as session:
        run = session.get(TrainingRun, asked.run or "")
        version_id = run.model_version_id if run else c.model_version_id
        if version_id is None:
            raise StageError(f"item {c.item_id} has no model version to measure", code="model_not_found")
        todo = [(version_id, suite) for suite in asked.evaluations]
        try:
            live = models.resolve(session, c.preset).id
        except NotFoundError:
            return todo
        if run is None or live == version_id:
            return todo
        unknown = [suite for suite in asked.evaluations if evaluations.find(session, live, suite, dataset_id) is None]
        return todo + [(live, suite) for suite in unknown]


def _figures(context: StageContext, c: Claim, version_id: str, suite: Suite, track: Track) -> dict[str, Any]:
    """Measure one version; a data set's own people for the suite `held_out`, rendered ones for all others."""
    version = version_of(context, replace(c, model_version_id=version_id))
    log.info("measuring", extra={"version": version_id, "suite": suite.suite, "count": suite.count})
    try:
        if suite.suite == evaluations.ON_DATA_SET:
            advance = track("data set", SHARES)
            data = materialise(
                context,
                EvaluateParams.load(c.params).data_set() or "",
                Path(version.location),
                context.settings.state_dir.absolute() / "datasets",
                lambda _: advance(1),
            )
            return asdict(
                held_out.measure(Path(version.location), data, count=suite.count, device=context.settings.device)
            )
        metrics, _, _ = measure(
            suite.suite,
            Path(version.location),
            seed=suite.seed,
            count=suite.count,
            track=track,
            threads=context.settings.torch_threads or torch.get_num_threads(),
            device=context.settings.device,
        )
    except NetworkError as error:
        raise StageError(f"version {version_id} cannot be measured: {error}", code=error.code) from error
    return metrics


def _tracker(context: StageContext, c: Claim, lease: Lease, measurements: int) -> Track:
    """Return what the measurement tells its progress to: a share of the stage that only ever rises.

    How many parts a suite has is not known before it ends, so each part takes half of what is left.
    """
    share, since = 0.0, time.monotonic()

    def track(title: str, total: int) -> Advance:
        nonlocal share
        here = (1.0 - share) / (2 * max(1, measurements))
        start, done = share, 0
        share += here

        def advance(count: int = 1) -> None:
            nonlocal done, since
            since = context.make_room(c, since)
            if c.stage_id in lease.stopped or context.draining():
                raise StoppedError
            done += count
            lease.progress(c, start + here * min(1.0, done / max(1, total)))

        return advance

    return track
