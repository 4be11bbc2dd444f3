"""Stage `train`: one training run from its data to a registered version, over any number of workers and losses.

The trainer saves checkpoints into a folder of this machine; each goes to the byte store at once, its row last, so a
run goes on elsewhere from the newest one that is whole. Every step is a function of seed and step: what is done again
after a loss comes out the same.
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.orm import Session

from fpga_models.core.presets import FILE as PRESET_FILE
from fpga_models.core.weights import read_manifest
from fpga_models.errors import ModelError as NetworkError
from fpga_models.mmf.plan import TrainPlan
from fpga_models.mmf.train import Progress
from fpga_models.mmf.train import train as run_training
from orchestrator.contracts.training import Trained, TrainParams
from orchestrator.errors import ConsentError, FpgaError, NotFoundError, StageError, TransientError
from orchestrator.ledger import models, training
from orchestrator.ledger.engine.session import now
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows_training import TrainingRun
from workers.runtime.code_version import code_version
from workers.runtime.files import fetch_folder, full_disk_is_transient, store_file, store_folder
from workers.runtime.lease import Lease
from workers.runtime.stage import DrainedError, Ended, StageContext, version_of
from workers.stages.datasets.local_copy import materialise

log = logging.getLogger(__name__)
PREPARED = 0.02
"""Share of the stage's progress that is getting the data; the last share of this size is storing the version."""
RECORD_SECONDS = 1.0


class TrainingRecorder:
    """What the trainer's reports lead to: signs of life, records, checkpoints in the store; and when it must stop."""

    def __init__(self, context: StageContext, c: Claim, lease: Lease, until: float) -> None:
        self._context, self._claim, self._lease, self._until = context, c, lease, until
        self._run = TrainParams.load(c.params).run
        self._kept: list[training.NewRecord] = []
        self._began = self._written = time.monotonic()
        self._pace: tuple[int, float] | None = None
        self.saved: int | None = None

    def stop(self) -> bool:
        """Whether the trainer must save and return: it was stopped, drains, its turn is over, or others wait."""
        stopped = self._claim.stage_id in self._lease.stopped
        return (
            stopped or self._context.draining() or time.monotonic() > self._until or self._context.crowded(self._began)
        )

    def alive(self, share: float) -> None:
        """Say that the work goes on, and has come to `share` in [0, 1]."""
        self._lease.progress(self._claim, share)

    def report(self, found: Progress) -> None:
        """Take one report of the trainer."""
        self.alive(PREPARED + (1 - 2 * PREPARED) * found.step / max(1, found.steps))
        if found.kind == "step":
            self._kept.append(self._step_record(found))
        elif found.kind == "validation":
            self._kept.append(training.NewRecord(kind="validation", step=found.step, facts=_facts(found)))
        elif found.kind == "sample" and found.path:
            self._kept.append(self._sample_record(found, Path(found.path)))
        elif found.kind == "checkpoint" and found.path:
            self.write()
            self._save(found.step, Path(found.path))
        if time.monotonic() - self._written > RECORD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the records that were kept back."""
        if self._kept:
            training.record(self._context.ledger, self._claim, self._run, self._kept)
        self._kept, self._written = [], time.monotonic()

    def _step_record(self, found: Progress) -> training.NewRecord:
        moment = time.monotonic()
        facts = _facts(found) | {"memory_gib": _memory_gib()}
        if self._pace and moment > self._pace[1]:
            facts["steps_per_s"] = round((found.step - self._pace[0]) / (moment - self._pace[1]), 4)
        self._pace = (found.step, moment)
        return training.NewRecord(kind="step", step=found.step, facts=facts)

    def _sample_record(self, found: Progress, picture: Path) -> training.NewRecord:
        artifact = store_file(self._context.ledger, self._context.store, self._claim.owner, picture)
        return training.NewRecord(kind="sample", step=found.step, facts=_facts(found), artifact_id=artifact)

    def _save(self, step: int, folder: Path) -> None:
        context, c = self._context, self._claim
        files = store_folder(context.ledger, context.store, c.owner, folder, lambda: None)
        training.save_checkpoint(context.ledger, c, self._run, step, files)
        self.saved = step
        log.info("checkpoint stored", extra={"run": self._run, "step": step, "files": len(files)})


def train(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Train these runs, one after the other; one that must stop is left out, its last step saved.

    Raises:
        DrainedError: the grace time of a drain is over.
    """
    for c in held:
        if c.stage_id in lease.stopped:
            continue
        try:
            done = _train(context, c, lease)
        except FpgaError as error:
            yield c, error
            continue
        if context.draining():
            raise DrainedError
        if done is not None:
            yield c, done


def _train(context: StageContext, c: Claim, lease: Lease) -> Outcome | None:
    """Bring one run to its end, or to where it must stop: None then."""
    asked = TrainParams.load(c.params)
    recorder = TrainingRecorder(context, c, lease, time.monotonic() + context.settings.train_turn_seconds)
    _check_consent(context, asked)
    work = context.settings.state_dir.absolute() / "work"
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_left(work, asked.run)
    with tempfile.TemporaryDirectory(prefix=f"{asked.run}-", dir=work) as folder:
        out = Path(folder) / "out"
        cache = context.settings.state_dir.absolute() / "datasets"
        start = version_of(context, c).location
        data = materialise(
            context, asked.dataset or "", Path(start), cache, lambda share: recorder.alive(PREPARED * share)
        )
        recorder.saved = _restore(context, c, out)
        here = {"start": start, "device": context.settings.device}
        with _says_where_it_stands(recorder, out):
            plan = TrainPlan.from_json({**asked.plan, **here})
            result = run_training(plan, data, out, report=recorder.report, stop=recorder.stop)
        recorder.write()
        if not result.finished or result.preset is None:
            return None
        return _publish(context, c, recorder, result.preset)


@contextmanager
def _says_where_it_stands(recorder: TrainingRecorder, out: Path) -> Iterator[None]:
    """Let every typed error of a training end with the checkpoint that is left.

    Raises:
        StageError: the trainer found its plan, its data or its loss unfit.
        TransientError: disk or byte store are full or cannot be reached.
    """
    try:
        with full_disk_is_transient(out):
            yield
    except NetworkError as error:
        raise StageError(f"{error} {_last_good(recorder.saved)}", code=error.code, step=recorder.saved) from error
    except TransientError as error:
        raise TransientError(
            f"{error.message}. {_last_good(recorder.saved)}", code=error.code, step=recorder.saved
        ) from error


def _last_good(step: int | None) -> str:
    if step is None:
        return "No checkpoint had been saved."
    return f"The last good checkpoint is at step {step}; the run goes on from there."


def _check_consent(context: StageContext, asked: TrainParams) -> None:
    """Ask for consent at the moment of use: it may have ended since the run was submitted."""
    with context.ledger.read() as session:
        missing = training.missing_consents(session, asked.dataset or "", now(session))
    if missing:
        raise ConsentError(f"{len(missing)} people of the data set do not allow 'train' (any more)", identities=missing)


def _remove_left(work: Path, run: str) -> None:
    """Remove what earlier attempts of this run left here when they were killed."""
    for left in work.glob(f"{run}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _restore(context: StageContext, c: Claim, out: Path) -> int | None:
    """Fetch the newest checkpoint that is whole; return its step, None where there is none."""
    run = TrainParams.load(c.params).run
    with context.ledger.read() as session:
        found = training.checkpoints(session, run)
    for step, files in found:
        try:
            fetch_folder(context.store, files, out / f"checkpoint-{step}", lambda: None)
        except (NotFoundError, TransientError) as error:
            if error.code not in ("object_missing", "object_damaged"):
                raise
            log.error("checkpoint damaged", extra={"run": run, "step": step, "error": error.code})
            training.drop_checkpoint(context.ledger, c, run, step)
        else:
            return step
    return None


def _publish(context: StageContext, c: Claim, recorder: TrainingRecorder, preset: Path) -> Outcome:
    """Store the finished preset folder; the version is registered with the result."""
    manifest = read_manifest(preset)
    facts: dict[str, Any] = json.loads((preset / PRESET_FILE).read_text())
    files = store_folder(context.ledger, context.store, c.owner, preset, lambda: recorder.alive(1 - PREPARED / 2))
    code, asked = code_version(), TrainParams.load(c.params)

    def write(session: Session, moment: datetime) -> None:
        new = models.NewVersion(
            owner=c.owner,
            preset=c.preset,
            tensor_sha256=manifest["model_sha256"],
            licence=facts["licence"],
            manifest={**manifest, "verdict": facts["verdict"]},
            parent_id=c.model_version_id,
            dataset_id=asked.dataset,
            code_version=code,
            seed=asked.seed(),
            files=files,
        )
        run = session.get_one(TrainingRun, asked.run)
        run.model_version_id = models.add(session, new, moment)
        training.drop_checkpoints(session, run.id, keep=1, moment=moment)

    return Outcome(result=Trained(model_sha256=manifest["model_sha256"], files=len(files)).dump(), write=write)


def _facts(found: Progress) -> dict[str, Any]:
    return {"stage": found.stage, **found.metrics}


def _memory_gib() -> float:
    """Most memory used so far: the device's, or on a CPU this process's."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
