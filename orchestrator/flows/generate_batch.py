"""The flow `generate_batch`: one run for each batch, which it watches from the ledger until it has ended.

It computes nothing, holds nothing and decides nothing: killed and run again, it finds the same batch and goes on
watching. Cancelling the flow run does not cancel the batch; `fpga batch cancel` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from orchestrator import tracing
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import TransientError, UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.portraits.submit import submit_portraits
from orchestrator.settings import Settings, get_settings
from orchestrator.status.watching import LONGEST_PAUSE_SECONDS, Tenths, until
from orchestrator.storage import open_store


@flow(name="generate_batch", persist_result=False, log_prints=False)
def generate_batch(batch_id: str | None = None, manifest: dict[str, Any] | None = None) -> State[Any]:
    """Watch a batch until it has ended, making it first from a stored manifest if no id is given.

    Args:
        batch_id: the batch to watch, from `fpga batch submit`.
        manifest: the fields of `orchestrator.runtime.prefect.deployments.StoredManifest`, from a schedule.

    Returns:
        Completed when every item has ended, be it well or not (the message says so), Cancelled when the batch was
        cancelled; anything raised here is a fault of the system and fails the run.
    """
    settings = get_settings()
    tracing.setup(settings, "flow")
    ledger = Ledger.of(settings)
    if batch_id is None:
        if manifest is None:
            raise UsageError("generate_batch needs batch_id or manifest, got neither")
        batch_id = _submit(ledger, settings, manifest)
    batch, counts = watch_batch(ledger, batch_id)
    message = sentence(batch, counts)
    leave_artifact(ledger, batch, counts)
    if batch.state == "cancelled":
        return Cancelled(message=message)
    return Failed(message=message) if batch.state == "failed" else Completed(message=message)


def scheduled_key() -> str:
    """Return the idempotency key of this run: two runs of one deployment for one moment make one batch."""
    moment = runtime.flow_run.scheduled_start_time
    return f"{runtime.deployment.id}:{moment.isoformat()}"


def _submit(ledger: Ledger, settings: Settings, manifest: dict[str, Any]) -> str:
    stored = open_store(settings).get(manifest["key"], sha256=manifest["sha256"])
    made = submit_portraits(
        ledger,
        settings,
        manifest=stored,
        format=manifest["format"],
        name=manifest["name"],
        owner=manifest["owner"],
        idempotency_key=scheduled_key(),
        options=SubmitOptions.load(manifest.get("options", {})),
        flow_run_id=str(runtime.flow_run.id),
    )
    log = get_run_logger()
    log.info("batch %s %s", made.batch_id, "had been made by an earlier run" if made.repeated else "made")
    return made.batch_id


def watch_batch(
    ledger: Ledger, batch_id: str, tell: Callable[[Batch], None] | None = None
) -> tuple[Batch, dict[str, int]]:
    """Wait until the batch has ended, telling each look; log a line whenever a tenth of it more is done."""
    log, tenths = get_run_logger(), Tenths()

    def each(found: tuple[Batch, dict[str, int]]) -> None:
        batch, counts = found
        done = sum(counts[state] for state in ("completed", "failed", "cancelled", "held"))
        if batch.state not in BATCH_ENDED and tenths.came(done, batch.total):
            log.info("batch %s is %s: %d of %d items have ended", batch.id, batch.state, done, batch.total)
        if tell is not None:
            tell(batch)

    return until(
        lambda: look(ledger, batch_id),
        lambda found: found[0].state in BATCH_ENDED,
        each,
        away=ledger_away,
        longest=LONGEST_PAUSE_SECONDS,
    )


def ledger_away(error: TransientError) -> None:
    """Log that the ledger does not answer; a flow waits for it."""
    get_run_logger().warning("the ledger does not answer: %s", error.message)


def look(ledger: Ledger, batch_id: str) -> tuple[Batch, dict[str, int]]:
    """Return a batch as it stands, with its counts by state."""
    with ledger.read() as session:
        batch = session.get(Batch, batch_id)
        if batch is None:
            raise UsageError(f"there is no batch {batch_id!r} in this ledger", code="batch_not_found")
        return batch, batches.counts(session, batch_id)


def sentence(batch: Batch, counts: dict[str, int]) -> str:
    """Say in one line how a batch has ended."""
    bad = counts["failed"] + counts["held"]
    refused = f", {len(batch.rejected_rows)} rows were refused" if batch.rejected_rows else ""
    return f"{batch.state}: {counts['completed']} of {batch.total} items completed, {bad} failed{refused}"


def leave_artifact(ledger: Ledger, batch: Batch, counts: dict[str, int]) -> None:
    """Show counts, verdicts and the way to the results on the flow run's page."""
    with ledger.read() as session:
        rows = {
            **{state: count for state, count in counts.items() if count},
            **{f"verdict {verdict}": count for verdict, count in batches.verdict_counts(session, batch.id).items()},
            **{f"error {code}": count for code, count in batches.error_counts(session, batch.id).items()},
        }
    table = "\n".join(f"| {name} | {count} |" for name, count in rows.items())
    create_markdown_artifact(
        key=f"batch-{batch.id.replace('_', '-')}",
        description=f"Batch {batch.id}",
        markdown=(
            f"**{batch.state}** {batch.id}, {batch.total} items\n\n| | items |\n| --- | --- |\n{table}\n\n"
            f"Pictures: `fpga batch results {batch.id} --download DIR`\n"
        ),
    )
