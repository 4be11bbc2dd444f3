"""Training runs and measurements."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from orchestrator.contracts.base import Contract, JsonObject, StageResult
from orchestrator.contracts.batches import BatchOptions


class Suite(Contract):
    """One measurement that was asked for."""

    suite: str
    seed: int = 0
    count: Annotated[int, Field(ge=1)] = 48


class EvaluateParams(Contract):
    """What an item measures: a version by itself, or the one that the run before it made."""

    evaluations: tuple[Suite, ...] = ()
    evaluate_on: str | None = None
    """A data set version whose held-out people are looked at."""
    run: str | None = None
    dataset: str | None = None

    def data_set(self) -> str | None:
        """Return the data set that was asked for, or the one of the training that this measures."""
        return self.evaluate_on or self.dataset


class RunOptions(Contract):
    """What becomes of a run once it has trained."""

    gate: JsonObject = Field(default_factory=dict)
    evaluations: tuple[Suite, ...] = ()
    promote: bool = True


class TrainParams(EvaluateParams):
    """One training run: `plan` is the trainer's own, `gate` and `promote` are the run's options."""

    run: str
    plan: dict[str, JsonValue] = Field(default_factory=dict)
    parent: str | None = None
    gate: JsonObject = Field(default_factory=dict)
    promote: bool = True

    def seed(self) -> int:
        """Return the seed of the plan."""
        return int(str(self.plan.get("seed", 0)))


class TrainOptions(BatchOptions):
    """The run that a batch works on."""

    run: str | None = None


class Trained(StageResult):
    """Result of `train`."""

    model_sha256: str
    files: int


class Measured(StageResult):
    """Result of `evaluate`: (version id, suite) pairs."""

    measured: tuple[tuple[str, str], ...]
