"""Held-out trials of the mini world: people no training saw, a reference picture of each, and scenes to generate.

A trial is everything a client would send (references, places, prompt) plus the real render to compare with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fpga_models.faces import Face, FacePack, align
from fpga_models.lab.synthetic import KINDS, Rendered, random_scene, reference_crop, render
from fpga_models.lab.synthetic.dataset import TEST_IDENTITIES
from fpga_models.lab.synthetic.scene import drawn_fine
from fpga_models.metrics.errors import HeldOutError

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
REFERENCE_SIDE = 256
REFERENCE_TRIES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """One person as a client knows them: the picture (S, S, 3) and the face that the product found on it."""

    identity: int
    picture: Image
    face: Face

    @cached_property
    def crop(self) -> Image:
        """The aligned face (112, 112, 3), which local identity tokens are made of."""
        return align(self.picture, self.face.kps5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A scene to be generated: its real render, and the references of its people in the same order."""

    kind: str
    real: Rendered
    references: tuple[Reference, ...]

    @property
    def kps5(self) -> Floats:
        """Requested keypoints (K, 5, 2) in px."""
        return np.stack([person.kps5 for person in self.real.people]).astype(np.float32)


def draw_people(seed: int, count: int) -> list[int]:
    """Draw different identities that no training saw; the same seed gives the same people."""
    chosen = np.random.default_rng([seed, 11]).choice(len(TEST_IDENTITIES), count, replace=False)
    return [TEST_IDENTITIES[int(index)] for index in chosen]


def reference(pack: FacePack, identity: int, seed: int, *, fine: bool = False) -> Reference:
    """Render a reference picture and take its face as the product does.

    Raises:
        HeldOutError: the detector found no single face on any of several pictures.
    """
    for attempt in range(REFERENCE_TRIES):
        rng = np.random.default_rng([seed, 12, identity, attempt])
        picture = reference_crop(identity, rng, REFERENCE_SIDE, fine=fine).image
        faces = pack.detect(picture)
        if len(faces) == 1:
            return Reference(identity=identity, picture=picture, face=faces[0])
    raise HeldOutError(f"Identity {identity}: no single face found on {REFERENCE_TRIES} reference pictures.")


def draw_trials(people: Sequence[Reference], kind: str, count: int, seed: int, size: int) -> list[Trial]:
    """Draw `count` scenes of one kind, everybody in `people` taking turns as far as they reach."""
    per_scene = int(kind[-1]) if kind.startswith("group_") else 1
    rng = np.random.default_rng([seed, 13, KINDS.index(kind)])
    turns = np.concatenate([rng.permutation(len(people)) for _ in range(1 + count * per_scene // len(people))])
    trials = []
    for index in range(count):
        chosen = _different(turns[index * per_scene : (index + 1) * per_scene], len(people))
        shown = tuple(people[place] for place in chosen)
        scene = random_scene(rng, [person.identity for person in shown], kind, size, fine=drawn_fine(size))
        trials.append(Trial(kind=kind, real=render(scene), references=shown))
    return trials


def _different(chosen: NDArray[np.int64], people: int) -> list[int]:
    """Move repeated entries on to the next free person: a turn's end and the next one's start may coincide."""
    result: list[int] = []
    for place in chosen.tolist():
        while place in result:
            place = (place + 1) % people
        result.append(place)
    return result
