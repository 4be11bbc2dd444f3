"""The flow `restore_archive`: opens a batch for an archive; the sweeper reads it (orchestrator.runtime.reading)."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from orchestrator.contracts.flows import Archive
from orchestrator.flows.begun import begun, same
from orchestrator.ledger.engine.session import Ledger
from orchestrator.photos import restore
from orchestrator.settings import get_settings


@flow(name="restore_archive", persist_result=False, log_prints=False)
def restore_archive(request: Archive) -> State[Any]:
    """Open a batch for an archive and end."""
    settings = get_settings()
    made = restore.submit(
        Ledger.of(settings),
        settings,
        source=request.source,
        options=request.options,
        owner=settings.owner,
        out=request.out,
        idempotency_key=same(),
        operator=True,  # only the operator reaches these pages
    )
    return begun(settings, made.batch_id)
