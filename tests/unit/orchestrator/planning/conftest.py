"""A small preset in its shipped form, and three people who said yes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.planning.plan import IdentityFacts
from orchestrator.planning.presets import Preset, load_preset

PRESETS = Path(__file__).parents[3] / "presets"


@pytest.fixture(scope="session")
def preset() -> Preset:
    return load_preset(PRESETS, "mini")


@pytest.fixture
def identities() -> dict[str, IdentityFacts]:
    allowed = frozenset({"generate", "restore"})
    return {
        **{name: IdentityFacts(id=f"idn_{name}", scopes=allowed) for name in ("ada", "bruno", "carla", "dora", "emil")},
        "frank": IdentityFacts(id="idn_frank", scopes=frozenset({"restore"})),
        "greta": IdentityFacts(id="idn_greta", scopes=frozenset(), lapsed=frozenset({"generate"})),
    }
