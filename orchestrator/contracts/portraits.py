"""Portraits: what a submit may ask for, what an item is to show, and what its stages came to."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

from orchestrator.contracts.base import Asked, Contract, Line, StageResult
from orchestrator.contracts.batches import BatchOptions, Lane

Control = Literal["skeleton", "landmark", "both", "none"]
CONTROLS: tuple[Control, ...] = get_args(Control)
SmallFaces = Literal["restore", "keep"]
"""Whether small faces of a finished picture are drawn again, larger (DIIR), or left as they came out."""
Verdict = Literal["accepted", "needs_review", "rejected", "unchanged"]
MAX_SEED = 2**32 - 1
MAX_ROWS = 50_000
MAX_REDRAWS = 10
MAX_PRIORITY = 3
SIZE_TEXT = re.compile(r"^\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*$")
Side = Annotated[int, Field(ge=8, le=8192)]


def read_size(value: object) -> object:
    """Take `128x192` for (128, 192); what is no text goes on as it is.

    Raises:
        PydanticCustomError: `bad_size`, the text is no size.
    """
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(text, str):
        return value
    found = SIZE_TEXT.match(text)
    if not found:
        raise PydanticCustomError("bad_size", "a size is written WIDTHxHEIGHT, for instance 128x128")
    return found.group(1), found.group(2)


Size = Annotated[
    tuple[Side, Side],
    BeforeValidator(read_size),
    WithJsonSchema({"type": "string", "pattern": SIZE_TEXT.pattern, "examples": ["128x192"]}),
]


class BatchDefaults(Asked):
    """What a whole batch says for rows that say nothing; None leaves it to the preset."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="Decides the seeds of rows that name none.")] = 0
    size: Annotated[Size | None, Field(description="WIDTHxHEIGHT, px, of rows that name none.")] = None
    layout: Annotated[Line | None, Field(description="Layout of rows that name none, where it fits.")] = None
    style: Annotated[Line | None, Field(description="Style of rows that name none.")] = None
    steps: Annotated[int | None, Field(ge=1, le=1000, description="Denoising steps of rows that name none.")] = None
    guidance: Annotated[float | None, Field(ge=0, le=50, description="Guidance of rows that name none.")] = None
    id_scale: Annotated[
        float | None, Field(ge=0, le=10, description="How strongly faces are drawn like their people.")
    ] = None
    control: Annotated[Control | None, Field(description="What places the people of rows that say nothing.")] = None
    small_faces: Annotated[
        SmallFaces | None, Field(description="Of rows that say nothing: draw small faces again, larger, or keep them.")
    ] = None
    negative_prompt: Annotated[
        str | None, Field(max_length=2000, description="What rows that name nothing shall not show.")
    ] = None


class PlanOptions(BatchDefaults):
    """What decides what a manifest comes to."""

    preset: Annotated[Line | None, Field(description="Preset to run on (default: FPGA_PRESET, or mini).")] = None

    def defaults(self) -> BatchDefaults:
        """Return what rows that say nothing take."""
        return BatchDefaults(**self.model_dump(include=set(BatchDefaults.model_fields)))


class SubmitOptions(PlanOptions):
    """Everything that a submit may say beside its manifest: one list for command line, HTTP, pages and schedules."""

    lane: Annotated[Lane, Field(description="interactive goes before bulk.")] = "bulk"
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="-3 to 3 within the lane.")] = 0
    redraws: Annotated[
        int, Field(ge=0, le=MAX_REDRAWS, description="Draw rejected pictures again with seed+1, so often.")
    ] = 0
    stop_after: Annotated[
        int | None, Field(ge=1, le=MAX_ROWS, description="Pause it when so many items went wrong.")
    ] = None
    skip_invalid: Annotated[bool, Field(description="Leave wrong rows out.")] = False
    paused: Annotated[bool, Field(description="Do not start it yet; see resume.")] = False
    growing: Annotated[bool, Field(description="Leave it open for more rows until it is closed.")] = False
    model: Annotated[Line | None, Field(description="Draw all of it with this version, or preset@alias.")] = None
    candidate_share: Annotated[
        float, Field(ge=0, le=1, description="Let the candidate draw this share too; see compare.")
    ] = 0.0


class PortraitOptions(BatchOptions):
    """What a batch of portraits was asked for as a whole.

    Attributes:
        compares: the batch whose items the candidate draws in this one.
        reproduces: the item that this batch makes again.
    """

    redraws: int = 0
    defaults: BatchDefaults = BatchDefaults()
    compares: str | None = None
    reproduces: str | None = None


class PlacedPerson(Contract):
    """One person of a portrait and where their face goes, px: box (4,), five landmarks (5, 2), skeleton (18, 3)."""

    identity: str
    box: tuple[float, ...] | None = None
    kps5: tuple[tuple[float, ...], ...]
    skeleton: tuple[tuple[float, ...], ...] | None = None
    slot: str | None = None


class PortraitParams(Contract):
    """Everything that decides one portrait, with what is only kept beside it: `layout`, `style`, `extra`."""

    SPARSE = frozenset({"control_scale", "masked"})

    control: Control
    control_scale: float | None = None
    """Strength of the ControlNet; None where the preset has none."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    guidance: float
    height: int
    id_scale: float
    layout: str | None = None
    masked: bool = True
    """Whether each person's identity is kept to their own place in the picture."""
    negative_prompt: str = ""
    people: tuple[PlacedPerson, ...] = ()
    preset: str
    prompt: str
    seed: int = 0
    small_faces: SmallFaces = "keep"
    """Rows from before there was the choice keep theirs."""
    steps: int
    style: str | None = None
    width: int

    def identities(self) -> tuple[str, ...]:
        """Return the ids of the people it shows, in their order."""
        return tuple(person.identity for person in self.people)


class Generated(StageResult):
    """Result of `generate`."""

    output: str
    sha256: str


class FaceFound(Contract):
    """A face that the detector found, px of the picture."""

    box: tuple[float, ...]
    score: float


class PersonScore(Contract):
    """How one requested person came out: the face at their place (None: none), its likeness, whom it resembles most."""

    face: int | None
    similarity: float
    nearest: int | None
    eyes: float | None = None
    """How much the two eyes differ, where that was measured."""


class Scored(StageResult):
    """Result of `score`; `similarity` is that of the least similar person, `matrix` is (faces, people) cosines."""

    verdict: Verdict
    similarity: float | None
    people: tuple[PersonScore, ...]
    matrix: tuple[tuple[float, ...], ...]
    faces: tuple[FaceFound, ...]
    thresholds: dict[str, float | None]
    judge: str = ""
    """Which recogniser the verdict stands on, in words; empty in what was judged before it was said."""
