"""Are people recognisable, legible, sharp, and in groups in their own places? Generated portraits beside real renders.

Of `count` single portraits each framing has a third; each group size has a quarter of `count` scenes, generated with
and without masks. All figures but those under `finished` are of pictures as MMF draws them, before DIIR. What each
means is said where it is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from fpga_models.faces import align
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.generation import finish
from fpga_models.lab.measures.held_out import draw_trials
from fpga_models.lab.measures.legibility import LEGIBLE, Legibility, legibility
from fpga_models.lab.measures.sharpness import Sharpness, sharpness
from fpga_models.lab.measures.sheet import Image, sheet
from fpga_models.lab.measures.traits import TRAITS, Labels, TraitReader, labels
from fpga_models.lab.measures.trials import (
    GROUP_KINDS,
    Gallery,
    Outcome,
    face_sizes,
    observe,
    observe_generated,
    observe_real,
    single_trials,
    through_autoencoder,
)
from fpga_models.metrics.assignment import Assignment, Leakage, PlaceScores, Position, assignment, leakage, score_places
from fpga_models.metrics.contrasts import Contrast, contrast
from fpga_models.metrics.identity import FaceSim, Top1, face_sim, top1
from fpga_models.metrics.placed_faces import position
from fpga_models.metrics.restoration import size_bins

GROUP_SHARE = 4
SHEET_SINGLES, SHEET_COLUMNS, SHEET_GROUPS = 18, 3, 6


@dataclass(frozen=True, kw_only=True)
class GroupAssignment:
    """With and without masks, what real renders of the same scenes reach, and the accuracy lost without masks."""

    masked: Assignment
    unmasked: Assignment
    real: Assignment
    masks: Contrast


@dataclass(frozen=True, kw_only=True)
class PositionReport:
    """Places met with masks, singles and groups together, and the same of real renders (the detector's own error)."""

    hit_rate: float
    landmark_error: float
    real: Position


@dataclass(frozen=True, kw_only=True)
class SharpnessReport:
    """Over all single portraits; `autoencoder` is what real renders keep on their way through it, the ceiling."""

    face: float
    eyes: float
    ci95: tuple[float, float]
    autoencoder: Sharpness
    by_size: dict[str, Sharpness]


@dataclass(frozen=True, kw_only=True)
class FinishedReport:
    """The same pictures with masks after DIIR drew their small faces again, as the product delivers them."""

    face_sim: FaceSim
    top1: Top1
    legibility: Legibility | None
    sharpness: Sharpness
    assignment: dict[str, Assignment]
    position: Position


@dataclass(frozen=True, kw_only=True)
class IdentityReport:
    """Every figure of `evaluate identity`; the field names are the keys of its JSON.

    `by_size` is the face similarity by the longer side of the face's box in px; `legibility` is None where the preset
    has no trait classifier or no face is large enough.
    """

    face_sim: FaceSim
    by_size: dict[str, FaceSim]
    detection_rate: float
    top1: Top1
    legibility: Legibility | None
    sharpness: SharpnessReport
    assignment: dict[str, GroupAssignment]
    leakage: dict[str, Leakage]
    position: PositionReport
    finished: FinishedReport


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """One group size: generated with and without masks, with masks and finished by DIIR, and real."""

    masked: Outcome
    unmasked: Outcome
    finished: Outcome
    real: Outcome


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """All outcomes of one run."""

    gallery: Gallery
    singles: Outcome
    finished: Outcome
    real: Outcome
    decoded: list[Image]
    groups: dict[str, Group]


def run(bench: Bench) -> Found:
    """Render, generate and look at everything that the report needs."""
    per_group = max(bench.count // GROUP_SHARE, 1)
    gallery = bench.gallery()
    portraits = bench.track("portraits", bench.count)
    both = bench.track("groups", 2 * per_group * len(GROUP_KINDS))
    small_faces = bench.track("small faces", bench.count + per_group * len(GROUP_KINDS))
    tools, pipeline, seed = bench.instruments, bench.pipeline, bench.seed
    restorer = bench.restorer()

    def finished(drawn: Outcome) -> Outcome:
        return observe(
            tools, drawn.trials, finish(restorer, drawn.trials, drawn.pictures, seed=seed, advance=small_faces)
        )

    trials = single_trials(gallery, bench.count, seed, bench.side)
    singles = observe_generated(tools, pipeline, trials, seed=seed, masked=True, advance=portraits)
    groups = {}
    for kind in GROUP_KINDS:
        scenes = draw_trials(gallery.people, kind, per_group, seed, bench.side)
        masked, unmasked = (
            observe_generated(tools, pipeline, scenes, seed=seed, masked=masks, advance=both) for masks in (True, False)
        )
        groups[kind[-1]] = Group(
            masked=masked, unmasked=unmasked, finished=finished(masked), real=observe_real(tools, scenes)
        )
    return Found(
        gallery=gallery,
        singles=singles,
        finished=finished(singles),
        real=observe_real(tools, trials),
        decoded=through_autoencoder(pipeline, [trial.real.image for trial in trials]),
        groups=groups,
    )


def report(found: Found, reader: TraitReader | None) -> IdentityReport:
    """Turn outcomes into figures."""
    rows = np.array([found.gallery.rows(trial)[0] for trial in found.singles.trials])
    generated, real = (np.concatenate([f.judged for f in o.faces]) for o in (found.singles, found.real))
    references = found.gallery.judged[rows]
    similarity = face_sim(generated, real, references)
    scores = {
        people: [place_scores(found.gallery, o) for o in (group.masked, group.unmasked, group.real)]
        for people, group in found.groups.items()
    }
    return IdentityReport(
        face_sim=similarity,
        by_size={
            name: face_sim(generated[chosen], real[chosen], references[chosen])
            for name, chosen in size_bins(face_sizes(found.singles.trials)).items()
        },
        detection_rate=float(np.mean([faces.present[0] for faces in found.singles.faces])),
        top1=top1(generated, real, found.gallery.judged, rows),
        legibility=_legibility(found, found.singles, reader),
        sharpness=_sharpness(found),
        assignment={
            people: GroupAssignment(
                masked=assignment(yes),
                unmasked=assignment(no),
                real=assignment(true),
                masks=contrast(yes.right.astype(np.float32), no.right.astype(np.float32), yes.picture),
            )
            for people, (yes, no, true) in scores.items()
        },
        leakage={people: leakage(yes, similarity.floor) for people, (yes, _, _) in scores.items()},
        position=_position(found),
        finished=_finished(found, rows, reader),
    )


def place_scores(gallery: Gallery, outcome: Outcome) -> PlaceScores:
    """Score every requested place of a set of pictures by the judge."""
    references = [gallery.judged[gallery.rows(trial)] for trial in outcome.trials]
    return score_places([faces.judged for faces in outcome.faces], references)


def read_traits(reader: TraitReader, outcome: Outcome) -> Labels:
    """Read the traits (N, T) of the first face of each picture, -1 where it was not found."""
    seen = [row for row, faces in enumerate(outcome.faces) if faces.present[0]]
    answers = np.full((len(outcome.faces), len(TRAITS)), -1, np.int64)
    answers[seen] = reader.read([align(outcome.pictures[row], outcome.faces[row].kps5[0]) for row in seen])
    return answers


def _legibility(found: Found, made_of: Outcome, reader: TraitReader | None) -> Legibility | None:
    large = face_sizes(made_of.trials) >= LEGIBLE
    if reader is None or not large.any():
        return None
    truth = labels([trial.references[0].identity for trial in made_of.trials])
    made, real = (read_traits(reader, outcome) for outcome in (made_of, found.real))
    return legibility(made[large], real[large], truth[large])


def _sharpness(found: Found) -> SharpnessReport:
    people = [trial.real.people[0] for trial in found.singles.trials]
    whole = sharpness(found.singles.pictures, found.real.pictures, people)
    by_size = {}
    for name, chosen in size_bins(face_sizes(found.singles.trials)).items():
        rows = np.flatnonzero(chosen).tolist()
        made, real = ([outcome.pictures[row] for row in rows] for outcome in (found.singles, found.real))
        by_size[name] = sharpness(made, real, [people[row] for row in rows])
    return SharpnessReport(
        face=whole.face,
        eyes=whole.eyes,
        ci95=whole.ci95,
        autoencoder=sharpness(found.decoded, found.real.pictures, people),
        by_size=by_size,
    )


def _position(found: Found) -> PositionReport:
    groups = found.groups.values()
    reached = _places([found.singles, *(group.masked for group in groups)])
    possible = _places([found.real, *(group.real for group in groups)])
    return PositionReport(hit_rate=reached.hit_rate, landmark_error=reached.landmark_error, real=possible)


def _places(outcomes: Sequence[Outcome]) -> Position:
    return position([faces for outcome in outcomes for faces in outcome.faces])


def _finished(found: Found, rows: NDArray[np.int64], reader: TraitReader | None) -> FinishedReport:
    made, real = (np.concatenate([f.judged for f in o.faces]) for o in (found.finished, found.real))
    return FinishedReport(
        face_sim=face_sim(made, real, found.gallery.judged[rows]),
        top1=top1(made, real, found.gallery.judged, rows),
        legibility=_legibility(found, found.finished, reader),
        sharpness=sharpness(
            found.finished.pictures, found.real.pictures, [trial.real.people[0] for trial in found.finished.trials]
        ),
        assignment={
            people: assignment(place_scores(found.gallery, group.finished)) for people, group in found.groups.items()
        },
        position=_places([found.finished, *(group.finished for group in found.groups.values())]),
    )


def picture_sheet(found: Found) -> Image:
    """Lay out some trials: references, real render, generated; of groups also finished, and generated without masks."""
    step = max(len(found.singles.trials) // SHEET_SINGLES, 1)
    singles = [_strip((found.singles,), index) for index in range(0, len(found.singles.trials), step)]
    rows = [
        list(chain.from_iterable(singles[start : start + SHEET_COLUMNS]))
        for start in range(0, len(singles), SHEET_COLUMNS)
    ]
    for group in found.groups.values():
        shown = range(min(SHEET_GROUPS, len(group.masked.trials)))
        rows += [_strip((group.masked, group.finished, group.unmasked), index) for index in shown]
    return sheet(rows)


def _strip(outcomes: tuple[Outcome, ...], index: int) -> list[Image]:
    trial = outcomes[0].trials[index]
    references = [person.picture for person in trial.references]
    return [*references, trial.real.image, *(outcome.pictures[index] for outcome in outcomes)]


def measure(bench: Bench) -> tuple[IdentityReport, Image]:
    """Run and report, with the picture sheet."""
    found = run(bench)
    return report(found, bench.instruments.reader), picture_sheet(found)


def render_table(figures: IdentityReport) -> str:
    """Return the report as lines for a person to read."""
    sim, retrieval, sharp = figures.face_sim, figures.top1, figures.sharpness
    low, high = sim.ci95
    lines = [
        f"face similarity {sim.mean:.3f} [{low:.3f}, {high:.3f}], floor {sim.floor:.3f}, ceiling {sim.ceiling:.3f}",
        f"share of the way {sim.share:.3f}, faces found {figures.detection_rate:.3f}",
        f"top-1 of {round(1 / retrieval.floor)}: generated {retrieval.generated:.3f}, real {retrieval.real:.3f}",
        f"sharpness of faces {sharp.face:.2f}, of eyes {sharp.eyes:.2f}; autoencoder alone "
        f"{sharp.autoencoder.face:.2f}, {sharp.autoencoder.eyes:.2f}",
        f"places met {figures.position.hit_rate:.3f}, landmark error {figures.position.landmark_error:.3f}",
    ]
    if figures.legibility:
        read = figures.legibility
        lines.append(f"legibility {read.share:.2f} of real, glasses {read.glasses:.2f}, {read.faces} faces read")
    done = figures.finished
    lines.append(
        f"after DIIR: face similarity {done.face_sim.mean:.3f}, share of the way {done.face_sim.share:.3f}, top-1 "
        f"{done.top1.generated:.3f}, places met {done.position.hit_rate:.3f}, sharpness of faces "
        f"{done.sharpness.face:.2f}" + (f", legibility {done.legibility.share:.2f}" if done.legibility else "")
    )
    for people, group in figures.assignment.items():
        parts = {"masked": group.masked, "unmasked": group.unmasked, "real": group.real}
        for name, part in (parts | {"after DIIR": done.assignment[people]}).items():
            lines.append(
                f"{people} people {name}: accuracy {part.accuracy:.3f}, own {part.own:.3f}, other {part.other:.3f}"
            )
    return "\n".join(lines) + "\n"
