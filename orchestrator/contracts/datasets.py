"""Data sets: what a build asks for, what one chunk is made of, and what its stages came to."""

from __future__ import annotations

from pydantic import Field, model_validator

from orchestrator.contracts.base import Contract, JsonObject, StageResult, StoredRef
from orchestrator.contracts.batches import BatchOptions


class BuildOptions(BatchOptions):
    """A build as a whole; `plan` is the list of its chunks in the store."""

    source: str
    name: str
    licence: str
    attestation: str | None = None
    arrange: JsonObject = Field(default_factory=dict)
    """Fields of `fpga_models.idzoom.arrange.ArrangeOptions`."""
    plan: StoredRef


class RenderSpan(Contract):
    """Pictures `start` to `stop` of the rendered world of a seed."""

    seed: int
    start: int
    stop: int


class TarRef(Contract):
    """Pictures in a tar in the store."""

    key: str
    sha256: str


class ChunkInput(Contract):
    """Where the pictures of a chunk come from: exactly one of the two."""

    render: RenderSpan | None = None
    tar: TarRef | None = None

    @model_validator(mode="after")
    def _one(self) -> ChunkInput:
        if (self.render is None) == (self.tar is None):
            raise ValueError("a chunk is rendered or read from a tar")
        return self


class ChunkFacts(Contract):
    """What every record of a chunk says."""

    source: str
    licence: str
    consent: str


class DependsOn(Contract):
    """What the result of a chunk depends on beside its pictures; the hash of both is its name."""

    annotate: int
    networks: dict[str, str]
    side: int
    max_people: int
    captioner: str = ""
    facts: ChunkFacts


class ChunkParams(DependsOn):
    """One chunk to annotate."""

    chunk: str
    input: ChunkInput
    input_artifact: str | None = None
    pictures: int


class ChunkCounts(StageResult):
    """Result of `annotate`."""

    pictures: int
    records: int
    faces: int
    views: int


class Arranged(StageResult):
    """Result of `arrange`: the version that was published; None only until it is."""

    version: str | None = None
