"""Clone Face Tuning: samples that teach one identity to appear at every face it is asked for, and nowhere else.

The paper names the stage and gives no recipe; our reading is that one embedding is realised at every requested
location, so that at inference masks only have to select [ours]. Four recipes, to be compared:

    C1  a canvas of several crops of one person; only the faces count
    C2  pictures of groups that the network drew of one person, kept where every face is that person
    C3  real groups, one person's embedding at a time; only that face counts
    C4  real groups, all embeddings with their masks; only the faces count
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpga_models.core.control import ControlMode, Marks, control_flags, control_image
from fpga_models.mmf.samples.batch import TrainingBatch
from fpga_models.mmf.samples.data import TrainingData, draw_crops, draw_embeddings, gather, latent_mask

COUNTED_FROM = 0.1
"""A latent cell counts as face from this region value on."""
TILES = 4
TILE_SIDES = (0.28, 0.48)
"""Side of a tile of C1 as a share of the canvas."""
MARGIN = 1.7
"""Side of the square cut around a face over the longer side of its box."""

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clones:
    """What the network drew for C2: latents (N, C, h, w), the scenes whose layout was asked for, whom they all show."""

    latents: NDArray[np.float16]
    scenes: Indices
    identities: Indices


@dataclass(frozen=True, kw_only=True, eq=False)
class CloneSource:
    """Where clone samples come from.

    Attributes:
        groups: numbers of training scenes with two or more people.
        appearances: by row of the embeddings, (scene, place) of every picture of that person, at least two of them.
        empty_text: (M,) token ids or (M, D) states of the empty prompt.
        encode: pictures (B, S, S, 3) uint8 to latents as the UNet sees them.
        clones: for C2.
    """

    data: TrainingData
    groups: Indices
    appearances: dict[int, NDArray[np.int64]]
    empty_text: Tensor
    encode: Callable[[Images], Tensor]
    clones: Clones | None = None


Recipe = Callable[[CloneSource, Sequence[ControlMode], np.random.Generator], TrainingBatch]


def appearances(data: TrainingData, training: Indices) -> dict[int, NDArray[np.int64]]:
    """(scene, place) of every person who is in two of the training scenes or more."""
    shown: dict[int, list[tuple[int, int]]] = {}
    for scene in training:
        for place, row in enumerate(data.rows[scene]):
            if row >= 0:
                shown.setdefault(int(row), []).append((int(scene), place))
    return {row: np.array(found) for row, found in shown.items() if len(found) > 1}


def composite(source: CloneSource, modes: Sequence[ControlMode], rng: np.random.Generator) -> TrainingBatch:
    """C1: crops of one person on one canvas, without a caption."""
    people = rng.choice(sorted(source.appearances), size=len(modes))
    canvases = [draw_canvas(source.data, source.appearances[int(person)], rng) for person in people]
    side = source.data.scenes.images.shape[1]
    latents = source.encode(np.stack([image for image, _ in canvases]))
    cells = latents.shape[-1]
    regions = np.zeros((len(modes), TILES, cells, cells), np.float32)
    kps5 = np.zeros((len(modes), TILES, 5, 2), np.float32)
    for row, (_, marks) in enumerate(canvases):
        for place, mark in enumerate(marks):
            kps5[row, place] = mark.face_points()
            regions[row, place] = latent_mask(mark.face_points(), side, cells) / 255
    control = [
        control_image(marks, width=side, height=side, mode=mode)
        for (_, marks), mode in zip(canvases, modes, strict=True)
    ]
    embeddings = _one_picture(source.data, people, rng)[:, None].expand(-1, TILES, -1)
    here = torch.from_numpy(regions)
    present = here.amax(dim=(-1, -2)) > 0
    batch = TrainingBatch(
        latents=latents,
        text=source.empty_text.expand(len(modes), *source.empty_text.shape),
        embeddings=torch.where(present[..., None], embeddings, 0.0),
        regions=here,
        masks=here,
        counted=torch.ones_like(latents[:, :1]),
        control=torch.from_numpy(np.stack(control)),
        flags=torch.tensor([control_flags(mode) for mode in modes]),
        kps5=torch.from_numpy(kps5),
        crops=draw_crops(source.data, np.where(present.numpy(), people[:, None], -1), rng),
    )
    return faces_only(_as_many_places(batch, source.data.masks.shape[1]))


def draw_canvas(data: TrainingData, shown: NDArray[np.int64], rng: np.random.Generator) -> tuple[Images, list[Marks]]:
    """A picture (S, S, 3) with two to four squares cut around one person's faces, and where the faces are on it."""
    side = data.scenes.images.shape[1]
    count = int(rng.integers(2, TILES + 1))
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = rng.integers(60, 200, 3)
    marks = []
    for quarter in rng.permutation(TILES)[:count]:
        scene, place = shown[rng.integers(len(shown))]
        left, top, length = face_square(data.scenes.box[scene, place], side)
        tile = round(side * float(rng.uniform(*TILE_SIDES)))
        corner = np.array([quarter % 2, quarter // 2]) * (side // 2) + rng.integers(0, side // 2 - tile + 1, 2)
        cut = data.scenes.images[scene, top : top + length, left : left + length]
        x, y = corner
        canvas[y : y + tile, x : x + tile] = cv2.resize(cut, (tile, tile), interpolation=cv2.INTER_AREA)
        scale, origin = tile / length, np.array([left, top])
        skeleton = data.scenes.skeleton[scene, place].copy()
        skeleton[:, :2] = (skeleton[:, :2] - origin) * scale + corner
        inside = ((skeleton[:, :2] >= corner) & (skeleton[:, :2] <= corner + tile)).all(axis=1)
        skeleton[:, 2] *= inside
        marks.append(Marks(kps5=(data.scenes.kps5[scene, place] - origin) * scale + corner, skeleton=skeleton))
    return canvas, marks


def face_square(box: NDArray[np.float32], side: int) -> tuple[int, int, int]:
    """Left, top and side of the square around a face (left, top, right, bottom), shifted into the picture; px."""
    length = min(side, max(2, round(float(max(box[2] - box[0], box[3] - box[1])) * MARGIN)))
    left, top = (
        int(np.clip(round(float(a + b - length) / 2), 0, side - length)) for a, b in (box[[0, 2]], box[[1, 3]])
    )
    return left, top, length


def self_generated(source: CloneSource, modes: Sequence[ControlMode], rng: np.random.Generator) -> TrainingBatch:
    """C2: what the network drew before, every face of it the same person."""
    assert source.clones is not None, "C2 is drawn from clones that were made before the stage"
    made = source.clones
    chosen = rng.integers(len(made.scenes), size=len(modes))
    return clone_batch(source.data, made.scenes[chosen], made.identities[chosen], modes, rng, made.latents[chosen])


def clone_batch(
    data: TrainingData,
    scenes: Indices,
    identities: Indices,
    modes: Sequence[ControlMode],
    rng: np.random.Generator,
    latents: NDArray[np.float16] | None = None,
) -> TrainingBatch:
    """Conditions of scenes (N,) with one identity (N,) for everybody in each; latents are (N, C, h, w) or None."""
    own = _one_picture(data, identities, rng)[:, None]
    present = data.rows[scenes] >= 0
    crops = draw_crops(data, np.where(present, identities[:, None], -1), rng)
    batch = gather(data, scenes, modes, torch.where(torch.from_numpy(present)[..., None], own, 0.0), crops)
    return batch if latents is None else replace(batch, latents=torch.from_numpy(latents.astype(np.float32)))


def one_of_a_group(source: CloneSource, modes: Sequence[ControlMode], rng: np.random.Generator) -> TrainingBatch:
    """C3: a real group, but only one of them is asked for and counts."""
    batch = all_of_a_group(source, modes, rng)
    present = (batch.regions.amax(dim=(-1, -2)) > 0).numpy()
    who = torch.from_numpy(np.where(present, rng.random(present.shape), -1.0).argmax(axis=1))
    kept = torch.nn.functional.one_hot(who, present.shape[1]).float()
    alone = kept[..., None, None] * batch.regions
    crops = None if batch.crops is None else kept[..., None, None, None] * batch.crops
    embeddings = kept[..., None] * batch.embeddings
    return faces_only(replace(batch, embeddings=embeddings, regions=alone, masks=alone, crops=crops))


def all_of_a_group(source: CloneSource, modes: Sequence[ControlMode], rng: np.random.Generator) -> TrainingBatch:
    """C4: a real group with everybody's embedding in place; the faces count."""
    chosen = source.groups[rng.integers(len(source.groups), size=len(modes))]
    embeddings = draw_embeddings(source.data, chosen, rng)
    crops = draw_crops(source.data, source.data.rows[chosen], rng)
    return faces_only(gather(source.data, chosen, modes, embeddings, crops))


def faces_only(batch: TrainingBatch) -> TrainingBatch:
    """The batch with a loss that counts inside the faces alone."""
    inside = batch.regions.amax(dim=1, keepdim=True) >= COUNTED_FROM
    return replace(batch, counted=inside.to(batch.counted.dtype))


RECIPES: dict[str, Recipe] = {"C1": composite, "C2": self_generated, "C3": one_of_a_group, "C4": all_of_a_group}


def _one_picture(data: TrainingData, identities: Indices, rng: np.random.Generator) -> Tensor:
    """An embedding (B, E) of each of these people."""
    pictures = rng.integers(data.embeddings.shape[1], size=len(identities))
    return torch.from_numpy(data.embeddings[identities, pictures])


def _as_many_places(batch: TrainingBatch, places: int) -> TrainingBatch:
    """The batch padded with nobody to this number of places."""

    def padded(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros(len(tensor), places - tensor.shape[1], *tensor.shape[2:])], dim=1)

    return replace(
        batch,
        embeddings=padded(batch.embeddings),
        regions=padded(batch.regions),
        masks=padded(batch.masks),
        kps5=padded(batch.kps5),
        crops=None if batch.crops is None else padded(batch.crops),
    )
