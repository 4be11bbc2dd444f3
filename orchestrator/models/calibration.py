"""Thresholds of a model version measured on pictures that the user names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.ledger import evaluations
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.evaluations import Thresholds
from orchestrator.models.registry import find_version
from orchestrator.settings import Settings


def calibrate(ledger: Ledger, settings: Settings, wanted: str, people: Path, *, origin: str | None) -> dict[str, Any]:
    """Measure and keep the thresholds of a version on a folder with one folder a person; returns what was found.

    The pictures are looked at in a process of its own, which keeps nothing of them.

    Raises:
        NotFoundError: there is no such version.
        UsageError: the folder is none, holds too few people, or a picture cannot be read.
    """
    if not people.is_dir():
        raise UsageError(f"{people} is no folder; one is wanted that holds one folder a person", code="no_folder")
    with ledger.read() as session:
        version, _ = find_version(session, wanted)
    pack = str(Path(version.location) / "faces")
    command = [sys.executable, "-m", "fpga_models.faces.operating_points", pack, str(people)]
    ended = subprocess.run([*command, "--device", settings.device], check=False, capture_output=True, text=True)
    if ended.returncode:
        raise UsageError(ended.stderr.strip().splitlines()[-1], code="calibration_failed")
    rates: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    found = Thresholds(
        accept=rates["accept"],
        review=rates["review"],
        pair=rates["pair"],
        origin=origin or f"{rates['faces']} pictures of {rates['people']} people, named at `fpga model calibrate`",
    )
    with ledger.write() as session:
        evaluations.store_thresholds(session, settings.owner, version.id, found, rates, now(session))
    return {"model_version_id": version.id, **rates, "origin": found.origin}
