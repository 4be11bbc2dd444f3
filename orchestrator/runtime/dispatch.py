"""The only door out: rings the bell for workers, and delivers what committed changes ask of the outside world.

Nothing here is needed for a batch to complete: a broker or a Prefect server that is away costs latency and a view.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from orchestrator import pipelines
from orchestrator.datasets import datasets
from orchestrator.errors import FpgaError, TransientError
from orchestrator.ledger import photos, training
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches, outbox, wakeups
from orchestrator.ledger.tables.rows import Batch, Outbox
from orchestrator.models import evaluations, mlflow_export, retraining
from orchestrator.people import scan
from orchestrator.runtime.broker import Bell
from orchestrator.runtime.prefect.client import connect, locate
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
FLOW = "generate_batch"
WATCH = "watch"
"""Name of each flow's deployment: runs that show batches belong to it, and people start some from its form."""
TAG, SHOWN = "fpga", "fpga-shown"
"""Of everything of ours, and of flow runs that show a batch and have no process of their own."""
LATE = timedelta(hours=1)
"""A batch that ended so long ago gets no flow run any more: Prefect, back after a week, shall not start a thousand."""


def ring(ledger: Ledger, settings: Settings, bell: Bell | None = None) -> int:
    """Announce what is due to the workers and return how many hints went out."""
    return wakeups.ring(ledger, (bell or Bell(settings)).send, ttl_seconds=settings.hint_ttl_seconds)


def start_flow(settings: Settings, batch_id: str, kind: str) -> str:
    """Make the flow run that shows a batch and return its id; a second call gives the same run.

    It has no process and takes no slot: orchestrator.runtime.prefect.watcher moves it.

    Raises:
        TransientError: Prefect cannot be reached.
        NotFoundError: the deployment does not exist there.
    """
    with connect(settings) as api:
        deployment = api.deployment(str(pipelines.of(kind).flow), WATCH)
        run = api.call(
            "POST",
            "flow_runs/",
            {
                "flow_id": deployment["flow_id"],
                "deployment_id": deployment["id"],
                "name": batch_id,
                "parameters": {"batch_id": batch_id},
                "tags": [TAG, SHOWN, batch_id],
                "idempotency_key": batch_id,
                "state": {"type": "RUNNING", "message": "the batch was submitted"},
            },
        )
    return str(run["id"])


def deliver(
    ledger: Ledger,
    settings: Settings,
    kinds: Sequence[str] = ("batch.ended", "flow.start"),
    started: Callable[[str, str], None] = lambda batch_id, run_id: None,
) -> int:
    """Deliver the effects that are due, each at least once, and return how many got out.

    Without a Prefect server nothing is tried: flow runs wait in the ledger until there is one.

    Args:
        started: is told of every batch that got a flow run, and of the run's id.
    """
    wanted = [kind for kind in kinds if kind != "flow.start" or locate(settings)]
    with ledger.read() as session:
        due = outbox.due(session, now(session), kinds=wanted)
    delivered = 0
    for row in due:
        try:
            _deliver(ledger, settings, row, started)
        except FpgaError as error:
            log.warning("effect postponed", extra={"kind": row.kind, "ref": row.ref, "error": error.code})
            _postpone(ledger, row, error)
            if isinstance(error, TransientError):
                break  # the next one would wait for the same server
        except Exception as error:  # the outermost place of one row: what it says may not end the loop for others
            log.error("effect postponed", exc_info=error, extra={"kind": row.kind, "ref": row.ref})
            _postpone(ledger, row, FpgaError(type(error).__name__))
        else:
            _settle(ledger, row)
            delivered += 1
    return delivered


def _deliver(ledger: Ledger, settings: Settings, row: Outbox, started: Callable[[str, str], None]) -> None:
    if row.kind == "batch.ended":
        log.info("batch ended", extra={"batch": row.ref, "state": row.body["state"]})
        _follow_up(ledger, settings, row.ref)
        return
    kind = row.body["kind"]
    if pipelines.of(kind).flow and _worth_watching(ledger, row.ref):
        run_id = start_flow(settings, row.ref, kind)
        batches.set_flow_run(ledger, row.ref, run_id)
        started(row.ref, run_id)


def _follow_up(ledger: Ledger, settings: Settings, batch_id: str) -> None:
    """Do what comes after a batch of some kinds: they do not wait for Prefect either."""
    with ledger.read() as session:
        kind = session.get_one(Batch, batch_id).kind
    if kind == training.KIND:
        retraining.conclude(ledger, batch_id)
    if kind in (training.KIND, evaluations.KIND):
        mlflow_export.export(ledger, settings, batch_id)
    elif kind == datasets.KIND:
        datasets.follow(ledger, batch_id)
    elif kind == photos.SCAN:
        scan.follow(ledger, batch_id)


def _worth_watching(ledger: Ledger, batch_id: str) -> bool:
    with ledger.read() as session:
        batch = session.get_one(Batch, batch_id)
        moment: datetime = now(session)
    return batch.state not in BATCH_ENDED or batch.finished_at is None or batch.finished_at > moment - LATE


@retrying
def _settle(ledger: Ledger, row: Outbox) -> None:
    with ledger.write() as session:
        outbox.sent(session, row.id, now(session))


@retrying
def _postpone(ledger: Ledger, row: Outbox, error: FpgaError) -> None:
    with ledger.write() as session:
        outbox.postponed(session, row.id, row.tries, error.message, now(session))
