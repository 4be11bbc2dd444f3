"""Measures a preset on held-out people, with an encoder that training never used.

    python -m fpga_models.metrics.evaluate identity --preset-dir DIR --seed 7 --count 200 --json --sheet sheet.png

Figures go to stdout, progress to stderr. Of `count` single portraits each framing has a third; each group size has a
quarter of `count` scenes, generated with and without masks. What each figure means is
said where it is computed: identity.py, assignment.py, placed_faces.py.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fpga_models.metrics.assignment import Assignment, Position, assignment
from fpga_models.metrics.held_out import draw_trials
from fpga_models.metrics.identity import FaceSim, Top1, face_sim, top1
from fpga_models.metrics.placed_faces import position
from fpga_models.metrics.sheet import Image, sheet, write_png
from fpga_models.metrics.trials import (
    GALLERY,
    GROUP_KINDS,
    Gallery,
    Instruments,
    Outcome,
    draw_gallery,
    observe_generated,
    observe_real,
    single_trials,
)
from fpga_models.pipeline import PortraitPipeline

GROUP_SHARE = 4
SHEET_SINGLES, SHEET_COLUMNS, SHEET_GROUPS = 18, 3, 6


@dataclass(frozen=True, kw_only=True)
class GroupAssignment:
    masked: Assignment
    unmasked: Assignment


@dataclass(frozen=True, kw_only=True)
class IdentityReport:
    """Every figure of `evaluate identity`; the field names are the keys of its JSON."""

    face_sim: FaceSim
    detection_rate: float
    top1: Top1
    assignment: dict[str, GroupAssignment]
    position: Position
    seed: int
    count: int
    preset: str
    model_sha256: str
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """All outcomes of one run."""

    gallery: Gallery
    singles: Outcome
    singles_real: Outcome
    groups: dict[str, tuple[Outcome, Outcome]]


def run_trials(
    instruments: Instruments, pipeline: PortraitPipeline, *, seed: int, count: int, progress: Progress
) -> Evaluation:
    """Render, generate and look at everything that the report needs."""
    side, per_group = min(pipeline.preset.sizes[0]), max(count // GROUP_SHARE, 1)
    task = progress.add_task("references", total=GALLERY)
    gallery = draw_gallery(instruments, seed, GALLERY, partial(progress.advance, task))
    portraits = progress.add_task("portraits", total=count)
    both = progress.add_task("groups", total=2 * per_group * len(GROUP_KINDS))
    look = partial(observe_generated, instruments, pipeline, seed=seed)
    trials = single_trials(gallery, count, seed, side)
    groups = {}
    singles = look(trials, masked=True, advance=partial(progress.advance, portraits))
    for kind in GROUP_KINDS:
        scenes = draw_trials(gallery.people, kind, per_group, seed, side)
        masked, unmasked = (
            look(scenes, masked=masks, advance=partial(progress.advance, both)) for masks in (True, False)
        )
        groups[kind[-1]] = (masked, unmasked)
    return Evaluation(gallery=gallery, singles=singles, singles_real=observe_real(instruments, trials), groups=groups)


def report(
    found: Evaluation, *, seed: int, count: int, preset: str, model_sha256: str, seconds: float
) -> IdentityReport:
    """Turn outcomes into figures."""
    rows = np.array([found.gallery.rows(trial)[0] for trial in found.singles.trials])
    generated, real = (np.concatenate([f.judged for f in o.faces]) for o in (found.singles, found.singles_real))
    masked = [outcome for outcome, _ in found.groups.values()]
    everywhere = [faces for outcome in (found.singles, *masked) for faces in outcome.faces]
    return IdentityReport(
        face_sim=face_sim(generated, real, found.gallery.judged[rows]),
        detection_rate=float(np.mean([faces.present[0] for faces in found.singles.faces])),
        top1=top1(generated, real, found.gallery.judged, rows),
        assignment={
            people: GroupAssignment(masked=_assignment(found.gallery, yes), unmasked=_assignment(found.gallery, no))
            for people, (yes, no) in found.groups.items()
        },
        position=position(everywhere),
        seed=seed,
        count=count,
        preset=preset,
        model_sha256=model_sha256,
        seconds=seconds,
    )


def _assignment(gallery: Gallery, outcome: Outcome) -> Assignment:
    references = [gallery.judged[gallery.rows(trial)] for trial in outcome.trials]
    return assignment([faces.judged for faces in outcome.faces], references)


def picture_sheet(found: Evaluation) -> Image:
    """Lay out some trials: references, real render, generated, and for groups generated without masks."""
    step = max(len(found.singles.trials) // SHEET_SINGLES, 1)
    singles = [_strip((found.singles,), index) for index in range(0, len(found.singles.trials), step)]
    starts = range(0, len(singles), SHEET_COLUMNS)
    rows = [list(chain.from_iterable(singles[start : start + SHEET_COLUMNS])) for start in starts]
    for versions in found.groups.values():
        rows += [_strip(versions, index) for index in range(min(SHEET_GROUPS, len(versions[0].trials)))]
    return sheet(rows)


def _strip(versions: Sequence[Outcome], index: int) -> list[Image]:
    trial = versions[0].trials[index]
    references = [reference.picture for reference in trial.references]
    return [*references, trial.real.image, *(version.pictures[index] for version in versions)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.metrics.evaluate", description=__doc__)
    parser.add_argument("what", choices=["identity"])
    parser.add_argument("--preset-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        instruments = Instruments.load(options.preset_dir, threads=options.threads)
        pipeline = PortraitPipeline.from_pretrained(options.preset_dir, device=options.device)
        found = run_trials(instruments, pipeline, seed=options.seed, count=options.count, progress=progress)
    figures = report(
        found,
        seed=options.seed,
        count=options.count,
        preset=pipeline.preset.name,
        model_sha256=pipeline.model_sha256,
        seconds=round(time.monotonic() - began, 1),
    )
    if options.sheet:
        write_png(str(options.sheet), picture_sheet(found))
    sys.stdout.write(render_json(figures) if options.json else render_table(figures))
    return 0


def render_json(figures: IdentityReport) -> str:
    """Return the report as JSON."""
    return json.dumps(asdict(figures), indent=2) + "\n"


def render_table(figures: IdentityReport) -> str:
    """Return the report as lines for a person to read."""
    sim, retrieval = figures.face_sim, figures.top1
    low, high = sim.ci95
    lines = [
        f"face similarity {sim.mean:.3f} [{low:.3f}, {high:.3f}], floor {sim.floor:.3f}, ceiling {sim.ceiling:.3f}",
        f"share of the way {sim.share:.3f}, faces found {figures.detection_rate:.3f}",
        f"top-1 of {GALLERY}: generated {retrieval.generated:.3f}, real {retrieval.real:.3f}",
        f"places met {figures.position.hit_rate:.3f}, landmark error {figures.position.landmark_error:.3f}",
    ]
    for people, group in figures.assignment.items():
        for name, found in (("masked", group.masked), ("unmasked", group.unmasked)):
            lines.append(
                f"{people} people {name}: accuracy {found.accuracy:.3f}, own {found.own:.3f}, other {found.other:.3f}"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
