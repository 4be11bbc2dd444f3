"""What does each part contribute? The same held-out scenes with and without it, face by face.

Masks: groups of two, three and four drawn with soft masks (as shipped), hard ones, and none. Tokens: single portraits
with global and local identity tokens and with one kind. DIIR: small faces edited with every knob as shipped and with
one changed, the gate off so that each part is seen alone; the gate itself last. Training: other preset folders
(`against`) draw the same scenes as this one. Each has `count` scenes, its kinds of picture in equal parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpga_models.core.control import region_mask
from fpga_models.core.pipeline import PortraitPipeline, PortraitRequest
from fpga_models.diir import RESTORE, DiirSettings
from fpga_models.lab.evaluations.control import with_control
from fpga_models.lab.evaluations.identity import place_scores
from fpga_models.lab.evaluations.restore import Source
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.generation import generate
from fpga_models.lab.measures.held_out import Trial
from fpga_models.lab.measures.restorations import (
    SMALL_KINDS,
    images,
    mixed_trials,
    own_cosines,
    picture_of_each_face,
    restore_all,
    ungated,
)
from fpga_models.lab.measures.sheet import Image, sheet
from fpga_models.lab.measures.trials import (
    GROUP_KINDS,
    SINGLE_KINDS,
    Gallery,
    Outcome,
    observe,
    observe_generated,
    through_autoencoder,
)
from fpga_models.metrics.contrasts import Contrast, contrast
from fpga_models.metrics.restoration import border_gradient_ratio

Values = dict[str, NDArray[np.floating[Any]]]
Contrasts = dict[str, Contrast]
LOWER = ("landmark_error", "landmark_error_skeleton", "seam")
"""Measures of which less is better; of all others more is."""
DIIR_PARTS: dict[str, Mapping[str, Any]] = {
    "inversion": {"inversion": False},
    "background lock": {"lock": False},
    "landmarks": {"landmarks": False},
    "fresh noise": {"gamma": 0.0},
    "inversion without identity": {"own_identity": True},
}
"""Knobs that leave one part of DIIR out; "inversion without identity" inverts with the current face's own instead."""
TOKENS: dict[str, Mapping[str, Any]] = {"local tokens": {"local_scale": 0.0}, "global tokens": {"id_scale": 0.0}}
"""Left out both of single portraits and of DIIR where the adapter has both: global only, then local only."""
SHEET_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class AblationReport:
    """Every contrast of `evaluate ablate`: part by part, measure by measure; the field names are the keys of its JSON.

    `masks` is over all groups and by their size, `against` by preset folder, `tokens` empty without local tokens.
    """

    masks: dict[str, Contrasts]
    tokens: dict[str, Contrasts]
    diir: dict[str, Contrasts]
    against: dict[str, Contrasts]
    source: Source


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One way of doing it: its pictures and a number per face for every measure."""

    pictures: Sequence[Image]
    values: Values


def compare(kept: Variant, left_out: Variant, pictures: NDArray[np.int64]) -> Contrasts:
    """Contrast every measure of two variants, faces in `pictures` (N,)."""
    return {
        name: contrast(values, left_out.values[name], pictures, better="lower" if name in LOWER else "higher")
        for name, values in kept.values.items()
    }


def generated_values(gallery: Gallery, outcome: Outcome) -> Values:
    """Assignment, likeness and landmark error of each face of generated pictures."""
    scores = place_scores(gallery, outcome)
    errors = np.concatenate([faces.errors for faces in outcome.faces])
    return {"accuracy": scores.right.astype(np.float32), "own": scores.own, "landmark_error": errors}


def hard_masks(request: PortraitRequest) -> PortraitRequest:
    """The same request with masks of 0 and 1, cut where the soft ones are a half."""
    people = []
    for person in request.people:
        soft = region_mask(person.marks().face_points(), width=request.width, height=request.height)
        people.append(replace(person, mask=(soft >= 0.5).astype(np.float32)))
    return replace(request, people=tuple(people))


def ablate_masks(bench: Bench, gallery: Gallery, trials: Sequence[Trial]) -> tuple[dict[str, Variant], Variant]:
    """Draw groups without masks and with hard ones, and as shipped."""
    advance = bench.track("masks", 3 * len(trials))
    look = partial(observe_generated, bench.instruments, bench.pipeline, trials, seed=bench.seed, advance=advance)
    soft, hard, none = look(), look(adapt=hard_masks), look(masked=False)
    kept, *others = (Variant(pictures=o.pictures, values=generated_values(gallery, o)) for o in (soft, hard, none))
    return dict(zip(("soft edges of masks", "masks"), others, strict=True)), kept


def ablate_tokens(bench: Bench, gallery: Gallery, trials: Sequence[Trial]) -> dict[str, Contrasts]:
    """Draw single portraits with both kinds of identity tokens, and with one kind."""
    if bench.pipeline.denoiser.id_adapter.local is None:
        return {}
    advance = bench.track("tokens", (1 + len(TOKENS)) * len(trials))
    look = partial(observe_generated, bench.instruments, bench.pipeline, trials, seed=bench.seed, advance=advance)

    def variant(scales: Mapping[str, Any]) -> Variant:
        outcome = look(adapt=lambda request: replace(request, **scales))
        return Variant(pictures=outcome.pictures, values=generated_values(gallery, outcome))

    both, pictures = variant({}), picture_of_each_face(trials)
    return {name: compare(both, variant(scales), pictures) for name, scales in TOKENS.items()}


def ablate_diir(
    bench: Bench, gallery: Gallery, trials: Sequence[Trial], damaged: Sequence[Image]
) -> tuple[dict[str, Variant], Variant, Variant]:
    """Edit small faces with one knob changed at a time, and as shipped, all without the gate; last with it."""
    knobs = DIIR_PARTS | (TOKENS if bench.pipeline.denoiser.id_adapter.local is not None else {})
    advance = bench.track("DIIR", (len(knobs) + 2) * len(trials))
    restorer = bench.restorer()

    def edit(settings: DiirSettings) -> Variant:
        results = restore_all(restorer, trials, damaged, settings, seed=bench.seed, advance=advance)
        outcome = observe(bench.instruments, trials, images(results))
        seams = [
            abs(np.log(max(border_gradient_ratio(picture, result.image, result.mask), 1e-6)))
            for picture, result in zip(damaged, results, strict=True)
        ]
        values: Values = {
            "own": own_cosines(gallery, outcome),
            "landmark_error": np.concatenate([faces.errors for faces in outcome.faces]),
            "seam": np.array(seams)[picture_of_each_face(trials)],
        }
        return Variant(pictures=outcome.pictures, values=values)

    plain = ungated(RESTORE)
    changed = {name: edit(replace(plain, **change)) for name, change in knobs.items()}
    return changed, edit(plain), edit(RESTORE)


def preset_values(bench: Bench, gallery: Gallery, singles: Sequence[Trial], groups: Sequence[Trial]) -> Variant:
    """One number per face for what training may have changed: single portraits, then groups, by two control modes."""
    trials = [*singles, *groups]
    advance = bench.track("preset", 2 * len(trials))
    look = partial(observe_generated, bench.instruments, bench.pipeline, trials, seed=bench.seed, advance=advance)
    by_landmark, by_skeleton = (look(adapt=partial(with_control, mode=mode)) for mode in ("landmark", "skeleton"))
    values = generated_values(gallery, by_landmark)
    alone = np.concatenate([np.full(len(trial.references), len(trial.references) == 1) for trial in trials])
    own = values.pop("own")
    values["accuracy"] = np.where(alone, np.nan, values["accuracy"])
    values["own_alone"], values["own_in_groups"] = np.where(alone, own, np.nan), np.where(alone, np.nan, own)
    values["landmark_error_skeleton"] = np.concatenate([faces.errors for faces in by_skeleton.faces])
    return Variant(pictures=by_landmark.pictures, values=values)


def ablate_training(
    bench: Bench, gallery: Gallery, against: Mapping[str, Path], singles: Sequence[Trial], groups: Sequence[Trial]
) -> dict[str, Contrasts]:
    """Draw the same scenes with this preset and with others, all measured by this one's instruments."""
    pictures = picture_of_each_face([*singles, *groups])
    this = preset_values(bench, gallery, singles, groups)
    found = {}
    for name, folder in against.items():
        pipeline = PortraitPipeline.from_pretrained(folder, device=str(bench.pipeline.device))
        other = preset_values(replace(bench, pipeline=pipeline), gallery, singles, groups)
        found[name] = compare(this, other, pictures)
    return found


def by_group_size(kept: Variant, others: Mapping[str, Variant], trials: Sequence[Trial]) -> dict[str, Contrasts]:
    """The contrasts over all groups, then those of each group size under a name of its own."""
    places = picture_of_each_face(trials)
    sizes = np.array([len(trial.references) for trial in trials])[places]

    def part(variant: Variant, size: int) -> Variant:
        return replace(variant, values={name: values[sizes == size] for name, values in variant.values.items()})

    whole = {name: compare(kept, other, places) for name, other in others.items()}
    return whole | {
        f"{name}, {size} people": compare(part(kept, size), part(other, size), places[sizes == size])
        for size in np.unique(sizes).tolist()
        for name, other in others.items()
    }


def measure(
    bench: Bench, *, source: Source = "vae", against: Mapping[str, Path] | None = None
) -> tuple[AblationReport, Image]:
    """Run every ablation, with one sheet: real render, as shipped, and each part left out."""
    gallery = bench.gallery(4 * bench.count)
    singles, groups, small = (
        mixed_trials(gallery, kinds, bench.count, bench.seed, bench.side)
        for kinds in (SINGLE_KINDS, GROUP_KINDS, SMALL_KINDS)
    )
    damaged = damage(bench, small, source)
    masks, soft = ablate_masks(bench, gallery, groups)
    parts, plain, gated = ablate_diir(bench, gallery, small, damaged)
    presets = ablate_training(bench, gallery, against, singles, groups) if against else {}
    faces = picture_of_each_face(small)
    found = AblationReport(
        masks=by_group_size(soft, masks, groups),
        tokens=ablate_tokens(bench, gallery, singles),
        diir={name: compare(plain, other, faces) for name, other in parts.items()}
        | {"gate": compare(gated, plain, faces)},
        against=presets,
        source=source,
    )
    drawn = [[trial.real.image for trial in groups], soft.pictures, *(other.pictures for other in masks.values())]
    edited = [[trial.real.image for trial in small], damaged, plain.pictures]
    edited += [other.pictures for other in (*parts.values(), gated)]
    return found, sheet([*_rows(drawn), *_rows(edited)])


def damage(bench: Bench, trials: Sequence[Trial], source: Source) -> list[Image]:
    """The scenes of trials through the autoencoder alone, or drawn by the generator."""
    if source == "vae":
        return through_autoencoder(bench.pipeline, [trial.real.image for trial in trials])
    return generate(bench.pipeline, trials, seed=bench.seed, advance=bench.track("damaged", len(trials)))


def _rows(columns: Sequence[Sequence[Image]]) -> list[list[Image]]:
    step = max(1, len(columns[0]) // SHEET_ROWS)
    return [[column[index] for column in columns] for index in range(0, len(columns[0]), step)]


def render_table(figures: AblationReport) -> str:
    """Return the report as lines for a person to read."""
    lines = []
    sections = {
        "without": figures.masks | figures.diir,
        "portraits without": figures.tokens,
        "instead of this preset": figures.against,
    }
    for title, parts in sections.items():
        for name, contrasts in parts.items():
            for measure_name, one in contrasts.items():
                low, high = one["ci95"]
                lines.append(
                    f"{title} {name}: {measure_name} {one['with']:.3f} -> {one['without']:.3f}, "
                    f"{one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]: {one['verdict']}"
                )
    return "\n".join(lines) + "\n"
