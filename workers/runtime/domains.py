"""What a preset was made for, and what is said of a face that is something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fpga_models.core.presets import Domain, Preset, read_preset
from fpga_models.errors import PresetError
from fpga_models.faces.domain import Kind, is_inside
from orchestrator.errors import ModelError
from orchestrator.ledger.tables.rows import ModelVersion

OUTSIDE = "outside_domain"
NO_GENERATOR = "no_generator"
WORDS: dict[Kind, str] = {
    "drawn": "a drawing",
    "photographs": "a photograph of a real person",
    "border": "neither clearly a drawing nor clearly a photograph",
}
PULL: dict[Domain, str] = {
    "photographs": "for photographs pull a preset: `fpga model pull faces` finds and groups people on any machine, "
    "`fpga model pull sdxl` restores and draws them, preferably on a GPU",
    "drawn": "for drawn people use preset mini",
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a preset was made for, and the words about it."""

    preset: Preset

    @classmethod
    def of(cls, version: ModelVersion) -> Made:
        """Read it from the files of a version.

        Raises:
            ModelError: `preset.json` is missing or not one of ours.
        """
        try:
            return cls(preset=read_preset(Path(version.location)))
        except PresetError as error:
            raise ModelError(str(error), code=error.code) from error

    @property
    def name(self) -> str:
        """Name of the preset."""
        return self.preset.name

    @property
    def domain(self) -> Domain:
        """What it was made for."""
        return self.preset.domain

    @property
    def draws(self) -> bool:
        """Whether it has a generator."""
        return self.preset.draws

    def refusal(self, kind: Kind) -> str | None:
        """Return the sentence about a face that this preset must not touch, None where it may."""
        if is_inside(kind, self.domain):
            return None
        other: Domain = "photographs" if self.domain == "drawn" else "drawn"
        made_for = "drawn people" if self.domain == "drawn" else "photographs"
        return f"{WORDS[kind]}, and preset {self.name} was made for {made_for}; {PULL[other]}"

    def judge(self, encoder_sha256: str) -> str:
        """Name the recogniser that judges, and say where it is the one that tells the generator who somebody is."""
        same = "; the generator is told people by the same one" if self.draws else ""
        return f"recogniser {encoder_sha256[:12]} of preset {self.name}{same}"

    @property
    def without_generator(self) -> str:
        """The sentence about a face that would be restored if this preset had a generator."""
        return (
            f"Its person is known; preset {self.name} draws nothing, so it stays. To restore it, pull a preset that "
            "does: `fpga model pull sdxl` or `fpga model pull sd15`."
        )
