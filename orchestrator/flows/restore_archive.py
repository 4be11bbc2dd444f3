"""The flow `restore_archive`: one run for each archive: reads the source into the batch, then watches it to its end.

The first photos are worked on while later ones are read. Killed and run again, it reads on where the ledger says that
it stopped. Finished photos are written where they were asked for as they come.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from orchestrator.archive.reach import Reach
from orchestrator.contracts.photos import PhotoOptions, RestoreOptions
from orchestrator.errors import ConflictError, FpgaError, TransientError, UsageError
from orchestrator.flows.generate_batch import (
    leave_artifact,
    look,
    scheduled_key,
    sentence,
    watch_batch,
)
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.photos import feeding, restore
from orchestrator.photos.feeding import Fed
from orchestrator.results.delivery import Delivery
from orchestrator.settings import Settings, get_settings
from orchestrator.status.watching import LONGEST_PAUSE_SECONDS
from orchestrator.storage import ByteStore, open_store


@flow(name="restore_archive", persist_result=False, log_prints=False)
def restore_archive(batch_id: str | None = None, archive: dict[str, Any] | None = None) -> State[Any]:
    """Feed and watch a restore batch, opening it first for an archive if no id is given.

    Args:
        batch_id: an open batch, from `fpga restore`.
        archive: `source`, `owner`, optionally `out`, and `options` of RestoreOptions, from a schedule.

    Returns:
        Completed when every photo has ended, Cancelled when the batch was cancelled, Failed when its source could not
        be read.
    """
    settings = get_settings()
    ledger, store = Ledger.of(settings), open_store(settings)
    if batch_id is None:
        batch_id = _open(ledger, settings, archive)
    batch, _ = look(ledger, batch_id)
    options = PhotoOptions.load(batch.options)
    reach = Reach(settings=settings, owner=batch.owner, operator=options.operator)
    delivery = Delivery(ledger, store, batch.owner, batch.id, options.out, reach) if options.out else None
    if batch.open:
        try:
            _feed(ledger, store, settings, batch, delivery)
        except FpgaError as error:
            batches.close(ledger, batch.owner, batch.id, rejected=error)
            return Failed(message=f"the source could not be read on: {error.message}")
    batch, counts = _watch(ledger, batch_id, delivery)
    leave_artifact(ledger, batch, counts)
    message = sentence(batch, counts)
    return Cancelled(message=message) if batch.state == "cancelled" else Completed(message=message)


def _open(ledger: Ledger, settings: Settings, archive: dict[str, Any] | None) -> str:
    if archive is None:
        raise UsageError("restore_archive needs batch_id or archive, got neither")
    return restore.submit(
        ledger,
        settings,
        source=archive["source"],
        options=RestoreOptions.asked(**archive["options"]),
        owner=archive["owner"],
        out=archive.get("out"),
        idempotency_key=scheduled_key(),
        flow=False,
        operator=True,  # only the operator writes schedules of archives
    ).batch_id


def _feed(ledger: Ledger, store: ByteStore, settings: Settings, batch: Batch, delivery: Delivery | None) -> None:
    log = get_run_logger()
    told = 0

    def tick(fed: Fed) -> None:
        nonlocal told
        if fed.waiting:
            log.warning("reading waits: %s", fed.waiting)
        elif fed.photos >= 2 * told:
            told = max(1, fed.photos)
            log.info("%d photos read", fed.photos)
        _deliver(delivery)

    while True:
        try:
            feeding.feed(ledger, store, settings, batch.owner, batch.id, tick)
        except ConflictError as error:
            # the command line that opened the batch, or the run before this one, may still hold it
            if error.code != "feeding":
                raise
            if not look(ledger, batch.id)[0].open:
                return
            time.sleep(LONGEST_PAUSE_SECONDS)
        else:
            return


def _watch(ledger: Ledger, batch_id: str, delivery: Delivery | None) -> tuple[Batch, dict[str, int]]:
    ended = watch_batch(ledger, batch_id, lambda batch: None if batch.state in BATCH_ENDED else _deliver(delivery))
    if delivery is not None:
        delivery.finish()
    return ended


def _deliver(delivery: Delivery | None) -> None:
    if delivery is None:
        return
    try:
        delivery.step()
    except TransientError as error:
        get_run_logger().warning("results wait to be written: %s", error.message)
