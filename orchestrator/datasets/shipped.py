"""The presets that come with the system as registered versions, with the data set that they were trained on."""

from __future__ import annotations

from orchestrator.datasets import datasets
from orchestrator.ledger import models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import registry
from orchestrator.settings import Settings

MINI = "mini"
RECOGNISER = "faces/recogniser.onnx"


def register(ledger: Ledger, settings: Settings, preset: str) -> str:
    """Enter an installed preset, the mini world as the data set of the mini preset, and return the version's id.

    Raises:
        NotFoundError: no such preset.
        ModelError: its files of facts are missing or wrong.
    """
    version_id = registry.ensure_registered(ledger, settings, preset)
    with ledger.read() as session:
        version = models.get(session, version_id)
    if preset == MINI and version.dataset_id is None and RECOGNISER in (version.manifest.get("files") or {}):
        models.set_origin(ledger, version_id, datasets.ensure_mini(ledger, settings, settings.owner), seed=0)
    return version_id
