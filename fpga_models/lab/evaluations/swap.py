"""Does a face become somebody else's and stay where it is? Every face of real renders is swapped for a stranger's.

Of `count` scenes, portraits, half-body, full-body pictures and groups of two have equal parts. The new people are
those half a gallery away from the old ones, so nobody is swapped for a neighbour in the same picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpga_models.diir import SWAP, DiirResult, DiirSettings, Reference
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.held_out import Trial
from fpga_models.lab.measures.restorations import (
    backgrounds,
    images,
    mask_picture,
    mean_error,
    mixed_trials,
    outcome_counts,
    picture_of_each_face,
)
from fpga_models.lab.measures.sheet import Image, sheet
from fpga_models.lab.measures.trials import Gallery, Outcome, face_sizes, observe, observe_real
from fpga_models.metrics.assignment import ABSENT, match_places
from fpga_models.metrics.identity import Top1, similarities, top1
from fpga_models.metrics.restoration import Background, size_bins
from fpga_models.metrics.statistics import bootstrap_ci95

KINDS = ("portrait", "half_body", "full_body", "group_2")
SHEET_ROWS = 12


@dataclass(frozen=True, kw_only=True)
class SwapTop1:
    """Swapped faces that retrieve their new person; `real` unswapped ones their own; `share` the first over it."""

    swapped: float
    real: float
    floor: float
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Mean cosines: to the new person before and after, to the old one after; `ceiling` is real faces to their own."""

    before: float
    after: float
    ceiling: float
    old_after: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SwapReport:
    """Every figure of `evaluate swap`; the field names are the keys of its JSON.

    `landmark_error_real` is what the detector alone gets wrong on the pictures before.
    """

    top1: SwapTop1
    by_bin: dict[str, SwapTop1]
    likeness: Likeness
    landmark_error: float
    landmark_error_real: float
    background: Background
    outcomes: Mapping[str, int]
    settings: DiirSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """All outcomes of one run; `new` (N,) is the gallery row of the new person of each face."""

    gallery: Gallery
    real: Outcome
    swapped: Outcome
    results: Sequence[DiirResult]
    new: NDArray[np.int64]


def run(bench: Bench, settings: DiirSettings) -> Found:
    """Render, swap every face and look."""
    gallery = bench.gallery()
    trials = mixed_trials(gallery, KINDS, bench.count, bench.seed, bench.side)
    strangers = [new_people(gallery, trial) for trial in trials]
    restorer, advance = bench.restorer(), bench.track("swapped", len(trials))
    results = []
    for index, (trial, rows) in enumerate(zip(trials, strangers, strict=True)):
        faces = np.array([face.kps5 for face in restorer.faces(trial.real.image)], np.float32).reshape(-1, 5, 2)
        mapping = {int(face): p for p, face in enumerate(match_places(trial.kps5, faces)) if face != ABSENT}
        new = [gallery.people[row] for row in rows]
        people = [Reference(embedding=person.face.embedding, crop=person.crop) for person in new]
        results.append(
            restorer.restore(trial.real.image, people, settings=settings, mapping=mapping, seed=bench.seed + index)
        )
        advance(1)
    return Found(
        gallery=gallery,
        real=observe_real(bench.instruments, trials),
        swapped=observe(bench.instruments, trials, images(results)),
        results=results,
        new=np.concatenate(strangers),
    )


def new_people(gallery: Gallery, trial: Trial) -> NDArray[np.int64]:
    """Gallery rows (K,) of the people that take the places of a trial's people."""
    return (np.array(gallery.rows(trial)) + len(gallery.people) // 2) % len(gallery.people)


def report(found: Found, settings: DiirSettings) -> SwapReport:
    """Turn outcomes into figures."""
    old = np.array([row for trial in found.real.trials for row in found.gallery.rows(trial)])
    swapped, real = (np.concatenate([f.judged for f in o.faces]) for o in (found.swapped, found.real))
    references = found.gallery.judged
    after = similarities(swapped, references[found.new])

    def retrieved(chosen: NDArray[np.bool_]) -> SwapTop1:
        part: Top1 = top1(swapped[chosen], real[chosen], references, found.new[chosen], old[chosen])
        return SwapTop1(swapped=part.generated, real=part.real, floor=part.floor, share=part.share, ci95=part.ci95)

    return SwapReport(
        top1=retrieved(np.ones(len(old), bool)),
        by_bin={name: retrieved(chosen) for name, chosen in size_bins(face_sizes(found.real.trials)).items()},
        likeness=Likeness(
            before=float(similarities(real, references[found.new]).mean()),
            after=float(after.mean()),
            ceiling=float(similarities(real, references[old]).mean()),
            old_after=float(similarities(swapped, references[old]).mean()),
            ci95=bootstrap_ci95(after, picture_of_each_face(found.real.trials)),
        ),
        landmark_error=mean_error(found.swapped),
        landmark_error_real=mean_error(found.real),
        background=backgrounds(found.real.pictures, found.results),
        outcomes=outcome_counts(found.results),
        settings=settings,
    )


def picture_sheet(found: Found) -> Image:
    """Lay out some trials: the picture, swapped, where anything was changed, the new people's references."""
    step = max(1, len(found.results) // SHEET_ROWS)
    first = np.concatenate([[0], np.cumsum([len(trial.references) for trial in found.real.trials])])
    rows = []
    for index in range(0, len(found.results), step):
        people = found.new[first[index] : first[index + 1]]
        pictures = [found.real.pictures[index], found.swapped.pictures[index], mask_picture(found.results[index])]
        rows.append([*pictures, *(found.gallery.people[row].picture for row in people)])
    return sheet(rows)


def measure(bench: Bench, *, settings: DiirSettings = SWAP) -> tuple[SwapReport, Image]:
    """Run and report, with the picture sheet."""
    found = run(bench, settings)
    return report(found, settings), picture_sheet(found)


def render_table(figures: SwapReport) -> str:
    """Return the report as lines for a person to read."""
    parts = {"all faces": figures.top1} | {f"{name} px": part for name, part in figures.by_bin.items()}
    lines = [
        f"{name}: new person first {part.swapped:.3f}, real {part.real:.3f}, share {part.share:.2f} "
        f"[{part.ci95[0]:.2f}, {part.ci95[1]:.2f}]"
        for name, part in parts.items()
    ]
    like = figures.likeness
    lines.append(
        f"likeness to the new person {like.before:.3f} -> {like.after:.3f} of {like.ceiling:.3f}, "
        f"to the old one after {like.old_after:.3f}"
    )
    lines.append(f"landmark error {figures.landmark_error:.3f}, real {figures.landmark_error_real:.3f}")
    lines.append(f"outside the masks: {figures.background.changed_pixels} pixels changed")
    lines.append(", ".join(f"{name} {number}" for name, number in figures.outcomes.items()))
    return "\n".join(lines) + "\n"
