"""The durable steps of an item, by name. A step's module, and torch with it, is imported when it is first needed."""

from __future__ import annotations

from importlib import import_module

from workers.stages.base import Stage

STAGES = {
    "ingest": "portraits.ingest:ingest",
    "generate": "portraits.generate:generate",
    "score": "portraits.score:score",
    "annotate": "datasets.annotate:annotate",
    "arrange": "datasets.arrange:arrange_data_set",
    "train": "training.train:train",
    "evaluate": "training.evaluate:evaluate",
    "ingest_photo": "photos.ingest_photo:ingest_photo",
    "cluster": "photos.cluster:cluster",
    "restore": "photos.restore:restore",
    "score_photo": "photos.score_photo:score_photo",
    "publish_photo": "photos.publish_photo:publish_photo",
    "probe": "probe:probe",
}
"""Module and function of each."""


def load(name: str) -> Stage:
    """Return the function that does this step."""
    module, _, function = STAGES[name].partition(":")
    stage: Stage = getattr(import_module(f"workers.stages.{module}"), function)
    return stage
