"""The flow `build_dataset`: stores the chunks of a source and queues those that are new; the rest follows by itself."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.flows.begun import begun
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import get_settings
from orchestrator.storage import open_store


@flow(name="build_dataset", persist_result=False, log_prints=False)
def build_dataset(request: BuildRequest) -> State[Any]:
    """Read a source and begin its build; the source is readable where this flow runs."""
    settings = get_settings()
    made = datasets.build(
        Ledger.of(settings),
        open_store(settings),
        settings,
        request,
        owner=settings.owner,
        operator=True,  # only the operator reaches these pages
    )
    return begun(settings, made.batch_id)
