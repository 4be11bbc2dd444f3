"""The weights in this repository are a registered version that leads to its data set, configuration and command."""

from __future__ import annotations

from orchestrator.datasets import shipped
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import lineage
from orchestrator.settings import PACKAGE_ROOT, Settings


def test_the_shipped_mini_preset_leads_to_its_data_set_and_configuration(ledger: Ledger, settings: Settings) -> None:
    installed = settings.model_copy(update={"models_dir": PACKAGE_ROOT / "fpga_models" / "weights"})

    version = shipped.register(ledger, installed, "mini")
    (origin,) = lineage.lineage(ledger, "mini@champion")

    assert shipped.register(ledger, installed, "mini") == version == origin["id"]
    assert origin["dataset"]["source"].startswith("render:")
    assert origin["command"].startswith("python -m fpga_models.")
    assert origin["config"]
    assert origin["steps"] > 0


def test_a_preset_without_networks_is_registered_without_a_data_set(ledger: Ledger, settings: Settings) -> None:
    shipped.register(ledger, settings, "mini")
    (origin,) = lineage.lineage(ledger, "mini@champion")
    assert origin["dataset"] is None
