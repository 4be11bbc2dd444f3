"""Probes: items that wait instead of computing."""

from __future__ import annotations

from typing import Literal

from orchestrator.contracts.base import Contract, StageResult

Disaster = Literal["kill", "segfault", "memory", "hang", "hang_in_c"]


class ProbeParams(Contract):
    """How long an item waits, and how it ends the worker that takes it up."""

    milliseconds: float
    disaster: Disaster | None = None


class Probed(StageResult):
    """Result of `probe`."""

    sha256: str
