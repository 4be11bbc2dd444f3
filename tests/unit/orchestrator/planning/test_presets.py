"""Presets are read from their file, and a wrong file says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import ModelError, NotFoundError
from orchestrator.planning.presets import Preset, load_preset, preset_names

PRESETS = Path(__file__).parents[3] / "presets"


def test_the_layouts_hold_one_to_four_people_with_a_skeleton_each(preset: Preset) -> None:
    assert {name: len(layout.slots) for name, layout in preset.layouts.items()} == {
        "portrait": 1,
        "half_body": 1,
        "full_body": 1,
        "group_2": 2,
        "group_3": 3,
        "group_4": 4,
    }
    assert all(slot.skeleton for layout in preset.layouts.values() for slot in layout.slots)
    assert [preset.layout_for(n) for n in range(1, 6)] == ["portrait", "group_2", "group_3", "group_4", None]


def test_an_unknown_preset_names_the_known_ones() -> None:
    assert preset_names(PRESETS) == ["mini"]
    with pytest.raises(NotFoundError, match="there is mini") as caught:
        load_preset(PRESETS, "../mini")
    assert caught.value.code == "unknown_preset"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layouts": {}}, "layouts"),
        ({"max_people": 0}, "max_people"),
        ({"defaults": {"steps": 20, "guidance": 2, "id_scale": 1, "control": "depth"}}, "defaults.control"),
        ({"name": "maxi"}, "calls itself 'maxi'"),
    ],
)
def test_a_wrong_preset_file_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    (tmp_path / "mini").mkdir()
    whole = json.loads((PRESETS / "mini" / "preset.json").read_text())
    (tmp_path / "mini" / "preset.json").write_text(json.dumps({**whole, **change}))

    with pytest.raises(ModelError, match=words):
        load_preset(tmp_path, "mini")
