"""Weights of an installation enter the ledger once; a second set waits for its promotion."""

from __future__ import annotations

import json

import pytest

from orchestrator.errors import ModelError, NotFoundError, UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import registry
from orchestrator.settings import Settings


def install(settings: Settings, sha256: str) -> None:
    path = settings.models_dir / "mini" / "weights.json"
    path.write_text(json.dumps({"format": 1, "model_sha256": sha256, "made": {}, "files": {}}))


def test_the_first_weights_become_champion_and_are_entered_once(ledger: Ledger, settings: Settings) -> None:
    first = registry.ensure_registered(ledger, settings)

    assert registry.ensure_registered(ledger, settings) == first
    (version,) = registry.list_versions(ledger)
    assert (version["id"], version["number"], version["aliases"]) == (first, 1, ["champion"])
    assert registry.champion(ledger, settings, "mini") == first


def test_the_thresholds_of_the_preset_are_kept_with_the_version(ledger: Ledger, settings: Settings) -> None:
    from orchestrator.ledger import models

    registry.ensure_registered(ledger, settings)
    with ledger.read() as session:
        assert models.resolve(session, "mini").manifest["verdict"] == {"accept": 0.5, "review": 0.35}


def test_new_weights_wait_until_they_are_promoted_and_the_move_is_remembered(
    ledger: Ledger, settings: Settings
) -> None:
    first = registry.ensure_registered(ledger, settings)
    install(settings, "b" * 64)
    second = registry.ensure_registered(ledger, settings)

    assert registry.champion(ledger, settings, "mini") == first
    registry.promote(ledger, settings, second, alias="champion", reason="sharper")
    shown = registry.show_version(ledger, "mini@champion")
    assert shown["id"] == second
    assert [(move["from"], move["to"], move["reason"]) for move in shown["history"]] == [(first, second, "sharper")]


def test_weights_that_are_missing_or_not_ours_are_refused(ledger: Ledger, settings: Settings) -> None:
    path = settings.models_dir / "mini" / "weights.json"
    path.write_text("[]")
    with pytest.raises(ModelError, match="model_sha256"):
        registry.ensure_registered(ledger, settings)
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        registry.champion(ledger, settings, "mini")
    with pytest.raises(NotFoundError, match="no preset 'maxi'"):
        registry.champion(ledger, settings, "maxi")
    with pytest.raises(NotFoundError, match="mdl_none"):
        registry.show_version(ledger, "mdl_none")


def test_a_deployment_for_commercial_use_refuses_a_part_whose_licence_forbids_it(
    ledger: Ledger, settings: Settings
) -> None:
    path = settings.models_dir / "mini" / "preset.json"
    part = {"name": "face recogniser", "file": "faces/r.onnx", "licence": "non-commercial", "commercial": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"components": [part]}))

    with pytest.raises(UsageError, match=r"face recogniser \(non-commercial\)") as refused:
        registry.champion(ledger, settings.model_copy(update={"use": "commercial"}), "mini")

    assert refused.value.code == "licence_forbids"
    assert registry.list_versions(ledger) == []
    assert registry.champion(ledger, settings, "mini")
