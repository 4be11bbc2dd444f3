"""The flow `evaluate`: one run for each measurement of a model version, which a worker makes as a ledger stage."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from orchestrator.errors import UsageError
from orchestrator.flows.generate_batch import watch_batch
from orchestrator.ledger import evaluations as rows
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import evaluations
from orchestrator.models.lineage import flatten
from orchestrator.settings import get_settings


@flow(name="evaluate", persist_result=False, log_prints=False)
def evaluate(batch_id: str | None = None, recipe: dict[str, Any] | None = None) -> State[Any]:
    """Watch a measurement until it has ended, asking for it first if no batch is given.

    Args:
        batch_id: from `fpga evaluate run`.
        recipe: arguments of `orchestrator.models.evaluations.submit`: model, suites, seed, count, dataset.
    """
    settings = get_settings()
    ledger = Ledger.of(settings)
    if batch_id is None:
        if recipe is None:
            raise UsageError("evaluate needs batch_id or recipe, got neither")
        batch_id = evaluations.submit(ledger, owner=settings.owner, **recipe)
    batch, _ = watch_batch(ledger, batch_id)
    with ledger.read() as session:
        found = rows.of_batch(session, batch_id)
    for row in found:
        lines = "\n".join(f"| {name} | {value} |" for name, value in flatten(row.figures).items())
        create_markdown_artifact(
            key=f"evaluation-{row.id.replace('_', '-')}",
            description=f"{row.suite} of {row.model_version_id}",
            markdown=f"**{row.suite}** of {row.model_version_id}\n\n| figure | value |\n| --- | --- |\n{lines}\n",
        )
    if batch.state == "cancelled":
        return Cancelled(message=batch.state)
    message = f"{batch.state}: {', '.join(row.suite for row in found) or 'nothing'} measured"
    return Completed(message=message) if batch.state == "completed" else Failed(message=message)
