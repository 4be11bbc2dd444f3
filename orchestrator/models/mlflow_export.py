"""Sends what training runs and evaluations measured to an MLflow server, for people who have one already.

Over its REST interface; nothing of ours reads it back. A run is found again by its tag, so sending twice adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import httpx
from sqlalchemy.orm import Session

from orchestrator.contracts.training import TrainOptions
from orchestrator.errors import TransientError
from orchestrator.ledger import evaluations, training
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BatchState
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.tables.rows_training import TrainingRun
from orchestrator.models.lineage import flatten
from orchestrator.settings import Settings

EXPERIMENT = "fpga"
TAG = "fpga.batch"
PER_CALL = 900
"""MLflow takes at most 1000 metrics in one call."""
MAX_PARAM = 500
TIMEOUT_SECONDS = 10.0
Metric = dict[str, Any]


def export(ledger: Ledger, settings: Settings, batch_id: str) -> str | None:
    """Send the figures of a training or evaluation batch and return the MLflow run's id; None without a server.

    Raises:
        TransientError: `mlflow_unavailable`, the server cannot be reached or refuses.
    """
    if not settings.mlflow_tracking_uri:
        return None
    with ledger.read() as session:
        batch = session.get_one(Batch, batch_id)
        params, metrics = _params(session, batch), list(_metrics(session, batch))
    with httpx.Client(base_url=settings.mlflow_tracking_uri.rstrip("/"), timeout=TIMEOUT_SECONDS) as client:
        run_id = _run(client, _experiment(client), batch)
        rest = iter(metrics)
        while part := list(islice(rest, PER_CALL)):
            _call(client, "runs/log-batch", {"run_id": run_id, "metrics": part})
        _call(client, "runs/log-batch", {"run_id": run_id, "params": params})
        ended = _ms(batch.finished_at or batch.created_at)
        status = "FINISHED" if batch.state == BatchState.COMPLETED else "FAILED"
        _call(client, "runs/update", {"run_id": run_id, "status": status, "end_time": ended})
    return run_id


def _params(session: Session, batch: Batch) -> list[dict[str, str]]:
    facts: dict[str, Any] = {"preset": batch.preset, "model_version": batch.model_version_id}
    if run := _training_run(session, batch):
        facts |= {"run": run.id, "dataset": run.dataset_id, "made": run.model_version_id} | flatten(run.plan)
    return [{"key": name, "value": str(value)[:MAX_PARAM]} for name, value in facts.items()]


def _training_run(session: Session, batch: Batch) -> TrainingRun | None:
    return session.get(TrainingRun, TrainOptions.load(batch.options).run or "")


def _metrics(session: Session, batch: Batch) -> Iterator[Metric]:
    """Yield losses by step, and every figure of the evaluations that the batch made."""
    run = _training_run(session, batch)
    for kind in ("step", "validation") if run else ():
        for record in training.records(session, run.id if run else "", kind):
            yield from _numbers(record.facts, "", record.at, record.step)
    measured = run.model_version_id if run else batch.model_version_id
    for row in evaluations.of_batch(session, batch.id):
        # a training also measures the live version, for the gate to compare with
        prefix = f"{row.suite}." if row.model_version_id == measured else f"live.{row.suite}."
        yield from _numbers(flatten(row.figures), prefix, row.created_at, 0)


def _numbers(facts: dict[str, Any], prefix: str, at: datetime, step: int) -> Iterable[Metric]:
    for name, value in facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield {"key": f"{prefix}{name}", "value": float(value), "timestamp": _ms(at), "step": step}


def _experiment(client: httpx.Client) -> str:
    answer = _request(client, "GET", "experiments/get-by-name", params={"experiment_name": EXPERIMENT})
    if answer.status_code == httpx.codes.NOT_FOUND:
        return str(_call(client, "experiments/create", {"name": EXPERIMENT})["experiment_id"])
    return str(_checked(answer)["experiment"]["experiment_id"])


def _run(client: httpx.Client, experiment_id: str, batch: Batch) -> str:
    wanted = {"experiment_ids": [experiment_id], "filter": f"tags.`{TAG}` = '{batch.id}'", "max_results": 1}
    found = _call(client, "runs/search", wanted).get("runs", [])
    if found:
        return str(found[0]["info"]["run_id"])
    made = {
        "experiment_id": experiment_id,
        "run_name": batch.name,
        "start_time": _ms(batch.created_at),
        "tags": [{"key": TAG, "value": batch.id}, {"key": "fpga.kind", "value": batch.kind}],
    }
    return str(_call(client, "runs/create", made)["run"]["info"]["run_id"])


def _call(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return _checked(_request(client, "POST", path, json=body))


def _request(client: httpx.Client, method: str, path: str, **more: Any) -> httpx.Response:
    try:
        return client.request(method, f"/api/2.0/mlflow/{path}", **more)
    except httpx.HTTPError as error:
        raise TransientError(f"MLflow cannot be reached: {error}", code="mlflow_unavailable") from error


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise TransientError(
            f"MLflow answered {answer.status_code} to {answer.url.path}: {answer.text[:200]}", code="mlflow_unavailable"
        )
    found: dict[str, Any] = answer.json()
    return found


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
