"""What somebody fills in on a page of Prefect to begin a batch there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.contracts.base import Asked, Line
from orchestrator.contracts.photos import RestoreOptions
from orchestrator.contracts.portraits import SubmitOptions


class Portraits(Asked):
    """Portraits of a manifest."""

    manifest: Annotated[str, Field(description="The rows themselves, one JSON object a line, or CSV with its header.")]
    name: Line = "from Prefect"
    format: Literal["jsonl", "csv"] = "jsonl"
    options: SubmitOptions = SubmitOptions()


class Archive(Asked):
    """An archive that the sweeper can read: a bucket, or a path of its machine."""

    source: Annotated[str, Field(description="s3://bucket/prefix, or a folder, zip, tar or photo there.")]
    out: Annotated[str | None, Field(description="Where finished photos are written to as well.")] = None
    options: RestoreOptions = RestoreOptions()


class Evaluation(Asked):
    """A measurement of a model version."""

    model: Annotated[str, Field(description="Id of a version, or preset@alias.")]
    suites: tuple[Line, ...] = ("identity",)
    seed: int = 0
    count: int = 48
    dataset: Line | None = None
