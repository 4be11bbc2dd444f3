"""The flow `generate_batch`: begins a batch of portraits from a page of Prefect, or from a schedule of its own."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from orchestrator import tracing
from orchestrator.contracts.flows import Portraits
from orchestrator.flows.begun import begun, same
from orchestrator.ledger.engine.session import Ledger
from orchestrator.portraits.submit import submit_portraits
from orchestrator.settings import get_settings


@flow(name="generate_batch", persist_result=False, log_prints=False)
def generate_batch(request: Portraits) -> State[Any]:
    """Make a batch of a manifest and end."""
    settings = get_settings()
    tracing.setup(settings, "flow")
    made = submit_portraits(
        Ledger.of(settings),
        settings,
        manifest=request.manifest.encode(),
        format=request.format,
        name=request.name,
        owner=settings.owner,
        idempotency_key=same(),
        options=request.options,
    )
    return begun(settings, made.batch_id)
