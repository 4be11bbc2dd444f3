"""One evaluation: held-out trials of every kind, generated and real faces at their places, embedded by the judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.diir.edit import encode
from fpga_models.faces import FacePack
from fpga_models.lab.measures.generation import Adapt, generate
from fpga_models.lab.measures.held_out import Reference, Trial, draw_people, draw_trials, reference
from fpga_models.lab.measures.traits import FILE_NAME as TRAITS_FILE
from fpga_models.lab.measures.traits import TraitReader
from fpga_models.metrics.evaluator import EvaluationEncoder
from fpga_models.metrics.placed_faces import PlacedFaces, place_faces

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Advance = Callable[[int], None]
GALLERY = 500
SINGLE_KINDS = ("portrait", "half_body", "full_body")
GROUP_KINDS = ("group_2", "group_3", "group_4")


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What measures: the product's own face pack finds faces, the judge compares them, the reader reads their traits.

    A preset whose `eval/` has no trait classifier is measured without legibility.
    """

    pack: FacePack
    judge: EvaluationEncoder
    reader: TraitReader | None = None

    @classmethod
    def load(cls, preset_dir: Path, *, threads: int = 1) -> "Instruments":
        """Load `faces/` and `eval/` of a preset folder."""
        readable = (preset_dir / "eval" / TRAITS_FILE).is_file()
        return cls(
            pack=FacePack.load(preset_dir / "faces", threads=threads),
            judge=EvaluationEncoder.load(preset_dir / "eval", threads=threads),
            reader=TraitReader.load(preset_dir / "eval", threads=threads) if readable else None,
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


def draw_gallery(instruments: Instruments, seed: int, size: int, advance: Advance, *, fine: bool = False) -> Gallery:
    """Render and embed one reference of each of `size` held-out people, drawn as the preset's pictures are."""
    people = []
    for identity in draw_people(seed, size):
        people.append(reference(instruments.pack, identity, seed, fine=fine))
        advance(1)
    return Gallery(people=people, judged=instruments.judge.embed_crops([person.crop for person in people]))


def single_trials(gallery: Gallery, count: int, seed: int, size: int) -> list[Trial]:
    """Draw `count` scenes of one person, the three framings in equal parts."""
    shares = [count // 3 + (index < count % 3) for index in range(3)]
    return [
        trial
        for kind, part in zip(SINGLE_KINDS, shares, strict=True)
        for trial in draw_trials(gallery.people, kind, part, seed, size)
    ]


def face_sizes(trials: Sequence[Trial]) -> Floats:
    """Return the longer side in px of every face box (N,) of these scenes, trial by trial."""
    boxes = np.array([person.box for trial in trials for person in trial.real.people], np.float32).reshape(-1, 4)
    sizes: Floats = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return sizes


@torch.no_grad()
def through_autoencoder(pipeline: PortraitPipeline, pictures: Sequence[Image]) -> list[Image]:
    """Encode and decode pictures one by one: what the autoencoder alone does to them."""
    return [np.asarray(pipeline.decode(encode(pipeline, [picture]))[0]) for picture in pictures]


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
    masked: bool = True,
    adapt: Adapt = lambda request: request,
    advance: Advance,
) -> Outcome:
    """Generate the pictures of trials and find their faces; `masked` and `adapt` as in `generate`."""
    pictures = generate(pipeline, trials, seed=seed, masked=masked, adapt=adapt, advance=advance)
    return observe(instruments, trials, pictures)
