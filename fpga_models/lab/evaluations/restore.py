"""What DIIR wins back of small faces: damaged by the autoencoder alone or drawn by the generator; places are known.

Of `count` scenes, full-body pictures and groups of two, three and four have equal parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpga_models.diir import RESTORE, DiirResult, DiirSettings
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.generation import generate
from fpga_models.lab.measures.restorations import (
    PEOPLE_PER_SCENE,
    SMALL_KINDS,
    backgrounds,
    images,
    mask_picture,
    mean_error,
    mixed_trials,
    outcome_counts,
    own_cosines,
    restore_all,
)
from fpga_models.lab.measures.sheet import Image, sheet
from fpga_models.lab.measures.trials import Gallery, Outcome, face_sizes, observe, observe_real, through_autoencoder
from fpga_models.metrics.restoration import Background, WonBack, border_gradient_ratio, by_size, small, won_back

SHEET_ROWS = 12
LOST = 0.02
"""A mean similarity this close to that of undamaged faces leaves nothing to win back [ours]."""
Source = Literal["vae", "generated"]


@dataclass(frozen=True, kw_only=True)
class WonBackReport:
    """Share won back over all faces, over those of 16 to 28 px, and by face size.

    `bins_improved` is the share of the size bins whose mean similarity rose, of those that had lost more than LOST.
    """

    all: WonBack
    small: WonBack
    by_bin: dict[str, WonBack]
    bins_improved: float


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """Every figure of `evaluate restore`; the field names are the keys of its JSON.

    `before`, `after`, `ceiling` and `floor` are mean cosines over all faces: damaged, restored, undamaged, and of
    undamaged faces to other people; `outcomes` counts what DIIR decided per face.
    """

    won_back: WonBackReport
    before: float
    after: float
    ceiling: float
    floor: float
    background: Background
    border_gradient_ratio: float
    outcomes: Mapping[str, int]
    landmark_error: float
    source: Source
    settings: DiirSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """All outcomes of one run, trial by trial."""

    gallery: Gallery
    real: Outcome
    damaged: Outcome
    repaired: Outcome
    results: Sequence[DiirResult]


def run(bench: Bench, source: Source, settings: DiirSettings) -> Found:
    """Render, damage, restore and look at everything that the report needs."""
    gallery = bench.gallery(PEOPLE_PER_SCENE * bench.count)
    trials = mixed_trials(gallery, SMALL_KINDS, bench.count, bench.seed, bench.side)
    damaging = bench.track("damaged", bench.count)
    if source == "vae":
        damaged = through_autoencoder(bench.pipeline, [trial.real.image for trial in trials])
        damaging(bench.count)
    else:
        damaged = generate(bench.pipeline, trials, seed=bench.seed, advance=damaging)
    advance = bench.track("restored", bench.count)
    results = restore_all(bench.restorer(), trials, damaged, settings, seed=bench.seed, advance=advance)
    return Found(
        gallery=gallery,
        real=observe_real(bench.instruments, trials),
        damaged=observe(bench.instruments, trials, damaged),
        repaired=observe(bench.instruments, trials, images(results)),
        results=results,
    )


def report(found: Found, *, source: Source, settings: DiirSettings) -> RestoreReport:
    """Turn outcomes into figures."""
    before, after, ceiling = (own_cosines(found.gallery, o) for o in (found.damaged, found.repaired, found.real))
    sizes = face_sizes(found.real.trials)
    little = small(sizes)
    by_bin = by_size(sizes, before, after, ceiling)
    pairs = list(zip(found.damaged.pictures, found.results, strict=True))
    return RestoreReport(
        won_back=WonBackReport(
            all=won_back(before, after, ceiling),
            small=won_back(before[little], after[little], ceiling[little]),
            by_bin=by_bin,
            bins_improved=improved(by_bin),
        ),
        before=float(before.mean()),
        after=float(after.mean()),
        ceiling=float(ceiling.mean()),
        floor=strangers(found.gallery, found.real),
        background=backgrounds(found.damaged.pictures, found.results),
        border_gradient_ratio=float(np.mean([border_gradient_ratio(p, r.image, r.mask) for p, r in pairs])),
        outcomes=outcome_counts(found.results),
        landmark_error=mean_error(found.repaired),
        source=source,
        settings=settings,
    )


def improved(by_bin: Mapping[str, WonBack]) -> float:
    """Share of the bins that lost something whose mean rose; 1 where nothing was lost."""
    hurt = [part for part in by_bin.values() if part.ceiling - part.before > LOST]
    return float(np.mean([part.after > part.before for part in hurt])) if hurt else 1.0


def strangers(gallery: Gallery, outcome: Outcome) -> float:
    """Mean cosine of the faces found to everybody of the gallery but themselves."""
    rows = np.array([row for trial in outcome.trials for row in gallery.rows(trial)])
    judged = np.concatenate([faces.judged for faces in outcome.faces])
    cosines = judged @ gallery.judged.T  # (N, G)
    others = np.ones(cosines.shape, bool)
    others[np.arange(len(rows)), rows] = False
    others[~judged.any(1)] = False
    return float(cosines[others].mean()) if others.any() else 0.0


def picture_sheet(found: Found) -> Image:
    """Lay out some trials: real render, damaged, restored, where anything was changed, references."""
    step = max(1, len(found.results) // SHEET_ROWS)
    rows = []
    for index in range(0, len(found.results), step):
        trial, result = found.real.trials[index], found.results[index]
        pictures = [trial.real.image, found.damaged.pictures[index], found.repaired.pictures[index]]
        rows.append([*pictures, mask_picture(result), *(person.picture for person in trial.references)])
    return sheet(rows)


def measure(bench: Bench, *, source: Source = "vae", settings: DiirSettings = RESTORE) -> tuple[RestoreReport, Image]:
    """Run and report, with the picture sheet."""
    found = run(bench, source, settings)
    return report(found, source=source, settings=settings), picture_sheet(found)


def render_table(figures: RestoreReport) -> str:
    """Return the report as lines for a person to read."""
    parts = {"all faces": figures.won_back.all, "16 to 28 px": figures.won_back.small}
    parts |= {f"{name} px": part for name, part in figures.won_back.by_bin.items()}
    lines = [
        f"{name}: {part.count} faces, before {part.before:.3f}, after {part.after:.3f}, ceiling {part.ceiling:.3f}, "
        f"won back {part.share:.2f} [{part.ci95[0]:.2f}, {part.ci95[1]:.2f}]"
        for name, part in parts.items()
    ]
    lines.append(f"outside the masks: {figures.background.changed_pixels} pixels changed")
    lines.append(", ".join(f"{name} {number}" for name, number in sorted(figures.outcomes.items())))
    return "\n".join(lines) + "\n"
