"""What every flow leaves when it has begun a batch: a link on its page, and a sentence as its end.

The flow run ends here. How far the batch is shows the run that is named by it, which the sweeper moves without a
process (orchestrator.runtime.prefect.watcher), so that nothing which waits takes a slot of a Prefect worker.
"""

from __future__ import annotations

from typing import Any

from prefect import runtime
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from orchestrator.runtime.running import find_running
from orchestrator.settings import Settings


def same() -> str:
    """Return the idempotency key of this flow run: tried again, it gives the same batch."""
    return f"prefect:{runtime.flow_run.id}"


def begun(settings: Settings, batch_id: str) -> State[Any]:
    """Return the end of a flow run that has begun this batch."""
    key, about = f"batch-{batch_id.replace('_', '-')}", f"Batch {batch_id}"
    running = find_running(settings)
    if running and running.api_url:
        create_link_artifact(
            key=key, link=f"{running.api_url}/batches/{batch_id}", link_text=batch_id, description=about
        )
    else:
        create_markdown_artifact(key=key, markdown=f"`fpga batch show {batch_id}`", description=about)
    return Completed(message=f"batch {batch_id} is made; the run of this name shows how far it is")
