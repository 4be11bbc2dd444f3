"""The flow `build_dataset`: one run for each build of a data set: read the source, annotate its chunks, publish.

Like every flow it only wires: chunks and the arrangement are ledger stages on the workers' queues, so a flow run that
is killed and started again finds what has been done. Without a Prefect server the sweeper arranges by itself.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from orchestrator.datasets import dataset_views, datasets
from orchestrator.datasets.datasets import BuildRequest, Progress
from orchestrator.errors import UsageError
from orchestrator.flows.generate_batch import ledger_away
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Batch
from orchestrator.settings import Settings, get_settings
from orchestrator.status import watching
from orchestrator.status.watching import LONGEST_PAUSE_SECONDS, Tenths
from orchestrator.storage import open_store


@flow(name="build_dataset", persist_result=False, log_prints=False)
def build_dataset(batch_id: str | None = None, request: dict[str, Any] | None = None) -> State[Any]:
    """Watch a build until its version is published, beginning it first from a request if no batch is given.

    Args:
        batch_id: the build's batch, from `fpga dataset build`.
        request: fields of `orchestrator.datasets.datasets.BuildRequest`, from a schedule; the source is readable here.

    Returns:
        Completed with the version's id, Failed when nothing was published; the message says why.
    """
    settings = get_settings()
    ledger = Ledger.of(settings)
    if batch_id is None:
        if request is None:
            raise UsageError("build_dataset needs batch_id or request, got neither")
        batch_id = read_source(ledger, settings, request)
    with ledger.read() as session:
        owner = session.get_one(Batch, batch_id).owner
    annotate(ledger, owner, batch_id)
    found = arrange(ledger, owner, batch_id)
    if found.version_id is None:
        assert found.error is not None, "a build ends with a version or an error"
        return Failed(message=f"{found.error['code']}: {found.error['message']}"[:500])
    _leave_artifact(ledger, owner, found.version_id)
    return Completed(message=f"published {found.version_id}")


@task(persist_result=False, cache_policy=NO_CACHE)
def read_source(ledger: Ledger, settings: Settings, request: dict[str, Any]) -> str:
    """Store the chunks of a scheduled build and queue those that are new."""
    made = datasets.build(
        ledger,
        open_store(settings),
        settings,
        BuildRequest(**request),
        owner=settings.owner,
        flow_run_id=str(runtime.flow_run.id),
        operator=True,  # only the operator writes schedules of builds
    )
    get_run_logger().info("%d pictures, %d chunks, %d known already", made.pictures, made.chunks, made.reused)
    return made.batch_id


@task(persist_result=False, cache_policy=NO_CACHE)
def annotate(ledger: Ledger, owner: str, batch_id: str) -> Progress:
    """Wait until every chunk is built, or one cannot be."""
    return _watch(ledger, owner, batch_id, until="arrange")


@task(persist_result=False, cache_policy=NO_CACHE)
def arrange(ledger: Ledger, owner: str, batch_id: str) -> Progress:
    """Wait until the whole is decided and published, or cannot be."""
    return _watch(ledger, owner, batch_id, until=None)


def _watch(ledger: Ledger, owner: str, batch_id: str, *, until: str | None) -> Progress:
    """Wait until the phase `until` or the end; log a line whenever a tenth of the chunks more is done."""
    log, tenths = get_run_logger(), Tenths()
    told: set[str | None] = {None}

    def tell(found: Progress) -> None:
        if found.paused not in told:
            log.warning("%s", found.paused)
        told.add(found.paused)
        if tenths.came(found.done, found.total):
            log.info("%s: %d of %d", found.phase, found.done, found.total)

    return watching.until(
        lambda: datasets.progress(ledger, owner, batch_id),
        lambda found: found.ended or found.phase == until,
        tell,
        away=ledger_away,
        longest=LONGEST_PAUSE_SECONDS,
    )


def _leave_artifact(ledger: Ledger, owner: str, version_id: str) -> None:
    """Show what was published, and what was left out, on the flow run's page."""
    version = dataset_views.show(ledger, owner, version_id)
    facts = version["facts"]
    rows = {f"{side} pictures": part["pictures"] for side, part in facts["splits"].items()}
    rows |= {f"refused: {code}": count for code, count in facts["refused"].items()}
    rows |= {f"left out: {reason}": count for reason, count in facts["left_out"].items()}
    table = "\n".join(f"| {name} | {count} |" for name, count in rows.items())
    create_markdown_artifact(
        key=f"dataset-{version_id.replace('_', '-')}",
        description=f"Data set version {version_id}",
        markdown=(
            f"**{version['name']}@{version['number']}** {version_id}\n\n| | |\n| --- | --- |\n{table}\n\n"
            f"More: `fpga dataset show {version_id}`\n"
        ),
    )
