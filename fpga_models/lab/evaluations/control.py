"""Do people stand where they are asked to, by which control image, and are branch and merged networks the same?

Of `count` scenes, the three framings and the three group sizes have equal parts; every variant draws the same scenes
from the same noise. Branch, merged form and strengths need the modal weights and the base they belong to.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from diffusers import UNet2DConditionModel

from fpga_models.core.control import CONTROL_MODES, ControlMode
from fpga_models.core.pipeline import PortraitPipeline, PortraitRequest
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.errors import RequestError
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.held_out import Trial
from fpga_models.lab.measures.restorations import mixed_trials, own_cosines, picture_of_each_face
from fpga_models.lab.measures.sheet import Image, sheet
from fpga_models.lab.measures.trials import GROUP_KINDS, SINGLE_KINDS, Gallery, Outcome, observe_generated, observe_real
from fpga_models.metrics.placed_faces import position
from fpga_models.metrics.statistics import bootstrap_ci95

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the modal network's weight in training; 0 is the base, 1 the merged form."""
SHEET_ROWS = 10


@dataclass(frozen=True, kw_only=True)
class Obedience:
    """How well one variant met the requested places; `own` is the mean similarity to the requested people.

    Attributes:
        landmark_error: mean over the faces found, in distances of the eyes; `ci95` redraws pictures.
    """

    hit_rate: float
    landmark_error: float
    ci95: tuple[float, float]
    own: float


@dataclass(frozen=True, kw_only=True)
class Equality:
    """Pictures of the branch against those of the merged form, in steps of 255: the largest and mean difference."""

    max_difference: int
    mean_difference: float


@dataclass(frozen=True, kw_only=True)
class ControlReport:
    """Every figure of `evaluate control`; the field names are the keys of its JSON.

    `branch`, `merged`, `strength` and `equality` are None without modal weights.
    """

    modes: dict[str, Obedience]
    real: Obedience
    branch: Obedience | None
    merged: Obedience | None
    strength: dict[str, Obedience] | None
    equality: Equality | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """All outcomes of one run; `forms` by name: branch, merged and the strengths."""

    gallery: Gallery
    real: Outcome
    modes: dict[str, Outcome]
    forms: dict[str, Outcome]


def run(bench: Bench, modal: Path | None, base: Path | None) -> Found:
    """Draw the same scenes with every control mode and, where modal weights are given, in every form.

    Raises:
        RequestError: modal weights without the base that they belong to, or the other way round.
    """
    if (modal is None) != (base is None):
        raise RequestError("Modal weights and the base they belong to are wanted together; one of them was given.")
    kinds = (*SINGLE_KINDS, *GROUP_KINDS)
    gallery = bench.gallery(4 * bench.count)
    trials = mixed_trials(gallery, kinds, bench.count, bench.seed, bench.side)
    variants = len(CONTROL_MODES) + (1 + len(STRENGTHS) if modal else 0)
    advance = bench.track("pictures", len(trials) * variants)
    look = partial(observe_generated, bench.instruments, bench.pipeline, trials, seed=bench.seed, advance=advance)
    modes: dict[str, Outcome] = {mode: look(adapt=partial(with_control, mode=mode)) for mode in CONTROL_MODES}
    forms: dict[str, Outcome] = {}
    if modal and base:
        with modal_network(bench.pipeline, modal, base) as network:
            network.inject()
            forms["branch"] = look()
            network.eject()
            for share in STRENGTHS:
                network.merge(share * network.ratio.beta)
                forms[f"{share:g}"] = look()
            network.unmerge()
    return Found(gallery=gallery, real=observe_real(bench.instruments, trials), modes=modes, forms=forms)


@contextmanager
def modal_network(pipeline: PortraitPipeline, modal: Path, base: Path) -> Iterator[RepControlNet]:
    """Put the base's weights into the pipeline's UNet and its modal network beside it; afterwards as before.

    Raises:
        WeightsError: the modal weights were made for another base.
    """
    unet = pipeline.denoiser.unet
    shipped = {name: value.clone() for name, value in unet.state_dict().items()}
    found = UNet2DConditionModel.from_pretrained(base, use_safetensors=True, local_files_only=True)
    unet.load_state_dict(found.state_dict())
    try:
        yield RepControlNet.load(modal, unet)
    finally:
        unet.load_state_dict(shipped)


def with_control(request: PortraitRequest, mode: ControlMode) -> PortraitRequest:
    """The same request with another control image."""
    return replace(request, control=mode)


def report(found: Found) -> ControlReport:
    """Turn outcomes into figures."""
    judged = partial(obedience, found.gallery)
    forms = {name: judged(outcome) for name, outcome in found.forms.items()}
    return ControlReport(
        modes={mode: judged(outcome) for mode, outcome in found.modes.items()},
        real=judged(found.real),
        branch=forms.get("branch"),
        merged=forms.get("1"),
        strength={name: part for name, part in forms.items() if name != "branch"} or None,
        equality=equality(found.forms["branch"].pictures, found.forms["1"].pictures) if forms else None,
    )


def obedience(gallery: Gallery, outcome: Outcome) -> Obedience:
    """Judge one variant."""
    met = position(outcome.faces)
    errors = np.concatenate([faces.errors for faces in outcome.faces])
    here = np.isfinite(errors)
    return Obedience(
        hit_rate=met.hit_rate,
        landmark_error=met.landmark_error,
        ci95=bootstrap_ci95(errors[here], picture_of_each_face(outcome.trials)[here]),
        own=float(own_cosines(gallery, outcome).mean()),
    )


def equality(first: Sequence[Image], second: Sequence[Image]) -> Equality:
    """Compare two sets of pictures of the same shapes."""
    apart = np.abs(np.stack(first).astype(np.int16) - np.stack(second))
    return Equality(max_difference=int(apart.max()), mean_difference=float(apart.mean()))


def picture_sheet(found: Found) -> Image:
    """Lay out some trials: real render, each control mode, then each form."""
    trials: Sequence[Trial] = found.real.trials
    step = max(1, len(trials) // SHEET_ROWS)
    outcomes = [found.real, *found.modes.values(), *found.forms.values()]
    return sheet([[o.pictures[index] for o in outcomes] for index in range(0, len(trials), step)])


def measure(bench: Bench, *, modal: Path | None = None, base: Path | None = None) -> tuple[ControlReport, Image]:
    """Run and report, with the picture sheet."""
    found = run(bench, modal, base)
    return report(found), picture_sheet(found)


def render_table(figures: ControlReport) -> str:
    """Return the report as lines for a person to read."""
    parts = {f"control {mode}": part for mode, part in figures.modes.items()} | {"real renders": figures.real}
    if figures.branch:
        parts |= {"branch": figures.branch}
    parts |= {f"strength {share}": part for share, part in (figures.strength or {}).items()}
    lines = [
        f"{name}: places met {part.hit_rate:.3f}, landmark error {part.landmark_error:.3f} "
        f"[{part.ci95[0]:.3f}, {part.ci95[1]:.3f}], own {part.own:.3f}"
        for name, part in parts.items()
    ]
    if figures.equality:
        lines.append(f"branch against merged: at most {figures.equality.max_difference} of 255")
    return "\n".join(lines) + "\n"
