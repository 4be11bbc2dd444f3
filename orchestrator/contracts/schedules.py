"""What a schedule does when its time comes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.contracts.base import Contract, JsonObject
from orchestrator.contracts.portraits import SubmitOptions


class ScheduledPortraits(Contract):
    """A manifest in the byte store, and what each of its batches is submitted with."""

    key: str
    sha256: str
    format: Literal["jsonl", "csv"]
    options: SubmitOptions = Field(default_factory=SubmitOptions)


class ScheduledTraining(Contract):
    """A training run; its data set is resolved each time."""

    recipe: JsonObject


class RunObject(Contract):
    """What became of one time: the batch that was made for it, or why none was."""

    due_at: str
    outcome: Literal["made", "waiting", "skipped", "missed", "failed"]
    code: str | None = None
    message: str | None = None
    batch_id: str | None = None
    at: str


class ScheduleObject(Contract):
    """A schedule as command line, HTTP and pages show it; times are ISO 8601, UTC."""

    object: Literal["schedule"] = "schedule"
    id: str
    name: str
    kind: str
    cron: str
    timezone: str
    catch_up: str
    overlap: str
    active: bool
    task: JsonObject
    next_run: str | None
    next_runs: tuple[str, ...]
    last_run: RunObject | None
    under_way: str | None = None
    """Its newest batch that has not ended; neither a change nor a removal touches that."""
    created: bool | None = None
    """Of an answer to an add: whether it was not there before."""
