"""Does DIIR also help drawn faces? The scenes of the restoration in several styles, damaged by the autoencoder.

References stay photographs, as a client has them. Of `count` scenes per style, full-body pictures and groups of two,
three and four have equal parts; every style shows the same scenes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fpga_models.diir import STYLIZED, DiirResult, DiirSettings
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.held_out import Trial
from fpga_models.lab.measures.restorations import (
    PEOPLE_PER_SCENE,
    SMALL_KINDS,
    backgrounds,
    images,
    mean_error,
    mixed_trials,
    outcome_counts,
    own_cosines,
    picture_of_each_face,
    restore_all,
)
from fpga_models.lab.measures.sheet import Image, sheet
from fpga_models.lab.measures.styles import STYLES
from fpga_models.lab.measures.trials import Advance, Gallery, Outcome, face_sizes, observe, through_autoencoder
from fpga_models.metrics.restoration import Background, WonBack, by_size, won_back
from fpga_models.metrics.statistics import bootstrap_ci95

SHEET_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class StyleReport:
    """One style.

    Attributes:
        before, after, ceiling: mean cosine to the person's photograph: damaged, edited, undamaged in this style.
        gain_ci95: of after - before, redrawing pictures.
        style_kept: share of the edited faces that are nearer to the undamaged face in this style than to its plain
            render, pixel by pixel; `style_before` the same of the damaged faces.
        colour_drift: mean distance of the edited faces' colourfulness (largest less smallest channel, of 255) from
            that of the undamaged faces in this style: colours that the photograph brought in.
    """

    before: float
    after: float
    ceiling: float
    gain_ci95: tuple[float, float]
    improves: bool
    style_kept: float
    style_before: float
    colour_drift: float
    won_back: WonBack
    by_bin: dict[str, WonBack]
    background: Background
    landmark_error: float
    outcomes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class StylizedReport:
    """Every figure of `evaluate stylized`; the field names are the keys of its JSON.

    `improved` is the share of the styles whose gain excludes 0.
    """

    styles: dict[str, StyleReport]
    improved: float
    settings: DiirSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """All outcomes of one style."""

    gallery: Gallery
    drawn: Outcome
    damaged: Outcome
    repaired: Outcome
    results: Sequence[DiirResult]


def run(bench: Bench, settings: DiirSettings) -> dict[str, Found]:
    """Draw, damage, edit and look, style by style."""
    gallery = bench.gallery(PEOPLE_PER_SCENE * bench.count)
    trials = mixed_trials(gallery, SMALL_KINDS, bench.count, bench.seed, bench.side)
    advance = bench.track("edited", len(trials) * len(STYLES))
    return {name: _run_style(bench, gallery, trials, name, settings, advance) for name in STYLES}


def _run_style(
    bench: Bench, gallery: Gallery, trials: Sequence[Trial], style: str, settings: DiirSettings, advance: Advance
) -> Found:
    drawn = [STYLES[style](trial.real.image) for trial in trials]
    damaged = through_autoencoder(bench.pipeline, drawn)
    results = restore_all(bench.restorer(), trials, damaged, settings, seed=bench.seed, advance=advance)
    look = [observe(bench.instruments, trials, pictures) for pictures in (drawn, damaged, images(results))]
    return Found(gallery=gallery, drawn=look[0], damaged=look[1], repaired=look[2], results=results)


def report(found: Mapping[str, Found], settings: DiirSettings) -> StylizedReport:
    """Turn outcomes into figures."""
    styles = {name: _report_style(part) for name, part in found.items()}
    improved = float(np.mean([part.improves for part in styles.values()]))
    return StylizedReport(styles=styles, improved=improved, settings=settings)


def _report_style(found: Found) -> StyleReport:
    before, after, ceiling = (own_cosines(found.gallery, o) for o in (found.damaged, found.repaired, found.drawn))
    low, high = bootstrap_ci95(after - before, picture_of_each_face(found.drawn.trials))
    return StyleReport(
        before=float(before.mean()),
        after=float(after.mean()),
        ceiling=float(ceiling.mean()),
        gain_ci95=(low, high),
        improves=low > 0,
        style_kept=in_style(found, found.repaired.pictures),
        style_before=in_style(found, found.damaged.pictures),
        colour_drift=colour_drift(found),
        won_back=won_back(before, after, ceiling),
        by_bin=by_size(face_sizes(found.drawn.trials), before, after, ceiling),
        background=backgrounds(found.damaged.pictures, found.results),
        landmark_error=mean_error(found.repaired),
        outcomes=outcome_counts(found.results),
    )


def changed_boxes(found: Found) -> list[tuple[int, tuple[slice, slice]]]:
    """Picture and window of every face that was edited."""
    boxes = []
    for index, result in enumerate(found.results):
        for x0, y0, x1, y1 in (face.box for face in result.faces if face.changed):
            boxes.append((index, (slice(max(round(y0), 0), round(y1)), slice(max(round(x0), 0), round(x1)))))
    return boxes


def in_style(found: Found, pictures: Sequence[Image]) -> float:
    """Share of the edited faces that are nearer (mean squared error) to the drawn picture than to the plain render."""
    nearer = []
    for index, window in changed_boxes(found):
        face = pictures[index][window].astype(np.float64)
        drawn, plain = found.drawn.pictures[index][window], found.drawn.trials[index].real.image[window]
        nearer.append(((face - drawn) ** 2).mean() < ((face - plain) ** 2).mean())
    return float(np.mean(nearer)) if nearer else 0.0


def colour_drift(found: Found) -> float:
    """Mean absolute difference in colourfulness of the edited faces, after against drawn."""
    drifts = []
    for index, window in changed_boxes(found):
        after, drawn = (
            np.ptp(o.pictures[index][window].astype(np.float64), axis=2).mean() for o in (found.repaired, found.drawn)
        )
        drifts.append(abs(after - drawn))
    return float(np.mean(drifts)) if drifts else 0.0


def picture_sheet(found: Mapping[str, Found]) -> Image:
    """Lay out some trials of every style: drawn, damaged, edited, references."""
    rows = []
    for part in found.values():
        step = max(1, len(part.results) // SHEET_ROWS)
        for index in range(0, len(part.results), step):
            pictures = [outcome.pictures[index] for outcome in (part.drawn, part.damaged, part.repaired)]
            rows.append([*pictures, *(person.picture for person in part.drawn.trials[index].references)])
    return sheet(rows)


def measure(bench: Bench, *, settings: DiirSettings = STYLIZED) -> tuple[StylizedReport, Image]:
    """Run and report, with the picture sheet."""
    found = run(bench, settings)
    return report(found, settings), picture_sheet(found)


def render_table(figures: StylizedReport) -> str:
    """Return the report as lines for a person to read."""
    lines = [
        f"{name}: {part.before:.3f} -> {part.after:.3f} of {part.ceiling:.3f}, "
        f"gain [{part.gain_ci95[0]:.3f}, {part.gain_ci95[1]:.3f}], "
        f"style kept {part.style_kept:.2f}, colour drift {part.colour_drift:.1f}, "
        f"{part.background.changed_pixels} pixels changed outside"
        for name, part in figures.styles.items()
    ]
    return "\n".join(lines) + "\n"
