"""The durable steps of an item. A step's module, and torch with it, is imported when it is first needed."""

from __future__ import annotations

from importlib import import_module

from orchestrator import pipelines
from workers.stages.base import Stage


def load(name: str) -> Stage:
    """Return the function that does a stage: the one of its name, in the module of its name, in its room here."""
    room = pipelines.stages()[name].room
    stage: Stage = getattr(import_module(f"workers.stages.{room}.{name}"), name)
    return stage
