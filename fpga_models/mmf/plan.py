"""What a training run is to do, as plain numbers: equal plans on equal data give equal weights on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fpga_models.core.rep_controlnet import RepRatio
from fpga_models.errors import PlanError
from fpga_models.idzoom.scenes import KINDS
from fpga_models.mmf.loop import Losses
from fpga_models.mmf.samples.batch import Augmentation
from fpga_models.mmf.samples.modes import ModePlan

CloneRecipe = Literal["C1", "C2", "C3", "C4"]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
KIND_SHARES = (0.34, 0.12, 0.08, 0.2, 0.16, 0.1)  # portrait, half body, full body, groups of 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Length and learning rate of one stage: a warm-up, flat, then linear to zero over the last `anneal` of the steps.

    The rate is a function of the step alone, never of the clock.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    steps: Annotated[int, Field(ge=0)]
    rate: Annotated[float, Field(gt=0)]
    warmup: Count = 50
    anneal: Annotated[float, Field(gt=0, le=1)] = 0.6

    def learning_rate_at(self, done: int) -> float:
        """Learning rate of the step after `done` steps of this stage."""
        left = (self.steps - done) / (self.anneal * self.steps)
        return self.rate * min(1.0, (done + 1) / self.warmup, left)


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """One run: Multi-Mode Fusion of a modal network beside the frozen base, then Clone Face Tuning [paper].

    Attributes:
        start: preset folder that the run begins from; its text encoder and autoencoder stay as they are.
        batch_size, accumulate: samples of an update, and the parts they go through the network in.
        mmf: trains the modal network, the identity adapter and the hint adapter.
        clone: trains the adapters alone; 5 to 20 % of the steps, at a lower rate [ours].
        recipe: samples of the second stage, see clone.py; `ordinary_share` of them stay those of the first.
        clones: pictures made for recipe C2 before the second stage.
        local_tokens: per person, of a fresh local branch if the start has none; 0 adds none. The data must bring crops.
        local_rate: what the learning rate of the local branch is multiplied with: it begins at nothing.
        cache_text: write the text states of all captions ahead; worth it for large text encoders and many epochs.
        save_every, validate_every, report_every: in steps. `keep`: checkpoints kept.
        precision: of the forward pass; auto is bfloat16 wherever the device has it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    start: str
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Count = 48
    accumulate: Count = 1
    mmf: StagePlan = field(default_factory=lambda: StagePlan(steps=800, rate=1.2e-3))
    clone: StagePlan = field(default_factory=lambda: StagePlan(steps=160, rate=4e-4, warmup=20))
    recipe: CloneRecipe = "C4"
    ordinary_share: Share = 0.4
    clones: Count = 256
    modes: ModePlan = field(default_factory=ModePlan)
    disturbance: Augmentation = field(default_factory=lambda: Augmentation(embedding_noise=0.01))
    losses: Losses = field(default_factory=Losses)
    ratio: RepRatio = field(default_factory=RepRatio)
    kind_shares: Annotated[tuple[float, ...], Field(min_length=len(KINDS), max_length=len(KINDS))] = KIND_SHARES
    average_decay: Share = 0.998
    local_tokens: Annotated[int, Field(ge=0)] = 0
    local_rate: Annotated[float, Field(gt=0)] = 2.0
    cache_text: bool = False
    save_every: Count = 200
    validate_every: Count = 200
    report_every: Count = 10
    keep: Count = 2
    device: str = "cpu"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @property
    def steps(self) -> int:
        """Steps of both stages together."""
        return self.mmf.steps + self.clone.steps

    def as_json(self) -> dict[str, object]:
        """The plan as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> TrainPlan:
        """Read a plan; missing fields have their defaults.

        Raises:
            PlanError: an unknown field, or a value of another type or outside its range.
        """
        try:
            return TypeAdapter(cls).validate_python(dict(facts))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PlanError(f"Training plan, {place}: {first['msg']}; got {first['input']!r}.") from error
