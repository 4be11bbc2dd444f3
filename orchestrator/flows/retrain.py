"""The flow `retrain`: one run for each training run: snapshot, train, evaluate, gate, promote.

Like every flow it only wires: training and evaluation are ledger stages, gate and promotion one idempotent transaction,
so a flow run that is killed and started again finds what has been done. Without a Prefect server the sweeper concludes
the run by itself. Cancelling the flow run does not cancel the training; `fpga train cancel` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from orchestrator.errors import UsageError
from orchestrator.flows.generate_batch import ledger_away, scheduled_key
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.tables.rows import Batch
from orchestrator.models import retraining, training
from orchestrator.settings import Settings, get_settings
from orchestrator.status.watching import LONGEST_PAUSE_SECONDS, Tenths, until

Run = dict[str, Any]


@flow(name="retrain", persist_result=False, log_prints=False)
def retrain(batch_id: str | None = None, recipe: dict[str, Any] | None = None) -> State[Any]:
    """Watch a training run until the gate has decided, beginning it first from a recipe if no batch is given.

    Args:
        batch_id: batch of a run, from `fpga train run`.
        recipe: fields of `orchestrator.models.training.Recipe`, from a schedule; its data set is resolved now.

    Returns:
        Completed when the gate has decided, be it for or against the version (the message says so), Cancelled when the
        run was cancelled, Failed when it failed.
    """
    settings = get_settings()
    ledger = Ledger.of(settings)
    run = snapshot(ledger, settings, batch_id, recipe)
    run = train(ledger, run)
    if run["model_version_id"] is not None:
        run = evaluate(ledger, run)
    if run["state"] != "completed":
        return _ended(run)
    decision = gate(ledger, run)
    promote(decision)
    _leave_artifact(run, decision)
    reasons = "; ".join(decision["reasons"])
    passed = f"{decision['model_version_id']} passed and is now {decision['alias']}"
    return Completed(message=passed if decision["passed"] else f"refused: {reasons}"[:500])


@task(persist_result=False, cache_policy=NO_CACHE)
def snapshot(ledger: Ledger, settings: Settings, batch_id: str | None, recipe: dict[str, Any] | None) -> Run:
    """Fix the data set version of a scheduled run and queue it; a run that exists is only looked up."""
    if batch_id is not None:
        with ledger.read() as session:
            owner = session.get_one(Batch, batch_id).owner
        return training.show(ledger, owner, batch_id)
    if recipe is None:
        raise UsageError("retrain needs batch_id or recipe, got neither")
    made = training.submit(
        ledger,
        settings,
        training.read_recipe(recipe),
        owner=settings.owner,
        idempotency_key=scheduled_key(),
        flow_run_id=str(runtime.flow_run.id),
    )
    get_run_logger().info("run %s %s", made.run_id, "had been made by an earlier run" if made.repeated else "made")
    return training.show(ledger, settings.owner, made.run_id)


@task(persist_result=False, cache_policy=NO_CACHE)
def train(ledger: Ledger, run: Run) -> Run:
    """Wait until the weights are made or the run has ended otherwise."""
    return _watch(ledger, run, lambda now: now["model_version_id"] is not None)


@task(persist_result=False, cache_policy=NO_CACHE)
def evaluate(ledger: Ledger, run: Run) -> Run:
    """Wait until the new version was measured."""
    return _watch(ledger, run, lambda now: False)


@task(persist_result=False, cache_policy=NO_CACHE)
def gate(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Let the rules decide; the sweeper may have been faster, which changes nothing."""
    decision = retraining.conclude(ledger, run["batch_id"])
    assert decision is not None, "a completed run has a version to decide on"
    log = get_run_logger()
    for check in decision["checks"]:
        log.info("%s: %s", "pass" if check["passed"] else "FAIL", check["reason"])
    return decision


@task(persist_result=False, cache_policy=NO_CACHE)
def promote(decision: dict[str, Any]) -> None:
    """Show which alias moved; it did so in the transaction that decided."""
    moved = decision["alias"]
    get_run_logger().info("%s", f"{moved} is now {decision['model_version_id']}" if moved else "no alias moved")


def _watch(ledger: Ledger, run: Run, done: Callable[[Run], bool]) -> Run:
    """Wait until `done` or the end of the batch; log a line whenever a tenth of it more is done."""
    log, tenths = get_run_logger(), Tenths()

    def tell(found: Run) -> None:
        if tenths.came(found["step"], found["steps"]):
            log.info("step %d of %d, loss %s", found["step"], found["steps"], found["loss"])

    return until(
        lambda: training.show(ledger, run["owner"], run["batch_id"]),
        lambda found: found["state"] in BATCH_ENDED or done(found),
        tell,
        away=ledger_away,
        longest=LONGEST_PAUSE_SECONDS,
    )


def _ended(run: Run) -> State[Any]:
    error = run["error"] or {"code": run["state"], "message": f"the run is {run['state']}"}
    message = f"{error['code']}: {error['message']}"[:500]
    return Cancelled(message=message) if run["state"] == "cancelled" else Failed(message=message)


def _leave_artifact(run: Run, decision: dict[str, Any]) -> None:
    """Show the checks and the losses on the flow run's page."""
    checks = "\n".join(f"| {'yes' if c['passed'] else '**no**'} | {c['reason']} |" for c in decision["checks"])
    create_markdown_artifact(
        key=f"train-{run['id'].replace('_', '-')}",
        description=f"Training run {run['id']}",
        markdown=(
            f"**{run['name']}** ({run['state']}): {run['steps']} steps, loss {run['loss']}, version "
            f"{run['model_version_id']}\n\n| passed | check |\n| --- | --- |\n{checks}\n\n"
            f"More: `fpga train show {run['id']}`, `fpga model show {run['model_version_id']}`\n"
        ),
    )
