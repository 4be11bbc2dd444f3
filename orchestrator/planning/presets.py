"""What the planner needs to know of a preset: sizes, layouts, styles, defaults and limits.

Read from `<models_dir>/<preset>/preset.json`, which ships beside the weights. Knows nothing of networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.contracts.portraits import Control, SmallFaces
from orchestrator.errors import ModelError, NotFoundError

Domain = Literal["drawn", "photographs"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Anywhere = Annotated[float, Field(ge=-100.0, le=100.0)]
"""A hidden joint may lie outside the picture."""
Size = tuple[Annotated[int, Field(ge=8, le=8192)], Annotated[int, Field(ge=8, le=8192)]]
Range = tuple[float, float]
Point = tuple[Fraction, Fraction]
Joint = tuple[Anywhere, Anywhere, float]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Slot(_Frozen):
    """One place of a layout, in fractions of width and height.

    `kps5`: image-left eye, image-right eye, nose, left and right mouth corner. `skeleton`: OpenPose-18, x, y, visible.
    """

    name: str
    kps5: Annotated[tuple[Point, ...], Field(min_length=5, max_length=5)]
    skeleton: Annotated[tuple[Joint, ...], Field(min_length=18, max_length=18)] | None = None


class Layout(_Frozen):
    title: str
    caption: str
    """The prompt of a row that has none."""
    slots: Annotated[tuple[Slot, ...], Field(min_length=1)]


class Defaults(_Frozen):
    steps: int
    guidance: float
    id_scale: float
    control: Control
    control_scale: float = 1.0
    """Strength of a ControlNet."""
    small_faces: SmallFaces = "restore"


class Limits(_Frozen):
    """Inclusive ranges."""

    steps: tuple[int, int]
    guidance: Range
    id_scale: Range
    control_scale: Range | None = None
    """None where the preset has no ControlNet."""


class Preset(_Frozen):
    """A named configuration as the planner sees it; what it does not use of the file it does not read."""

    name: str
    title: str
    licence: str
    size: Size
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]
    latent_factor: Annotated[int, Field(ge=1)] = 8
    max_people: Annotated[int, Field(ge=1)]
    defaults: Defaults
    limits: Limits
    layouts: Annotated[dict[str, Layout], Field(min_length=1)]
    styles: dict[str, str] = {}
    """Style name to the words that it adds to a prompt."""
    verdict: dict[str, Any] = {}
    components: tuple[dict[str, Any], ...] = ()
    domain: Domain = "drawn"
    """What it was made for; a picture of the other kind is left as it is."""
    draws: bool = True
    """Whether it has a generator; one without finds, groups and reports."""

    def refusal(self, who: str) -> str:
        """Return the sentence about somebody whose references are of the other domain."""
        if self.domain == "drawn":
            return (
                f"identity {who!r} was enrolled from photographs, and preset {self.name!r} was made for drawn people; "
                "pull one that was made for photographs: `fpga model pull sdxl` or `fpga model pull sd15`"
            )
        return (
            f"identity {who!r} was enrolled from drawings, and preset {self.name!r} was made for photographs; "
            "use preset 'mini'"
        )

    def layout_for(self, people: int) -> str | None:
        """Name the first layout with exactly so many slots, or None."""
        return next((name for name, layout in self.layouts.items() if len(layout.slots) == people), None)


def preset_names(models_dir: Path) -> list[str]:
    """Name the presets that this installation has."""
    return sorted(path.parent.name for path in models_dir.glob("*/preset.json"))


def load_preset(models_dir: Path, name: str) -> Preset:
    """Read one preset.

    Raises:
        NotFoundError: there is no such preset.
        ModelError: its file cannot be read or has the wrong form.
    """
    known = preset_names(models_dir)
    if name not in known:
        raise NotFoundError(
            f"no preset {name!r} in {models_dir}; there is {', '.join(known) or 'none'}", code="unknown_preset"
        )
    path = models_dir / name / "preset.json"
    try:
        preset = Preset.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {where}: {first['msg']}") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if preset.name != name:
        raise ModelError(f"{path} calls itself {preset.name!r}, its folder says {name!r}")
    return preset
