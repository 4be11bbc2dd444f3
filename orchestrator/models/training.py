"""Training runs for people and programs: begin, look, pause, go on, cancel; JSON objects that all borders share.

Nothing is computed here: a run is one item of the training lane, which a worker on the queue `gpu.train` claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.orm import Session

from orchestrator.contracts.base import digest
from orchestrator.contracts.training import RunOptions, Suite
from orchestrator.errors import ConflictError, ConsentError, UsageError
from orchestrator.ledger import datasets, evaluations, models, training
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Artifact, Batch
from orchestrator.ledger.tables.rows_datasets import DataSetVersion
from orchestrator.ledger.tables.rows_training import TrainingRun, TrainRecord
from orchestrator.models import registry
from orchestrator.models.gate import GateRules, read_rules
from orchestrator.models.retraining import decision_object
from orchestrator.planning.presets import load_preset
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

LINK_SECONDS = 900
EVERY = ("save_every", "validate_every", "report_every")


class Recipe(BaseModel):
    """Everything that a run is asked for; a schedule keeps one and resolves the data set each time it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    """Id of a data set version, `name` for its newest, or `name@3`."""
    steps: Annotated[int, Field(ge=1)]
    """Of both stages together: Multi-Mode Fusion, then clone face tuning."""
    preset: str = "mini"
    name: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    start: str = "champion"
    """Alias or id of the version whose weights it begins from."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 48
    rate: Annotated[float, Field(gt=0)] = 1.2e-3
    clone_share: Annotated[float, Field(ge=0, lt=1)] = 1 / 6
    """Share of the steps that tune the adapters on clones."""
    clone_rate: Annotated[float, Field(gt=0)] = 4e-4
    save_every: Annotated[int, Field(ge=1)] = 200
    validate_every: Annotated[int, Field(ge=1)] = 200
    """Measures and draws every so many steps, always the same people and noise."""
    report_every: Annotated[int, Field(ge=1)] = 5
    settings: dict[str, Any] = {}
    """Further fields of the trainer's plan, such as `recipe` or `losses`."""
    promote: bool = False
    """Whether passing the gate makes the version champion; otherwise it becomes the candidate."""
    gate: dict[str, Any] = {}
    """Rules of the gate; empty for those that come with the system."""


def plan_of(recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's plan as plain JSON; where it begins and on which device is the worker's to say."""
    clone = round(recipe.steps * recipe.clone_share)
    plan = {name: getattr(recipe, name) for name in ("seed", "batch_size", *EVERY)}
    return {
        **plan,
        "mmf": {"steps": recipe.steps - clone, "rate": recipe.rate},
        "clone": {"steps": clone, "rate": recipe.clone_rate},
        **recipe.settings,
    }


def read_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a recipe from a command line, a schedule or HTTP.

    Raises:
        UsageError: `recipe_invalid`, naming the field.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"training run: {where}: {first['msg']}, got {first.get('input')!r}", code="recipe_invalid"
        ) from error


@dataclass(frozen=True, kw_only=True)
class RunSubmitted:
    """The answer to a submit; `repeated` says that the same request had been made before."""

    run_id: str
    batch_id: str
    repeated: bool


def submit(
    ledger: Ledger,
    settings: Settings,
    recipe: Recipe,
    *,
    owner: str,
    idempotency_key: str | None = None,
    paused: bool = False,
) -> RunSubmitted:
    """Check a recipe against library and registry and queue its run.

    Raises:
        NotFoundError: no such data set, preset or version.
        ConflictError: the data set is of another preset or tainted, or the idempotency key has another request.
        ConsentError: somebody in the data set does not allow training (any more).
        UsageError: the gate's rules are wrong.
    """
    load_preset(settings.models_dir, recipe.preset)
    registry.champion(ledger, settings, recipe.preset)
    rules = GateRules.model_validate(recipe.gate) if recipe.gate else read_rules()
    with ledger.read() as session:
        dataset = _dataset(session, owner, recipe)
        parent = _parent(session, recipe, owner)
    run_id, submitted = training.submit(
        ledger,
        training.NewRun(
            owner=owner,
            name=recipe.name or f"{recipe.preset} on {recipe.dataset}",
            preset=recipe.preset,
            dataset_id=dataset.id,
            parent_id=parent,
            plan=plan_of(recipe),
            options=RunOptions(
                gate=rules.model_dump(mode="json"),
                evaluations=tuple(Suite(**wanted.model_dump()) for wanted in rules.evaluation),
                promote=recipe.promote,
            ),
            seed=recipe.seed,
            idempotency_key=idempotency_key,
            request_sha256=digest(recipe.model_dump(mode="json")),
            paused=paused,
        ),
    )
    return RunSubmitted(run_id=run_id, batch_id=submitted.batch_id, repeated=submitted.repeated)


def _dataset(session: Session, owner: str, recipe: Recipe) -> DataSetVersion:
    dataset = datasets.resolve(session, owner, recipe.dataset)
    if dataset.preset != recipe.preset:
        raise ConflictError(
            f"data set version {dataset.id} was made for preset {dataset.preset!r}, the run is for {recipe.preset!r}",
            code="preset_mismatch",
        )
    if dataset.tainted_at is not None:
        raise ConflictError(
            f"data set version {dataset.id} holds a person who has withdrawn; build a new version",
            code="dataset_tainted",
        )
    if missing := training.missing_consents(session, dataset.id, now(session)):
        raise ConsentError(
            f"{len(missing)} people of data set version {dataset.id} do not allow 'train', the first is {missing[0]}",
            identities=missing[:20],
        )
    return dataset


def _parent(session: Session, recipe: Recipe, owner: str) -> str:
    if recipe.start.startswith("mdl_"):
        version, _ = registry.find_version(session, recipe.start, owner)
    else:
        version = models.resolve(session, recipe.preset, recipe.start)
    if version.preset != recipe.preset:
        raise ConflictError(f"version {version.id} is of preset {version.preset!r}", code="preset_mismatch")
    models.check_untainted(version)
    return version.id


def list_runs(ledger: Ledger, owner: str, *, limit: int = 50) -> list[dict[str, Any]]:
    """Return the light objects of the newest runs."""
    with ledger.read() as session:
        return [_light(session, run, batch) for run, batch in training.listing(session, owner, limit=limit)]


def show(ledger: Ledger, owner: str, wanted: str) -> dict[str, Any]:
    """Return a run with plan, losses of workers, checkpoints, figures and the gate's decision.

    Raises:
        NotFoundError: there is none.
    """
    with ledger.read() as session:
        run = training.get(session, owner, wanted)
        batch = session.get_one(Batch, run.batch_id)
        saved = training.checkpoints(session, run.id)
        decision = evaluations.decision_of(session, run.batch_id)
        return {
            **_light(session, run, batch),
            "plan": run.plan,
            "checkpoints": [{"step": step, "bytes": sum(a.size for a in files.values())} for step, files in saved],
            "attempts": [
                {
                    "stage": stage.name,
                    "attempt": attempt.token,
                    "worker": attempt.worker_id,
                    "outcome": attempt.outcome,
                    "code": attempt.error_code,
                    "message": attempt.error_message,
                    "started_at": attempt.started_at.isoformat(),
                    "ended_at": attempt.ended_at.isoformat() if attempt.ended_at else None,
                }
                for stage, attempt in training.attempts(session, run.id)
            ],
            "evaluations": [
                {"id": e.id, "model_version_id": e.model_version_id, "suite": e.suite, "seed": e.seed, "count": e.count}
                for e in evaluations.of_batch(session, run.batch_id)
            ],
            "gate": decision_object(decision) if decision else None,
        }


def watch(
    ledger: Ledger, store: ByteStore, owner: str, wanted: str, *, after: int = -1, samples: int = 4
) -> dict[str, Any]:
    """Return what a watcher shows: state, newest numbers, time left, records after a step, links to newest pictures.

    Raises:
        NotFoundError: there is none.
    """
    with ledger.read() as session:
        run = training.get(session, owner, wanted)
        batch = session.get_one(Batch, run.batch_id)
        records = training.records(session, run.id, "step", after=after)
        pictures = training.records(session, run.id, "sample")[-samples:]
        keys = {row.step: _key(session, row) for row in pictures}
        return {
            **_light(session, run, batch),
            "records": [{"step": row.step, "at": row.at.isoformat(), **row.facts} for row in records],
            "validations": [{"step": row.step, **row.facts} for row in training.records(session, run.id, "validation")],
            "samples": [
                {"step": step, "url": store.url(key, expires_seconds=LINK_SECONDS, media_type="image/png")}
                for step, key in keys.items()
                if key
            ],
        }


def pause(ledger: Ledger, owner: str, wanted: str) -> dict[str, Any]:
    """Stop a run at its next step, which it saves; `resume` goes on from there.

    Raises:
        NotFoundError: there is none.
        ConflictError: it has ended.
    """
    run_id, batch_id = _ids(ledger, owner, wanted)
    batches.pause(ledger, owner, batch_id, reason="paused by hand")
    return show(ledger, owner, run_id)


def resume(ledger: Ledger, owner: str, wanted: str) -> dict[str, Any]:
    """Let a paused, failed or cancelled run go on from its last checkpoint.

    Raises:
        NotFoundError: there is none.
        ConflictError: it runs, or is done.
    """
    run_id, _ = _ids(ledger, owner, wanted)
    training.go_on(ledger, owner, run_id)
    return show(ledger, owner, run_id)


def cancel(ledger: Ledger, owner: str, wanted: str) -> dict[str, Any]:
    """Cancel a run; its last checkpoint stays.

    Raises:
        NotFoundError: there is none.
        ConflictError: it has ended.
    """
    run_id, batch_id = _ids(ledger, owner, wanted)
    batches.cancel(ledger, owner, batch_id)
    return show(ledger, owner, run_id)


def _ids(ledger: Ledger, owner: str, wanted: str) -> tuple[str, str]:
    with ledger.read() as session:
        run = training.get(session, owner, wanted)
        return run.id, run.batch_id


def _key(session: Session, row: TrainRecord) -> str | None:
    artifact = session.get(Artifact, row.artifact_id) if row.artifact_id else None
    return artifact.key if artifact is not None and artifact.state == "live" else None


def _light(session: Session, run: TrainingRun, batch: Batch) -> dict[str, Any]:
    last = training.last_record(session, run.id, "step")
    tries = training.attempts(session, run.id)
    item = next(iter(batches.items(session, batch.id)), None)
    facts = dict(last.facts) if last else {}
    return {
        "id": run.id,
        "object": "training.run",
        "owner": run.owner,
        "name": run.name,
        "preset": run.preset,
        "state": batch.state,
        "reason": batch.reason,
        "batch_id": batch.id,
        "dataset_id": run.dataset_id,
        "parent_id": run.parent_id,
        "model_version_id": run.model_version_id,
        "step": last.step if last else 0,
        "steps": training.steps(run),
        "stage": tries[-1][0].name if tries else None,
        "loss": facts.get("loss"),
        "rate": facts.get("rate"),
        "samples_per_s": facts.get("samples_per_s"),
        "memory_gib": facts.get("memory_gib"),
        "seconds_left": training.seconds_left(run, last) if batch.state not in BATCH_ENDED else None,
        "error": {"code": item.error_code, "message": item.error_message} if item and item.error_code else None,
        "created_at": run.created_at.isoformat(),
        "finished_at": batch.finished_at.isoformat() if batch.finished_at else None,
    }
