"""What a flow run shows of a batch of any kind: a state, a sentence, how far it is and, at its end, a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.datasets import dataset_views, datasets
from orchestrator.ledger import evaluations as measured
from orchestrator.ledger import training as runs
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED, BatchState
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.models import evaluations, retraining, training
from orchestrator.models.lineage import flatten

State = Literal["RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED"]
ENDED = ("completed", "failed", "cancelled", "held")
LONGEST = 500


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One look at a batch as Prefect shows it; `percent` is 0 to 100, `table` is Markdown and comes at the end."""

    state: State
    message: str
    percent: float = 0.0
    table: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state not in ("RUNNING", "PAUSED")


def of(ledger: Ledger, batch_id: str) -> Shown:
    """Look at a batch.

    Raises:
        NotFoundError: it is not in the ledger any more.
    """
    with ledger.read() as session:
        batch = batches.one(session, batch_id)
        counts = batches.counts(session, batch_id)
    if batch.kind == datasets.KIND:
        return _build(ledger, batch)
    done = sum(counts[state] for state in ENDED)
    percent = 100.0 * done / max(1, batch.total)
    if batch.state == BatchState.PAUSED:
        return Shown(state="PAUSED", message=(batch.reason or "paused by somebody")[:LONGEST], percent=percent)
    if batch.state not in BATCH_ENDED:
        return Shown(state="RUNNING", message=f"{done} of {batch.total} items have ended", percent=percent)
    if batch.kind == runs.KIND:
        return _training(ledger, batch)
    if batch.kind == evaluations.KIND:
        return _evaluation(ledger, batch)
    return _items(ledger, batch, counts)


def _end(batch: Batch, message: str, table: str, *, good: bool) -> Shown:
    state: State = "CANCELLED" if batch.state == BatchState.CANCELLED else "COMPLETED" if good else "FAILED"
    return Shown(state=state, message=message[:LONGEST], percent=100.0, table=table)


def _table(heads: tuple[str, str], rows: Mapping[str, object]) -> str:
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"| {heads[0]} | {heads[1]} |\n| --- | --- |\n{lines}\n"


def _items(ledger: Ledger, batch: Batch, counts: Mapping[str, int]) -> Shown:
    with ledger.read() as session:
        rows = {
            **{state: count for state, count in counts.items() if count},
            **{f"verdict {verdict}": count for verdict, count in batches.verdict_counts(session, batch.id).items()},
            **{f"error {code}": count for code, count in batches.error_counts(session, batch.id).items()},
        }
    bad = counts["failed"] + counts["held"]
    refused = f", {len(batch.rejected_rows)} rows were refused" if batch.rejected_rows else ""
    message = f"{batch.state}: {counts['completed']} of {batch.total} items completed, {bad} failed{refused}"
    table = _table(("", "items"), rows) + f"\nPictures: `fpga batch results {batch.id} --download DIR`\n"
    return _end(batch, message, table, good=batch.state != "failed")


def _training(ledger: Ledger, batch: Batch) -> Shown:
    decision = retraining.conclude(ledger, batch.id)  # the sweeper may have been faster, which changes nothing
    with ledger.read() as session:
        run_id = runs.by_batch(session, batch.id).id
    run = training.show(ledger, batch.owner, run_id)
    more = f"\nMore: `fpga train show {run_id}`\n"
    if decision is None:
        error = run["error"] or {"code": batch.state, "message": f"the run is {batch.state}"}
        return _end(batch, f"{error['code']}: {error['message']}", more, good=False)
    checks = {("yes" if check["passed"] else "**no**") + f" {check['reason']}": "" for check in decision["checks"]}
    reasons = "; ".join(decision["reasons"])
    passed = f"{decision['model_version_id']} passed and is now {decision['alias']}"
    message = passed if decision["passed"] else f"refused: {reasons}"
    return _end(batch, message, _table(("check", ""), checks) + more, good=True)


def _evaluation(ledger: Ledger, batch: Batch) -> Shown:
    with ledger.read() as session:
        found = measured.of_batch(session, batch.id)
    rows = {f"{row.suite} {name}": value for row in found for name, value in flatten(row.figures).items()}
    message = f"{batch.state}: {', '.join(row.suite for row in found) or 'nothing'} measured"
    return _end(batch, message, _table(("figure", "value"), rows), good=batch.state == "completed")


def _build(ledger: Ledger, batch: Batch) -> Shown:
    found = datasets.progress(ledger, batch.owner, batch.id)
    if found.error is not None:
        state: State = "CANCELLED" if batch.state == BatchState.CANCELLED else "FAILED"
        return Shown(state=state, message=f"{found.error['code']}: {found.error['message']}"[:LONGEST], table="")
    if found.version_id is None:
        percent = 100.0 * found.done / max(1, found.total) * (0.95 if found.phase == "annotate" else 1.0)
        message = found.paused or f"{found.phase}: {found.done} of {found.total}"
        return Shown(state="PAUSED" if found.paused else "RUNNING", message=message[:LONGEST], percent=percent)
    facts = dataset_views.show(ledger, batch.owner, found.version_id)["facts"]
    rows = {f"{side} pictures": part["pictures"] for side, part in facts["splits"].items()}
    rows |= {f"refused: {code}": count for code, count in facts["refused"].items()}
    rows |= {f"left out: {reason}": count for reason, count in facts["left_out"].items()}
    more = f"\nMore: `fpga dataset show {found.version_id}`\n"
    return _end(batch, f"published {found.version_id}", _table(("", ""), rows) + more, good=True)
