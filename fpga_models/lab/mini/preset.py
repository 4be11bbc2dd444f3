"""The public facts of a preset of the mini world, its preset.json; layouts are taken from the renderer."""

from __future__ import annotations

from typing import Any

from fpga_models.lab.mini.networks import MAX_PEOPLE, MINI, Sizes
from fpga_models.lab.synthetic import Slot, layouts

LAYOUT_TEXTS = {
    "portrait": ("Portrait", "close-up portrait of a person"),
    "half_body": ("Half body", "half body portrait of a person"),
    "full_body": ("Full body", "full body photo of a person"),
    "group_2": ("Two people", "group photo of two people"),
    "group_3": ("Three people", "group photo of three people"),
    "group_4": ("Four people", "group photo of four people"),
}
SLOT_NAMES = {1: ("person",), 2: ("left", "right"), 3: ("left", "middle", "right")}
FOUR = ("far_left", "left", "right", "far_right")
STYLES = {
    "natural": "",
    "warm": "warm light",
    "cool": "cool light",
    "evening": "evening light",
    "bright": "bright light",
}
LICENCE = "Apache-2.0"


def preset_facts(verdict: dict[str, Any], components: list[dict[str, str]], sizes: Sizes = MINI) -> dict[str, Any]:
    """Everything a client may know of a preset of the mini world.

    Args:
        verdict: measured thresholds.
        components: name, file, licence and sha256 of each network.
        sizes: of the preset.
    """
    side = sizes.image_side
    return {
        "name": sizes.name,
        "title": f"Mini: synthetic portraits, {side} pixels, runs on two CPU cores",
        "licence": LICENCE,
        "size": [side, side],
        "sizes": [[side, side]],
        "latent_factor": sizes.latent_factor,
        "max_people": MAX_PEOPLE,
        "defaults": {"steps": 20, "guidance": 1.5, "id_scale": 1.0, "control": "landmark"},
        "limits": {"steps": [1, 100], "guidance": [1.0, 8.0], "id_scale": [0.0, 2.0]},
        "layouts": {name: _layout(name, slots) for name, slots in layouts().items()},
        "styles": STYLES,
        "verdict": verdict,
        "components": components,
    }


def _layout(name: str, slots: list[Slot]) -> dict[str, Any]:
    title, caption = LAYOUT_TEXTS[name]
    names = SLOT_NAMES.get(len(slots), FOUR)
    return {
        "title": title,
        "caption": caption,
        "slots": [
            {
                "name": slot_name,
                "kps5": [[round(float(v), 5) for v in point] for point in slot.kps5],
                "skeleton": [[round(float(v), 5) for v in joint] for joint in slot.skeleton],
            }
            for slot_name, slot in zip(names, slots, strict=True)
        ],
    }
