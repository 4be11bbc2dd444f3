"""The flow `evaluate`: asks for a measurement of a model version, which a worker makes as a ledger stage."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from orchestrator.contracts.flows import Evaluation
from orchestrator.flows.begun import begun
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import evaluations
from orchestrator.settings import get_settings


@flow(name="evaluate", persist_result=False, log_prints=False)
def evaluate(request: Evaluation) -> State[Any]:
    """Queue a measurement and end."""
    settings = get_settings()
    batch_id = evaluations.submit(Ledger.of(settings), owner=settings.owner, **request.model_dump())
    return begun(settings, batch_id)
