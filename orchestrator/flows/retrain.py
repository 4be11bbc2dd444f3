"""The flow `retrain`: begins a training run; training, evaluation, gate and promotion follow in the ledger."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from orchestrator.flows.begun import begun, same
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import training
from orchestrator.models.training import Recipe
from orchestrator.settings import get_settings


@flow(name="retrain", persist_result=False, log_prints=False)
def retrain(request: Recipe) -> State[Any]:
    """Fix the data set version of a training run, queue it and end."""
    settings = get_settings()
    recipe = training.read_recipe(request.model_dump(mode="json"))
    made = training.submit(Ledger.of(settings), settings, recipe, owner=settings.owner, idempotency_key=same())
    return begun(settings, made.batch_id)
