"""A preset: the public facts of one named configuration, read from the `preset.json` of its folder.

The same file is read by the orchestrator, which cannot import this room; so it holds plain numbers and words only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fpga_models.core.control import CONTROL_MODES, ControlMode
from fpga_models.core.memory import Need
from fpga_models.errors import PresetError

Domain = Literal["drawn", "photographs"]
"""What a preset was made for: people as the laboratory draws them, or as cameras see them."""
SHIPPED = Path(__file__).parents[1] / "weights"
FILE = "preset.json"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a caller may ask of a preset.

    Attributes:
        sizes: (width, height) pairs on offer, the default first.
        latent_factor: pixels per latent cell and side.
        defaults: steps, guidance, id_scale, control.
        limits: lowest and highest value of steps, guidance, id_scale.
        layouts: by name: title, caption, slots with kps5 and skeleton as fractions of width and height.
        styles: prompt suffix by name.
        verdict: measured thresholds, `accept` and `review` similarity, and `eyes`, from which eyes differ too much.
        components: what the preset is made of, with licences.
        controls: control modes on offer.
        control_states: what a ControlNet of the preset attends to.
        domain: what it was made for; a face of the other kind is left as it is.
        draws: whether it has a generator; one without finds, recognises and reports.
        embedding_length: length that embeddings are brought to: 1 unless the adapter was trained on raw ones.
        diir: knobs of restoring by task (`restore`, `swap`, `stylized`), where they are not those measured on mini.
        memory: what it needs of a card, None where that was not computed.
        sampler: `name` (ddim, euler, dpm++2m, lcm) and options of that scheduler; restoring always uses DDIM.
        loras: `file` in the folder and `weight`, folded into the UNet in this order.
        crop_sides: sides at which face crops go through the networks; empty means every square of `sizes`.
    """

    name: str
    title: str
    licence: str
    sizes: tuple[tuple[int, int], ...]
    latent_factor: int
    max_people: int
    defaults: Mapping[str, Any]
    limits: Mapping[str, tuple[float, float]]
    layouts: Mapping[str, Any]
    styles: Mapping[str, str]
    verdict: Mapping[str, Any]
    components: tuple[Mapping[str, str], ...]
    controls: tuple[ControlMode, ...] = CONTROL_MODES
    control_states: Literal["text", "identity"] = "text"
    embedding_length: float = 1.0
    domain: Domain = "drawn"
    draws: bool = True
    diir: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    crop_sides: tuple[int, ...] = ()
    memory: Need | None = None
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"name": "ddim"})
    loras: tuple[Mapping[str, Any], ...] = ()

    def squares(self) -> list[int]:
        """Sides at which face crops go through the networks."""
        return list(self.crop_sides) or [width for width, height in self.sizes if width == height]


def preset_directory(name: str) -> Path:
    """Folder of a preset shipped with this package.

    Raises:
        PresetError: there is no such preset.
    """
    directory = SHIPPED / name
    if not (directory / FILE).is_file():
        known = sorted(path.parent.name for path in SHIPPED.glob(f"*/{FILE}"))
        raise PresetError(f"Preset {name!r} is not installed; there are: {', '.join(known) or 'none'}.")
    return directory


def read_preset(directory: Path) -> Preset:
    """Read `preset.json` of a preset folder.

    Raises:
        PresetError: the file is missing, not JSON, or lacks a field.
    """
    path = directory / FILE
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise PresetError(f"{path} cannot be read as JSON: {error}.") from error
    try:
        return Preset(
            name=facts["name"],
            title=facts["title"],
            licence=facts["licence"],
            sizes=tuple((int(width), int(height)) for width, height in facts["sizes"]),
            latent_factor=int(facts["latent_factor"]),
            max_people=int(facts["max_people"]),
            defaults=facts["defaults"],
            limits={name: (low, high) for name, (low, high) in facts["limits"].items()},
            layouts=facts["layouts"],
            styles=facts["styles"],
            verdict=facts["verdict"],
            components=tuple(facts["components"]),
            controls=tuple(facts.get("controls", CONTROL_MODES)),
            control_states=facts.get("control_states", "text"),
            embedding_length=float(facts.get("embedding_length", 1.0)),
            domain=facts.get("domain", "drawn"),
            draws=bool(facts.get("draws", True)),
            diir=facts.get("diir", {}),
            memory=Need(**facts["memory"]) if "memory" in facts else None,
            sampler=facts.get("sampler", {"name": "ddim"}),
            loras=tuple(facts.get("loras", ())),
            crop_sides=tuple(int(side) for side in facts.get("crop_sides", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PresetError(f"{path} is not a preset: {error!r}.") from error
