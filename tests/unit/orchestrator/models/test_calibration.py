"""Thresholds measured on a user's pictures: kept with the version and their origin, used at once, seal unbroken."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpga_models.core.presets import preset_directory
from fpga_models.core.weights import verify
from orchestrator.errors import UsageError
from orchestrator.ledger import evaluations, models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import registry
from orchestrator.models.calibration import calibrate
from orchestrator.settings import Settings

PEOPLE = Path(__file__).parents[4] / "examples" / "people"


def test_measured_thresholds_replace_the_presets_own_and_the_seal_holds(ledger: Ledger, settings: Settings) -> None:
    installed = settings.model_copy(update={"models_dir": preset_directory("mini").parent})
    registry.ensure_registered(ledger, installed)
    with ledger.read() as session:
        version = models.resolve(session, "mini")
        before = evaluations.thresholds(session, version)
    assert before.pair == before.accept, "a preset that names no pairing threshold pairs as it accepts"

    found = calibrate(ledger, installed, "mini@champion", PEOPLE, origin="the eight drawn people of the examples")

    with ledger.read() as session:
        after = evaluations.thresholds(session, models.resolve(session, "mini"))
    assert (found["people"], found["without_face"]) == (8, 0)
    assert (after.accept, after.review, after.pair) == (found["accept"], found["review"], found["pair"])
    assert after.origin == "the eight drawn people of the examples"
    assert after.pair != before.pair
    shown = registry.show_version(ledger, "mini@champion")
    assert shown["thresholds"]["pair"] == after.pair
    assert registry.ensure_registered(ledger, installed) == version.id, "no new version came of it"
    verify(preset_directory("mini"))


def test_what_cannot_be_measured_is_said(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    installed = settings.model_copy(update={"models_dir": preset_directory("mini").parent})
    registry.ensure_registered(ledger, installed)
    with pytest.raises(UsageError, match="is no folder"):
        calibrate(ledger, installed, "mini@champion", tmp_path / "nowhere", origin=None)
    (tmp_path / "one").mkdir()
    with pytest.raises(UsageError, match="at least 8 people are wanted"):
        calibrate(ledger, installed, "mini@champion", tmp_path, origin=None)
