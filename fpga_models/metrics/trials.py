"""One evaluation: held-out trials of every kind, generated and real faces at their places, embedded by the judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fpga_models.faces import FacePack, align
from fpga_models.metrics.evaluator import EvaluationEncoder
from fpga_models.metrics.generation import generate
from fpga_models.metrics.held_out import Reference, Trial, draw_people, draw_trials, reference
from fpga_models.metrics.placed_faces import PlacedFaces, place_faces
from fpga_models.pipeline import PortraitPipeline

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Advance = Callable[[int], None]
GALLERY = 500
SINGLE_KINDS = ("portrait", "half_body", "full_body")
GROUP_KINDS = ("group_2", "group_3", "group_4")


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What measures: the product's own face pack, which finds faces, and the judge, which compares them."""

    pack: FacePack
    judge: EvaluationEncoder

    @classmethod
    def load(cls, preset_dir: Path, *, threads: int = 1) -> "Instruments":
        """Load `faces/` and `eval/` of a preset folder."""
        return cls(
            pack=FacePack.load(preset_dir / "faces", threads=threads),
            judge=EvaluationEncoder.load(preset_dir / "eval", threads=threads),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Pictures of one set of trials and the faces found at the requested places."""

    trials: Sequence[Trial]
    pictures: Sequence[Image]
    faces: Sequence[PlacedFaces]


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """References of held-out people and the judge's embeddings of them, row by row (G, D)."""

    people: Sequence[Reference]
    judged: Floats

    def rows(self, trial: Trial) -> list[int]:
        """Return the rows of a trial's people."""
        index = {person.identity: row for row, person in enumerate(self.people)}
        return [index[person.identity] for person in trial.references]


def draw_gallery(instruments: Instruments, seed: int, size: int, advance: Advance) -> Gallery:
    """Render and embed one reference of each of `size` held-out people."""
    people = []
    for identity in draw_people(seed, size):
        people.append(reference(instruments.pack, identity, seed))
        advance(1)
    crops = [align(person.picture, person.face.kps5) for person in people]
    return Gallery(people=people, judged=instruments.judge.embed_crops(crops))


def single_trials(gallery: Gallery, count: int, seed: int, size: int) -> list[Trial]:
    """Draw `count` scenes of one person, the three framings in equal parts."""
    shares = [count // 3 + (index < count % 3) for index in range(3)]
    return [
        trial
        for kind, part in zip(SINGLE_KINDS, shares, strict=True)
        for trial in draw_trials(gallery.people, kind, part, seed, size)
    ]


def observe(instruments: Instruments, trials: Sequence[Trial], pictures: Sequence[Image]) -> Outcome:
    """Find the faces of pictures at the places of their trials."""
    faces = [
        place_faces(picture, trial.kps5, instruments.pack, instruments.judge)
        for picture, trial in zip(pictures, trials, strict=True)
    ]
    return Outcome(trials=trials, pictures=pictures, faces=faces)


def observe_real(instruments: Instruments, trials: Sequence[Trial]) -> Outcome:
    """Find the faces of the real renders of trials."""
    return observe(instruments, trials, [trial.real.image for trial in trials])


def observe_generated(
    instruments: Instruments,
    pipeline: PortraitPipeline,
    trials: Sequence[Trial],
    *,
    seed: int,
    masked: bool,
    advance: Advance,
) -> Outcome:
    """Generate the pictures of trials and find their faces."""
    pictures = generate(pipeline, trials, seed=seed, masked=masked, advance=advance)
    return observe(instruments, trials, pictures)
