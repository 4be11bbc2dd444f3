"""The end of a retraining: the gate decides on the new version, and the alias moves, in one transaction.

Called by the sweeper when a training batch has ended, and by whoever shows the run; whoever is second finds the
decision of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.contracts.training import RunOptions
from orchestrator.errors import NotFoundError
from orchestrator.ledger import evaluations, models, training
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.engine.states import BatchState
from orchestrator.ledger.tables.rows import Batch, ModelVersion
from orchestrator.ledger.tables.rows_datasets import DataSetVersion
from orchestrator.ledger.tables.rows_training import GateDecision, TrainingRun
from orchestrator.models.gate import Check, GateRules, check_facts, check_metrics, parse_rules

log = logging.getLogger(__name__)


@retrying
def conclude(ledger: Ledger, batch_id: str) -> dict[str, Any] | None:
    """Let the gate decide on what a completed training batch made; return the decision, None where there is nothing.

    A version that passes becomes champion, or candidate where the run asked for no promotion.
    """
    with ledger.write() as session:
        run = training.by_batch(session, batch_id)
        known = evaluations.decision_of(session, batch_id)
        if known is not None:
            return decision_object(known)
        if session.get_one(Batch, batch_id).state != BatchState.COMPLETED or run.model_version_id is None:
            return None
        decision = _decide(session, run, batch_id)
        log.info("gate decided", extra={"run": run.id, "version": run.model_version_id, "passed": decision.passed})
        return decision_object(decision)


def _decide(session: Session, run: TrainingRun, batch_id: str) -> GateDecision:
    version = models.get(session, run.model_version_id or "")
    rules = parse_rules(RunOptions.load(run.options).gate)
    live = _live(session, version)
    checks = _checks(session, rules, version, live, run.dataset_id)
    passed = all(check.passed for check in checks)
    alias = models.CHAMPION if RunOptions.load(run.options).promote else models.CANDIDATE
    decision = GateDecision(
        id=new_id("gat"),
        owner=run.owner,
        model_version_id=version.id,
        against_id=live.id if live else None,
        batch_id=batch_id,
        passed=passed,
        rules=rules.model_dump(mode="json"),
        checks=[check.as_json() for check in checks],
        alias=alias if passed else None,
        decided_at=now(session),
    )
    session.add(decision)
    session.flush()
    if passed and (alias == models.CANDIDATE or live is not None):
        models.move(session, run.owner, version, alias, f"passed the gate after run {run.id}")
    return decision


def _checks(
    session: Session, rules: GateRules, version: ModelVersion, live: ModelVersion | None, dataset_id: str | None
) -> list[Check]:
    ours = evaluations.metrics(session, version.id, rules.evaluation, dataset_id)
    theirs = evaluations.metrics(session, live.id, rules.evaluation, dataset_id) if live else None
    facts = check_facts(rules, version.manifest, live.manifest if live else None, tainted=_tainted(session, version))
    return [*facts, *check_metrics(rules, ours, theirs)]


def _live(session: Session, version: ModelVersion) -> ModelVersion | None:
    """Return the champion that the version would replace, or None where it is that itself or there is none."""
    try:
        live = models.resolve(session, version.preset)
    except NotFoundError:
        return None
    return None if live.id == version.id else live


def _tainted(session: Session, version: ModelVersion) -> list[str]:
    found = [f"version {version.id} is tainted"] if version.tainted_at else []
    dataset = session.get(DataSetVersion, version.dataset_id) if version.dataset_id else None
    if dataset is not None and dataset.tainted_at is not None:
        found.append(f"data set version {dataset.id} holds a person who has withdrawn")
    return found


def decision_object(decision: GateDecision) -> dict[str, Any]:
    """Return the JSON object of a decision."""
    return {
        "object": "gate.decision",
        "id": decision.id,
        "model_version_id": decision.model_version_id,
        "against_id": decision.against_id,
        "batch_id": decision.batch_id,
        "passed": decision.passed,
        "alias": decision.alias,
        "reasons": refusals(decision.checks),
        "checks": decision.checks,
        "rules": decision.rules,
        "decided_at": decision.decided_at.isoformat(),
    }


def refusals(checks: Sequence[dict[str, Any]]) -> list[str]:
    """Return why a version was refused, one sentence for each check that failed."""
    return [str(check["reason"]) for check in checks if not check["passed"]]
