"""Where the files of a model version lie on this machine; those of trained versions are fetched once and kept."""

from __future__ import annotations

from pathlib import Path

from orchestrator.ledger import models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Artifact, ModelVersion
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from workers.runtime.files import fetch_folder


def here(ledger: Ledger, store: ByteStore, settings: Settings, version: ModelVersion) -> ModelVersion:
    """Return the version with `location` being a folder of this machine.

    The folder is named by the tensors, so that two workers that fetch it at once write the same; loading it verifies
    every file against weights.json.

    Raises:
        NotFoundError, TransientError: its files cannot be fetched.
    """
    if version.location != models.STORED:
        return version
    folder = settings.state_dir.absolute() / "models" / version.tensor_sha256
    if not folder.is_dir():
        with ledger.read() as session:
            files = models.files(session, version.id)
        _fetch(store, files, folder)
    version.location = str(folder)  # the row is detached: this is never written
    return version


def _fetch(store: ByteStore, files: dict[str, Artifact], folder: Path) -> None:
    try:
        fetch_folder(store, files, folder, lambda: None)
    except OSError:
        if not folder.is_dir():  # otherwise another worker was faster
            raise
