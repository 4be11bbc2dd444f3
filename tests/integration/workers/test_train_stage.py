"""The stage `train` in this process, with the real trainer: what a run leaves behind when something goes wrong."""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fpga_models.mmf import checkpoint
from orchestrator.errors import FpgaError
from orchestrator.ledger import models
from orchestrator.ledger import training as runs
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, outcomes
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.ledger.tables.rows_datasets import DataSetShard, DataSetVersion
from orchestrator.ledger.tables.rows_training import TrainingRun
from orchestrator.models import registry, training
from orchestrator.models.training import RunSubmitted
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, content_key, open_store
from tests.unit.fpga_models.training_folder import write_training_folder
from tests.unit.orchestrator.trained import RULES, add_dataset
from workers.runtime.engine import Engine
from workers.runtime.lease import Lease
from workers.runtime.stage import StageContext
from workers.stages.training.train import TrainingRecorder

stage = importlib.import_module("workers.stages.training.train")  # the package exports a function of this name
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STEPS = 4
QUICK = {
    "steps": STEPS,
    "batch_size": 2,
    "save_every": 1,
    "validate_every": 100,
    "report_every": 1,
    "clone_share": 0.25,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_folder(tmp_path_factory.mktemp("training"))


class House:
    """A ledger, a store and one worker's context; `attempt` is what a worker does with a claim."""

    def __init__(self, state: Path, data: Path) -> None:
        self.settings = Settings(state_dir=state, torch_threads=1)
        schema.upgrade(self.settings.database_url)
        self.ledger = Ledger(self.settings.database_url)
        self.store: ByteStore = open_store(self.settings)
        registry.ensure_registered(self.ledger, self.settings)
        self.data, self.draining = data, False
        self.dataset = add_dataset(self.ledger)

    def begin(self, **changes: Any) -> RunSubmitted:
        recipe = training.read_recipe({"dataset": self.dataset, "gate": RULES, "promote": True, **QUICK, **changes})
        return training.submit(self.ledger, self.settings, recipe, owner="local")

    def attempt(self, *, stop_at: int | None = None) -> Outcome | FpgaError | None:
        """Claim the run that is due and work on it; with `stop_at`, somebody pauses it after that step."""
        held = claims.claim(self.ledger, worker_id="wrk_t", queues=["gpu.train"], limit=1, lease_seconds=600)
        (c,) = claims.start(self.ledger, held)
        context = StageContext(
            settings=self.settings,
            ledger=self.ledger,
            store=self.store,
            vault=Vault.of(self.settings),
            engine=Engine(self.settings),
            draining=lambda: self.draining,
        )
        lease = Lease(self.ledger, self.settings)
        lease.progress = self._pausing(lease, c, stop_at)  # type: ignore[method-assign]  # a pause, at a known step
        ended = list(stage.train(context, [c], lease))
        if not ended:
            outcomes.release(self.ledger, [c])
            return None
        (outcome,) = [outcome for _, outcome in ended]
        if isinstance(outcome, Outcome):
            outcomes.publish(self.ledger, c, outcome)
        else:
            outcomes.fail(self.ledger, c, outcome, max_failures=1, backoff_seconds=0)
        return outcome

    def _pausing(self, lease: Lease, c: Claim, stop_at: int | None) -> Callable[[Claim, float], None]:
        def progress(_: Claim, share: float) -> None:
            done = (share - stage.PREPARED) / (1 - 2 * stage.PREPARED) * STEPS
            if stop_at is not None and done >= stop_at - 1e-3:
                lease.stopped[c.stage_id] = "paused"

        return progress

    def checkpoints(self, run: RunSubmitted) -> list[int]:
        with self.ledger.read() as session:
            return [step for step, _ in runs.checkpoints(session, run.run_id)]

    def version(self, run: RunSubmitted) -> str | None:
        with self.ledger.read() as session:
            return session.get_one(TrainingRun, run.run_id).model_version_id


@pytest.fixture
def house(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = House(tmp_path / "state", folder)
    monkeypatch.setattr(stage, "materialise", lambda *_: made.data)
    return made


def test_a_paused_run_keeps_the_step_it_stood_at_and_ends_in_a_version_with_its_files(house: House) -> None:
    run = house.begin()

    assert house.attempt(stop_at=2) is None
    assert house.checkpoints(run) == [2, 1]
    assert isinstance(house.attempt(), Outcome)

    with house.ledger.read() as session:
        version = models.get(session, house.version(run) or "")
        files = models.files(session, version.id)
        losses = [row.step for row in runs.records(session, run.run_id, "step")]
    assert losses == [1, 2, 3, 4]
    assert (version.dataset_id, version.seed, version.parent_id is not None) == (house.dataset, 0, True)
    assert version.code_version is not None
    assert files.keys() == version.manifest["files"].keys() | {"weights.json"}
    assert house.checkpoints(run) == [4], "one checkpoint of a finished run stays"
    assert not list((house.settings.state_dir / "work").iterdir())


@pytest.mark.parametrize("fault", ["missing", "cut short"])
def test_a_damaged_checkpoint_is_forgotten_and_the_one_before_it_gives_the_same_weights(
    house: House, fault: str
) -> None:
    whole = house.begin()
    first = house.attempt()
    run = house.begin()
    house.attempt(stop_at=2)
    with house.ledger.read() as session:
        (step, files), *_ = runs.checkpoints(session, run.run_id)
    key = files["weights.safetensors"].key
    if fault == "missing":
        house.store.delete(key)
    else:
        (path,) = (house.settings.state_dir / "store").rglob(Path(key).name)
        os.truncate(path, path.stat().st_size // 2)

    second = house.attempt()

    assert step == 2
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert second.result["model_sha256"] == first.result["model_sha256"]
    assert house.version(run) == house.version(whole)


def test_a_loss_that_is_not_finite_stops_at_the_last_good_checkpoint_and_says_so(house: House) -> None:
    run = house.begin(rate=1e20, settings={"mmf": {"steps": 3, "rate": 1e20, "warmup": 1}})

    error = house.attempt()

    assert isinstance(error, FpgaError)
    assert error.code == "training_diverged"
    assert f"last good checkpoint is at step {house.checkpoints(run)[0]}" in error.message
    assert house.version(run) is None
    assert training.show(house.ledger, "local", run.run_id)["error"]["code"] == "training_diverged"


def test_a_disk_that_fills_up_during_a_checkpoint_leaves_the_one_before(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = house.begin()
    real, saved = checkpoint.save, []

    def save(*arguments: Any) -> Path:
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "save", save)
    error = house.attempt()
    monkeypatch.setattr(checkpoint, "save", real)

    assert isinstance(error, FpgaError)
    assert (error.code, error.retryable) == ("disk_full", True)
    assert "step 2" in error.message
    assert house.checkpoints(run) == [2, 1]
    training.resume(house.ledger, "local", run.run_id)
    assert isinstance(house.attempt(), Outcome)


def test_data_of_another_shape_is_refused_before_the_first_step(house: House, tmp_path: Path) -> None:
    house.data = write_training_folder(tmp_path / "other", embedding_dim=64)
    run = house.begin()

    error = house.attempt()

    assert isinstance(error, FpgaError)
    assert error.code == "data_invalid"
    assert "No checkpoint had been saved" in error.message
    assert house.checkpoints(run) == []


def test_a_holder_that_lost_its_lease_writes_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    run = house.begin()
    report = TrainingRecorder.report

    def stolen(recorder: TrainingRecorder, found: Any) -> None:
        if found.kind == "checkpoint" and found.step == 2:
            with house.ledger.write() as session:
                session.execute(runs.update(runs.Stage).values(token=runs.Stage.token + 1))
        report(recorder, found)

    monkeypatch.setattr(TrainingRecorder, "report", stolen)
    with pytest.raises(FpgaError) as fenced:
        house.attempt()

    assert fenced.value.code == "fenced"
    assert house.checkpoints(run) == [1]


def test_the_pictures_of_a_run_can_be_opened(house: House) -> None:
    run = house.begin(validate_every=2)
    house.attempt()

    found = training.watch(house.ledger, house.store, "local", run.run_id)

    assert [picture["step"] for picture in found["samples"]] == [2, 3, 4]
    assert found["validations"][0]["own_id"] > 0
    with house.ledger.read() as session:
        row = runs.records(session, run.run_id, "sample")[0]
        artifact = session.get_one(Artifact, row.artifact_id)
    with Image.open(io.BytesIO(house.store.get(artifact.key))) as picture:
        assert np.asarray(picture).std() > 5


def give_shards(house: House, *, index: bytes = b"no parquet", shard: bytes = b"no tar") -> list[str]:
    """Store an index and one shard for the house's data set; return their keys."""
    keys = []
    with house.ledger.write() as session:
        version = session.get_one(DataSetVersion, house.dataset)
        for number, data in enumerate((index, shard)):
            sha256 = hashlib.sha256(data).hexdigest()
            key = content_key("local", sha256, "")
            house.store.put(key, data, media_type="application/octet-stream")
            artifact = Artifact(
                id=f"art_{number}",
                owner="local",
                sha256=sha256,
                key=key,
                size=len(data),
                media_type="application/octet-stream",
                state="live",
                created_at=datetime.now(UTC),
            )
            session.add(artifact)
            session.flush()
            keys.append(key)
        version.index_artifact_id = "art_0"
        session.add(
            DataSetShard(data_set_version_id=version.id, position=0, owner="local", artifact_id="art_1", records=1)
        )
    return keys


@pytest.mark.parametrize("fault", ["missing", "altered", "not what it should be", "withdrawn meanwhile"])
def test_a_data_set_that_cannot_be_used_is_refused_before_the_first_step(
    fault: str, tmp_path: Path, folder: Path
) -> None:
    house = House(tmp_path / "state", folder)
    code = "dataset_tainted" if fault == "withdrawn meanwhile" else "shard_corrupt"
    index, shard = give_shards(house)
    run = house.begin()
    if fault == "missing":
        house.store.delete(shard)
    elif fault == "altered":
        (path,) = (tmp_path / "state" / "store").rglob(Path(index).name)
        path.write_bytes(b"other bytes")
    elif fault == "withdrawn meanwhile":
        with house.ledger.write() as session:
            session.get_one(DataSetVersion, house.dataset).tainted_at = datetime.now(UTC)

    error = house.attempt()

    assert isinstance(error, FpgaError)
    assert error.code == code, error.message
    assert not error.retryable
    assert house.dataset in error.message
    assert house.checkpoints(run) == []
