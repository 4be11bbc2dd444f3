"""Retraining by real workers: the same weights whatever is killed, the gate, and every way a run may end badly."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator import datasets, training
from orchestrator.datasets import BuildRequest
from orchestrator.ledger import training as runs
from orchestrator.ledger.rows import Stage
from orchestrator.training import RunSubmitted
from tests.integration.workers.rig import OWNER, Rig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 12
QUICK = {
    "steps": STEPS,
    "batch_size": 4,
    "save_every": 3,
    "validate_every": 6,
    "report_every": 1,
    "clone_share": 0.25,
    "settings": {"losses": {}},
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A deployment with a small data set; tests start the workers that train."""
    # no bell: idle workers look by themselves, and a killed writer of the filesystem broker disturbs nobody
    bell = {"CELERY_BROKER_URL": "memory://"}
    with Rig(tmp_path_factory.mktemp("rig"), bell, stall_seconds=200) as made:
        builder = made.start_worker()
        wanted = BuildRequest(
            source="render:3:48",
            name="faces",
            preset="mini",
            licence="Apache-2.0",
            chunk_pictures=16,
            arrange={"min_pictures": 1, "split": 0.7},
        )
        begun = datasets.build(made.ledger, made.store, made.settings, wanted, owner=OWNER)
        datasets.wait(made.ledger, OWNER, begun.batch_id)
        os.killpg(builder.pid, signal.SIGKILL)
        yield made


def begin(rig: Rig, **changes: Any) -> RunSubmitted:
    recipe = training.read_recipe({"dataset": "faces", **QUICK, **changes})
    return training.submit(rig.ledger, rig.settings, recipe, owner=OWNER)


def trained_sha256(rig: Rig, run: RunSubmitted) -> str | None:
    with rig.ledger.read() as session:
        query = select(Stage.result).where(Stage.batch_id == run.batch_id, Stage.name == "train")
        result = session.scalar(query)
    return result["model_sha256"] if result else None


def show(rig: Rig, run: RunSubmitted) -> dict[str, Any]:
    return training.show(rig.ledger, OWNER, run.run_id)


def test_a_run_killed_twice_ends_in_the_weights_of_an_undisturbed_one(rig: Rig) -> None:
    worker = rig.start_worker(queues="gpu.train")
    undisturbed = begin(rig, seed=5)
    rig.wait(lambda: trained_sha256(rig, undisturbed) is not None, "the undisturbed run is trained", 300)
    os.killpg(worker.pid, signal.SIGKILL)

    disturbed = begin(rig, seed=5)
    for number, step in enumerate(sorted(random.Random().sample(range(1, STEPS - 1), 2))):
        worker = rig.start_worker(queues="gpu.train")
        rig.wait(lambda step=step: show(rig, disturbed)["step"] >= step, f"step {step} is done", 200)
        os.killpg(worker.pid, signal.SIGKILL)
        rig.wait(
            lambda number=number: [a["outcome"] for a in show(rig, disturbed)["attempts"]].count("lost") == number + 1,
            "the loss is seen",
            60,
        )
    rig.start_worker(queues="gpu.train")
    rig.wait(lambda: trained_sha256(rig, disturbed) is not None, "the disturbed run is trained", 300)

    assert trained_sha256(rig, disturbed) == trained_sha256(rig, undisturbed)
    found = show(rig, disturbed)
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["lost", "lost", "completed"]
    assert found["model_version_id"] == show(rig, undisturbed)["model_version_id"]
    with rig.ledger.read() as session:
        told = [
            {r.step: r.facts["loss"] for r in runs.records(session, run.run_id, "step")}
            for run in (undisturbed, disturbed)
        ]
        pictures = runs.records(session, disturbed.run_id, "sample")
    assert told[0] == told[1]
    assert sorted(told[0]) == list(range(1, STEPS + 1))
    assert pictures
