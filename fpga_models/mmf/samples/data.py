"""A folder of cached facts as training batches: latents, text, embeddings, masks, control images.

    FOLDER/scenes/*.npy, captions.jsonl    pictures with ground truth (synthetic/dataset.py says which arrays)
    FOLDER/latents/scenes.npy              (N, C, h, w) as the preset's autoencoder encodes them
    FOLDER/embeddings.npy                  (I, R, E) R pictures of identity i; a scene's `identity` is the row
    FOLDER/crops/crops.npy                 (I * R, 112, 112, 3) the same pictures, aligned; without it no local tokens

Token ids and region masks are derived here once. Control images are drawn per batch, since their mode changes every
time. All sizes are read off the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from transformers import CLIPTokenizer

from fpga_models.core.control import ControlMode, Marks, control_flags, control_image, region_mask
from fpga_models.errors import DataError
from fpga_models.idzoom.scenes import KINDS, Scenes, open_scenes
from fpga_models.mmf.samples.batch import TrainingBatch
from fpga_models.mmf.samples.modes import ModePlan, draw_modes

CROP_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """N scenes of at most K people.

    Attributes:
        scenes: ground truth.
        latents: (N, C, h, w) float16, scaled as the UNet sees them.
        text: (N, M) token ids, or (N, M, D) float16 states of a frozen text encoder.
        masks: (N, K, h, w) uint8, 255 inside.
        embeddings: (I, R, E) unit length, R pictures of identity i.
        rows: (N, K) row of each person in `embeddings`, -1 for nobody.
        crops: (I, R, 112, 112, 3) uint8, the aligned pictures that the embeddings are of; None if there are none.
    """

    scenes: Scenes
    latents: NDArray[np.float16]
    text: NDArray[np.int64] | NDArray[np.float16]
    masks: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    rows: NDArray[np.int64]
    crops: NDArray[np.uint8] | None = None

    def indices_by_kind(self) -> list[NDArray[np.int64]]:
        """Scene numbers of every kind, in the order of KINDS."""
        return [np.flatnonzero(self.scenes.kind == kind) for kind in range(len(KINDS))]


def open_training_data(folder: Path, tokenizer: CLIPTokenizer, *, part: str = "scenes") -> TrainingData:
    """Open one part of a data folder; derives and caches the masks on first use.

    Raises:
        DataError: a file is missing or unreadable, or the arrays do not belong together.
    """
    try:
        scenes = open_scenes(folder / part)
        latents = np.load(folder / "latents" / f"{part}.npy", mmap_mode="r")
        embeddings = np.load(folder / "embeddings.npy").astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} cannot be read as training data: {error}.") from error
    rows = scenes.identity.astype(np.int64)
    if not len(scenes) == len(latents) == len(scenes.captions):
        got = f"{len(scenes)} pictures, {len(latents)} latents, {len(scenes.captions)} captions"
        raise DataError(f"{folder / part} has {got}: as many of each were wanted.")
    if rows.max(initial=-1) >= len(embeddings):
        raise DataError(f"{folder / part} shows identity {rows.max()}: embeddings.npy ends at {len(embeddings) - 1}.")
    return TrainingData(
        scenes=scenes,
        latents=latents,
        text=token_ids(tokenizer, scenes.captions),
        masks=_cached_masks(folder / part / "region_masks.npy", scenes, latents.shape[-1]),
        embeddings=embeddings,
        rows=rows,
        crops=_crops(folder / "crops" / "crops.npy", embeddings),
    )


def _crops(path: Path, embeddings: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    if not path.exists():
        return None
    crops: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    people, pictures = embeddings.shape[:2]
    if len(crops) != people * pictures:
        raise DataError(f"{path} holds {len(crops)} crops: {people} x {pictures} were wanted, as there are embeddings.")
    return crops.reshape(people, pictures, *crops.shape[1:])


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> NDArray[np.int64]:
    """Padded token ids (N, M) of prompts, cut at the model's length."""
    encoded = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="np")
    ids: NDArray[np.int64] = encoded.input_ids
    return ids


def latent_mask(kps5: NDArray[np.floating], side: int, cells: int) -> NDArray[np.uint8]:
    """Region of one face on a latent grid of (cells, cells), 255 inside: the largest value of each cell."""
    mask = region_mask(kps5, width=side, height=side)
    cell = side // cells
    largest = mask.reshape(cells, cell, cells, cell).max(axis=(1, 3))
    quantised: NDArray[np.uint8] = np.round(largest * 255).astype(np.uint8)
    return quantised


def _cached_masks(path: Path, scenes: Scenes, cells: int) -> NDArray[np.uint8]:
    shape = (*scenes.identity.shape, cells, cells)
    if path.exists() and (cached := np.load(path)).shape == shape:
        return np.asarray(cached, np.uint8)
    masks = np.zeros(shape, np.uint8)
    for scene, place in np.argwhere(scenes.identity >= 0):
        masks[scene, place] = latent_mask(scenes.kps5[scene, place], scenes.images.shape[1], cells)
    np.save(path, masks)
    return masks


def draw_scenes(
    by_kind: Sequence[NDArray[np.int64]], shares: Sequence[float], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Scene numbers (count,) of one batch: kinds by their shares (empty kinds never), scenes evenly within a kind.

    Raises:
        DataError: no scene has a kind with a share.
    """
    weights = np.where([len(indices) > 0 for indices in by_kind], shares, 0.0)
    if not weights.sum() > 0:
        raise DataError(f"No scene of a kind with a share: {[len(indices) for indices in by_kind]} scenes by kind.")
    kinds = rng.choice(len(by_kind), size=count, p=weights / weights.sum())
    return np.array([by_kind[kind][rng.integers(len(by_kind[kind]))] for kind in kinds])


def draw_embeddings(data: TrainingData, chosen: NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
    """Embeddings (B, K, E) of the people of these scenes, from other pictures than the scene itself.

    A third of them are the mean of several pictures, as identities with several references are [ours].
    """
    people = data.embeddings[np.maximum(data.rows[chosen], 0)]  # (B, K, R, E)
    order = rng.random(people.shape[:3])
    several = rng.random(people.shape[:2]) < 1 / 3
    wanted = np.where(several, rng.integers(2, people.shape[2] + 1, people.shape[:2]), 1)
    ranks = order.argsort(axis=-1).argsort(axis=-1)
    mean = (people * (ranks < wanted[..., None])[..., None]).sum(axis=2)
    present = (data.rows[chosen] >= 0)[..., None]
    return F.normalize(torch.from_numpy(np.where(present, mean, 0)), dim=-1)


def draw_controls(
    scenes: Scenes, chosen: NDArray[np.int64], modes: Sequence[ControlMode]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Control images (B, 3, H, W) and modality flags (B, 2)."""
    side = scenes.images.shape[1]
    images = []
    for scene, mode in zip(chosen, modes, strict=True):
        people = [
            Marks(kps5=scenes.kps5[scene, place], skeleton=scenes.skeleton[scene, place])
            for place in range(scenes.count[scene])
        ]
        images.append(control_image(people, width=side, height=side, mode=mode))
    return torch.from_numpy(np.stack(images)), torch.tensor([control_flags(mode) for mode in modes])


def draw_crops(data: TrainingData, rows: NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor | None:
    """Aligned crops (B, K, 3, 112, 112) of the people at `rows` (B, K), -1 for nobody; None if there are none at all.

    Half of the people get none, so that the embedding alone must do for them [ours].
    """
    if data.crops is None:
        return None
    wanted = (rows >= 0) & (rng.random(rows.shape) < CROP_SHARE)
    pictures = rng.integers(data.crops.shape[1], size=rows.shape)
    crops = np.zeros((*rows.shape, *data.crops.shape[2:]), np.float32)
    crops[wanted] = data.crops[rows[wanted], pictures[wanted]] / np.float32(127.5) - 1
    return torch.from_numpy(crops).permute(0, 1, 4, 2, 3)


def gather(
    data: TrainingData,
    chosen: NDArray[np.int64],
    modes: Sequence[ControlMode],
    embeddings: torch.Tensor,
    crops: torch.Tensor | None = None,
) -> TrainingBatch:
    """A batch of N scenes (N,) with embeddings (N, K, E) and crops (N, K, 3, s, s) of up to K people."""
    control, flags = draw_controls(data.scenes, chosen, modes)
    latents = torch.from_numpy(data.latents[chosen].astype(np.float32))
    regions = torch.from_numpy(data.masks[chosen].astype(np.float32) / 255)
    text = torch.from_numpy(data.text[chosen])
    return TrainingBatch(
        latents=latents,
        text=text.float() if text.is_floating_point() else text,
        embeddings=embeddings,
        regions=regions,
        masks=regions,
        counted=torch.ones_like(latents[:, :1]),
        control=control,
        flags=flags,
        kps5=torch.from_numpy(data.scenes.kps5[chosen]),
        crops=crops,
    )


def draw_batch(
    data: TrainingData,
    by_kind: Sequence[NDArray[np.int64]],
    shares: Sequence[float],
    *,
    plan: ModePlan,
    count: int,
    step: int,
    rng: np.random.Generator,
) -> TrainingBatch:
    """The batch of one training step; `by_kind` has the scene numbers (n,) of each kind."""
    chosen = draw_scenes(by_kind, shares, count, rng)
    modes = draw_modes(plan, count, step, rng)
    embeddings = draw_embeddings(data, chosen, rng)
    return gather(data, chosen, modes, embeddings, draw_crops(data, data.rows[chosen], rng))
