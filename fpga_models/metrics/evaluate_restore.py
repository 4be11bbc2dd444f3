"""Measures DIIR on small faces of held-out people, with an encoder that training never used.

    python -m fpga_models.metrics.evaluate_restore --preset-dir DIR --seed 1 --count 24 --json --sheet sheet.png
    ... --source generated          damaged by the generator itself instead of by the autoencoder alone
    ... --set lock=false            any knob of DiirSettings, for ablations

Figures go to stdout, progress to stderr. Scenes are full-body and group pictures in equal parts; places are known.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from fpga_models.diir import RESTORE, DiirResult, DiirSettings, Reference, Restorer
from fpga_models.diir.edit import encode
from fpga_models.metrics.generation import generate
from fpga_models.metrics.held_out import Trial, draw_trials
from fpga_models.metrics.identity import similarities
from fpga_models.metrics.restoration import (
    Background,
    Floats,
    WonBack,
    background,
    border_gradient_ratio,
    by_size,
    small,
    won_back,
)
from fpga_models.metrics.sheet import Image, sheet, write_png
from fpga_models.metrics.trials import Gallery, Instruments, Outcome, draw_gallery, observe, observe_real
from fpga_models.pipeline import PortraitPipeline

KINDS = ("full_body", "group_2", "group_3", "group_4")
PEOPLE_PER_SCENE = 4
SHEET_ROWS = 12
Source = Literal["vae", "generated"]


@dataclass(frozen=True, kw_only=True)
class WonBackReport:
    """Share won back over all faces, over those of 16 to 28 px, and by face size."""

    all: WonBack
    small: WonBack
    by_bin: dict[str, WonBack]


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """Every figure of `evaluate_restore`; the field names are the keys of its JSON.

    `before`, `after` and `ceiling` are mean cosines over all faces; `outcomes` counts what DIIR decided per face.
    `background` is over all pictures together: pixels summed, the largest change, mean PSNR and SSIM.
    """

    won_back: WonBackReport
    before: float
    after: float
    ceiling: float
    background: Background
    border_gradient_ratio: float
    outcomes: dict[str, int]
    landmark_error: float
    source: Source
    settings: DiirSettings
    seed: int
    count: int
    preset: str
    model_sha256: str
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Restored:
    """All outcomes of one run, trial by trial."""

    gallery: Gallery
    real: Outcome
    damaged: Outcome
    repaired: Outcome
    results: Sequence[DiirResult]


def small_face_trials(gallery: Gallery, count: int, seed: int, side: int) -> list[Trial]:
    """Draw `count` scenes, every kind in equal parts."""
    shares = [count // len(KINDS) + (index < count % len(KINDS)) for index in range(len(KINDS))]
    return [
        trial
        for kind, share in zip(KINDS, shares, strict=True)
        for trial in draw_trials(gallery.people, kind, share, seed, side)
    ]


@torch.no_grad()
def through_autoencoder(pipeline: PortraitPipeline, pictures: Sequence[Image]) -> list[Image]:
    """Encode and decode pictures one by one: what the autoencoder alone does to small faces."""
    return [np.asarray(pipeline.decode(encode(pipeline, [picture]))[0]) for picture in pictures]


def references_of(trial: Trial) -> list[Reference]:
    """The people of a trial at their requested places, as the product knows them."""
    return [
        Reference(embedding=person.face.embedding, kps5=points)
        for person, points in zip(trial.references, trial.kps5, strict=True)
    ]


def run_trials(
    instruments: Instruments,
    pipeline: PortraitPipeline,
    *,
    source: Source,
    settings: DiirSettings,
    seed: int,
    count: int,
    progress: Progress,
) -> Restored:
    """Render, damage, restore and look at everything that the report needs."""
    references = progress.add_task("references", total=PEOPLE_PER_SCENE * count)
    gallery = draw_gallery(instruments, seed, PEOPLE_PER_SCENE * count, partial(progress.advance, references))
    trials = small_face_trials(gallery, count, seed, min(pipeline.preset.sizes[0]))
    damaging = progress.add_task("damaged", total=count)
    if source == "vae":
        damaged = through_autoencoder(pipeline, [trial.real.image for trial in trials])
        progress.advance(damaging, count)
    else:
        damaged = generate(pipeline, trials, seed=seed, advance=partial(progress.advance, damaging))
    restorer = Restorer(pipeline, instruments.pack)
    restoring = progress.add_task("restored", total=count)
    results = []
    for index, (trial, picture) in enumerate(zip(trials, damaged, strict=True)):
        results.append(restorer.restore(picture, references_of(trial), settings=settings, seed=seed + index))
        progress.advance(restoring)
    repaired = [cast("Image", result.image) for result in results]
    return Restored(
        gallery=gallery,
        real=observe_real(instruments, trials),
        damaged=observe(instruments, trials, damaged),
        repaired=observe(instruments, trials, repaired),
        results=results,
    )


def report(
    found: Restored,
    *,
    source: Source,
    settings: DiirSettings,
    seed: int,
    count: int,
    preset: str,
    model_sha256: str,
    seconds: float,
) -> RestoreReport:
    """Turn outcomes into figures."""
    before, after, ceiling = (_cosines(found.gallery, o) for o in (found.damaged, found.repaired, found.real))
    people = [person for trial in found.real.trials for person in trial.real.people]
    sizes = np.array([max(p.box[2] - p.box[0], p.box[3] - p.box[1]) for p in people])
    little = small(sizes)
    pairs = list(zip(found.damaged.pictures, found.results, strict=True))
    errors = np.concatenate([faces.errors for faces in found.repaired.faces])
    return RestoreReport(
        won_back=WonBackReport(
            all=won_back(before, after, ceiling),
            small=won_back(before[little], after[little], ceiling[little]),
            by_bin=by_size(sizes, before, after, ceiling),
        ),
        before=float(before.mean()),
        after=float(after.mean()),
        ceiling=float(ceiling.mean()),
        background=_together([background(picture, result.image, result.mask) for picture, result in pairs]),
        border_gradient_ratio=float(np.mean([border_gradient_ratio(p, r.image, r.mask) for p, r in pairs])),
        outcomes=dict(Counter(face.outcome for result in found.results for face in result.faces)),
        landmark_error=float(np.nanmean(errors)) if np.isfinite(errors).any() else 1.0,
        source=source,
        settings=settings,
        seed=seed,
        count=count,
        preset=preset,
        model_sha256=model_sha256,
        seconds=seconds,
    )


def _cosines(gallery: Gallery, outcome: Outcome) -> Floats:
    """Of every requested face to its own reference, by the judge; 0 where no face stands."""
    rows = [row for trial in outcome.trials for row in gallery.rows(trial)]
    return similarities(np.concatenate([faces.judged for faces in outcome.faces]), gallery.judged[rows])


def _together(pictures: Sequence[Background]) -> Background:
    ratios = [picture.psnr for picture in pictures if picture.psnr is not None]
    return Background(
        changed_pixels=sum(picture.changed_pixels for picture in pictures),
        max_change=max(picture.max_change for picture in pictures),
        psnr=float(np.mean(ratios)) if ratios else None,
        ssim=float(np.mean([picture.ssim for picture in pictures])),
    )


def picture_sheet(found: Restored) -> Image:
    """Lay out some trials: references, real render, damaged, restored, and where anything was changed."""
    step = max(1, len(found.results) // SHEET_ROWS)
    rows = []
    for index in range(0, len(found.results), step):
        trial, result = found.real.trials[index], found.results[index]
        mask = np.repeat(np.round(result.mask * 255).astype(np.uint8)[..., None], 3, axis=2)
        pictures = [trial.real.image, found.damaged.pictures[index], found.repaired.pictures[index], mask]
        rows.append([*pictures, *(person.picture for person in trial.references)])
    return sheet(rows)


def changed_settings(changes: Sequence[str]) -> DiirSettings:
    """RESTORE with `name=value` changes, values as in JSON; raises ValueError for anything else."""
    values: dict[str, Any] = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in DiirSettings.__dataclass_fields__:
            raise ValueError(f"{name} is no knob; one of {', '.join(DiirSettings.__dataclass_fields__)} is wanted")
        values[name] = json.loads(value)
    return replace(RESTORE, **values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.metrics.evaluate_restore", description=__doc__)
    parser.add_argument("--preset-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--source", choices=["vae", "generated"], default="vae")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="changes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        settings = changed_settings(options.changes)
    except ValueError as error:
        parser.error(str(error))
    began = time.monotonic()
    with Progress(console=Console(stderr=True)) as progress:
        instruments = Instruments.load(options.preset_dir, threads=options.threads)
        pipeline = PortraitPipeline.from_pretrained(options.preset_dir, device=options.device)
        run: dict[str, Any] = {"source": options.source, "settings": settings}
        run |= {"seed": options.seed, "count": options.count}
        found = run_trials(instruments, pipeline, progress=progress, **run)
    run |= {"preset": pipeline.preset.name, "model_sha256": pipeline.model_sha256}
    figures = report(found, seconds=round(time.monotonic() - began, 1), **run)
    if options.sheet:
        write_png(str(options.sheet), picture_sheet(found))
    sys.stdout.write(json.dumps(asdict(figures), indent=2) + "\n" if options.json else render_table(figures))
    return 0


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


if __name__ == "__main__":
    raise SystemExit(main())
