"""Data sets, versions and runs as if they had been made: rows without shards, weights without tensors."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from orchestrator.ledger import evaluations, models
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, outcomes
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows_datasets import DataSet, DataSetIdentity, DataSetVersion
from orchestrator.ledger.tables.rows_training import TrainingRun
from orchestrator.models import training
from orchestrator.models.gate import EvaluationRule
from orchestrator.models.training import RunSubmitted
from orchestrator.settings import Settings

RULES = {
    "evaluation": [{"suite": "identity", "seed": 0, "count": 8}],
    "rule": [{"metric": "identity.face_sim.mean", "minimum": 0.5, "interval": "identity.face_sim.ci95"}],
}
WANTED = EvaluationRule(suite="identity", seed=0, count=8)


def add_dataset(ledger: Ledger, name: str = "faces", people: list[str] | None = None, preset: str = "mini") -> str:
    """Write a data set version that holds these identities and return its id."""
    with ledger.write() as session:
        moment = datetime.now(UTC)
        folder = DataSet(id=new_id("dst"), owner="local", name=name, created_at=moment)
        session.add(folder)
        session.flush()
        version = DataSetVersion(
            id=new_id("dsv"),
            owner="local",
            data_set_id=folder.id,
            number=1,
            content_sha256=hashlib.sha256(name.encode()).hexdigest(),
            preset=preset,
            encoder_sha256="e" * 64,
            source="test",
            licence="Apache-2.0",
            facts={},
            created_at=moment,
        )
        session.add(version)
        session.flush()
        for person in people or []:
            session.add(DataSetIdentity(data_set_version_id=version.id, identity_id=person, owner="local", pictures=3))
        return version.id


def figures(mean: float) -> dict[str, Any]:
    """Return the figures of a version whose faces are so similar."""
    return {"face_sim": {"mean": mean, "ci95": [mean - 0.03, mean + 0.03]}}


def measure(ledger: Ledger, version_id: str, mean: float, batch_id: str | None = None) -> None:
    """Write a measurement of a version."""
    with ledger.write() as session:
        evaluations.store(
            session,
            "local",
            version_id,
            WANTED,
            figures(mean),
            dataset_id=None,
            batch_id=batch_id,
            moment=datetime.now(UTC),
        )


def begin(ledger: Ledger, settings: Settings, dataset_id: str, **more: Any) -> RunSubmitted:
    """Submit a training run on a data set."""
    recipe = training.read_recipe({"dataset": dataset_id, "steps": 10, "gate": RULES, "promote": True, **more})
    return training.submit(ledger, settings, recipe, owner="local")


def finish(ledger: Ledger, run: RunSubmitted, sha256: str, mean: float) -> str:
    """Play the worker of a run: a version with these tensors and figures; return its id."""
    (c,) = claims.start(
        ledger, claims.claim(ledger, worker_id="wrk_t", queues=["gpu.train"], limit=1, lease_seconds=60)
    )

    def trained(session: Any, moment: datetime) -> None:
        row = session.get_one(TrainingRun, run.run_id)
        row.model_version_id = models.add(
            session,
            models.NewVersion(
                owner="local",
                preset=c.preset,
                tensor_sha256=sha256,
                licence="Apache-2.0",
                manifest={"made": {"command": "test", "config": {"steps": 10}}, "files": {}, "verdict": {}},
                parent_id=c.model_version_id,
                dataset_id=c.params["dataset"],
                code_version="test",
                seed=0,
            ),
            moment,
        )

    outcomes.publish(ledger, c, Outcome(write=trained))
    with ledger.read() as session:
        version_id = session.get_one(TrainingRun, run.run_id).model_version_id
    assert version_id is not None
    measure(ledger, version_id, mean, run.batch_id)
    end_evaluation(ledger, run.batch_id)
    return version_id


def end_evaluation(ledger: Ledger, batch_id: str) -> None:
    """Complete the evaluate stage of a batch; what else is due in its queue is given back."""
    others: list[claims.Claim] = []
    while held := claims.claim(ledger, worker_id="wrk_t", queues=["gpu.generate"], limit=1, lease_seconds=60):
        if held[0].batch_id == batch_id:
            outcomes.publish(ledger, claims.start(ledger, held)[0], Outcome())
            break
        others += held
    outcomes.release(ledger, others)
