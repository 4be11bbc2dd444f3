"""The only door out: rings the bell for workers, and delivers what committed changes ask of the outside world.

Nothing here is needed for a batch to complete: a broker or a Prefect server that is away costs latency and a view.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from orchestrator import logs, pipelines
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
"""Name of each flow's deployment without a schedule: it watches batches that were submitted by hand."""
TAG = "fpga"
LATE = timedelta(hours=1)
"""A batch that ended so long ago gets no flow run any more: Prefect, back after a week, shall not start a thousand."""


def ring(ledger: Ledger, settings: Settings, bell: Bell | None = None) -> int:
    """Announce what is due to the workers and return how many hints went out."""
    return wakeups.ring(ledger, (bell or Bell(settings)).send, ttl_seconds=settings.hint_ttl_seconds)


def read_on(ledger: Ledger, settings: Settings) -> int:
    """Start a flow run for every archive whose reader was killed, once for each time, and return how many there are."""
    if not locate(settings):
        return 0
    with ledger.read() as session:
        lapsed = photos.unread(session, now(session))
    for batch_id, until in lapsed:
        key = f"{batch_id}:{until.timestamp():.0f}"
        with logs.surviving("reading on postponed", batch=batch_id):
            batches.set_flow_run(ledger, batch_id, start_flow(settings, batch_id, photos.KIND, key=key))
    return len(lapsed)


def start_flow(settings: Settings, batch_id: str, kind: str, *, key: str | None = None) -> str:
    """Start the flow run that watches a batch and return its id; a second call gives the same run.

    Args:
        key: what makes it the same; the batch's id, unless a run is to follow a killed one.

    Raises:
        TransientError: Prefect cannot be reached.
        NotFoundError: the deployment does not exist there.
    """
    with connect(settings) as api:
        run = api.create_flow_run(
            api.deployment(str(pipelines.of(kind).flow), WATCH)["id"],
            name=batch_id,
            parameters={"batch_id": batch_id},
            tags=[TAG, batch_id],
            idempotency_key=key or batch_id,
        )
    return str(run["id"])


def deliver(ledger: Ledger, settings: Settings) -> int:
    """Deliver the effects that are due, each at least once, and return how many got out.

    Without a Prefect server nothing is tried: flow runs wait in the ledger until there is one.
    """
    kinds = ["batch.ended"] + (["flow.start"] if locate(settings) else [])
    with ledger.read() as session:
        due = outbox.due(session, now(session), kinds=kinds)
    delivered = 0
    for row in due:
        try:
            _deliver(ledger, settings, row)
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


def _deliver(ledger: Ledger, settings: Settings, row: Outbox) -> None:
    if row.kind == "batch.ended":
        log.info("batch ended", extra={"batch": row.ref, "state": row.body["state"]})
        _follow_up(ledger, settings, row.ref)
        return
    kind = row.body["kind"]
    if pipelines.of(kind).flow and _worth_watching(ledger, row.ref):
        batches.set_flow_run(ledger, row.ref, start_flow(settings, row.ref, kind))


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
