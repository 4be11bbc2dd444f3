"""Cached facts of the rendered scenes as training batches: latents, token ids, embeddings, masks, control images.

Latents and embeddings come from the earlier steps of the recipe; token ids and region masks are derived here once and
kept beside them. Control images are drawn per batch, since their mode changes every time.
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

from fpga_models.control import ControlMode, Marks, control_flags, control_image, region_mask
from fpga_models.mini.networks import IMAGE_SIDE, LATENT_SIDE, MAX_PEOPLE
from fpga_models.mmf.batch import TrainingBatch
from fpga_models.mmf.modes import ModePlan, draw_modes
from fpga_models.synthetic.dataset import Scenes, open_scenes
from fpga_models.synthetic.scene import KINDS


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """N scenes.

    Attributes:
        scenes: ground truth.
        latents: (N, 16, 16, 16) float16, scaled as the UNet sees them.
        text: (N, M) token ids.
        masks: (N, 4, 16, 16) uint8, 255 inside.
        embeddings: (I, R, 512) unit length, R pictures of identity i.
        rows: (N, 4) row of each person in `embeddings`, -1 for nobody.
    """

    scenes: Scenes
    latents: NDArray[np.float16]
    text: NDArray[np.int64]
    masks: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    rows: NDArray[np.int64]

    def indices_by_kind(self) -> list[NDArray[np.int64]]:
        """Scene numbers of every kind, in the order of KINDS."""
        return [np.flatnonzero(self.scenes.kind == kind) for kind in range(len(KINDS))]


def open_training_data(folder: Path, tokenizer: CLIPTokenizer, *, part: str = "scenes") -> TrainingData:
    """Open the training scenes of a data folder; derives and caches token ids and masks on first use."""
    scenes = open_scenes(folder / part)
    return TrainingData(
        scenes=scenes,
        latents=np.load(folder / "latents" / f"{part}.npy", mmap_mode="r"),
        text=token_ids(tokenizer, scenes.captions),
        masks=_cached_masks(folder / part / "region_masks.npy", scenes),
        embeddings=np.load(folder / "embeddings.npy").astype(np.float32),
        rows=scenes.identity.astype(np.int64),
    )


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> NDArray[np.int64]:
    """Padded token ids (N, M) of prompts, cut at the model's length."""
    encoded = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="np")
    ids: NDArray[np.int64] = encoded.input_ids
    return ids


def latent_mask(kps5: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Region of one face on the latent grid, (16, 16), 255 inside: the largest value of each cell."""
    mask = region_mask(kps5, width=IMAGE_SIDE, height=IMAGE_SIDE)
    cell = IMAGE_SIDE // LATENT_SIDE
    cells = mask.reshape(LATENT_SIDE, cell, LATENT_SIDE, cell).max(axis=(1, 3))
    quantised: NDArray[np.uint8] = np.round(cells * 255).astype(np.uint8)
    return quantised


def _cached_masks(path: Path, scenes: Scenes) -> NDArray[np.uint8]:
    if path.exists():
        cached: NDArray[np.uint8] = np.load(path)
        return cached
    masks = np.zeros((len(scenes), MAX_PEOPLE, LATENT_SIDE, LATENT_SIDE), np.uint8)
    for scene, place in np.argwhere(scenes.identity >= 0):
        masks[scene, place] = latent_mask(scenes.kps5[scene, place])
    np.save(path, masks)
    return masks


def draw_scenes(
    by_kind: Sequence[NDArray[np.int64]], shares: Sequence[float], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Scene numbers of one batch: kinds by their shares, scenes evenly within a kind."""
    kinds = rng.choice(len(by_kind), size=count, p=np.asarray(shares) / np.sum(shares))
    return np.array([by_kind[kind][rng.integers(len(by_kind[kind]))] for kind in kinds])


def draw_embeddings(data: TrainingData, chosen: NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
    """Embeddings (B, 4, 512) of the people of these scenes, from other pictures than the scene itself.

    A third of them are the mean of several pictures, as identities with several references are [ours].
    """
    people = data.embeddings[np.maximum(data.rows[chosen], 0)]  # (B, 4, R, 512)
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
    """Control images (B, 3, 128, 128) and modality flags (B, 2)."""
    images = []
    for scene, mode in zip(chosen, modes, strict=True):
        people = [
            Marks(kps5=scenes.kps5[scene, place], skeleton=scenes.skeleton[scene, place])
            for place in range(scenes.count[scene])
        ]
        images.append(control_image(people, width=IMAGE_SIDE, height=IMAGE_SIDE, mode=mode))
    return torch.from_numpy(np.stack(images)), torch.tensor([control_flags(mode) for mode in modes])


def gather(
    data: TrainingData, chosen: NDArray[np.int64], modes: Sequence[ControlMode], embeddings: torch.Tensor
) -> TrainingBatch:
    """A batch of these scenes with these embeddings."""
    control, flags = draw_controls(data.scenes, chosen, modes)
    return TrainingBatch(
        latents=torch.from_numpy(data.latents[chosen].astype(np.float32)),
        text=torch.from_numpy(data.text[chosen]),
        embeddings=embeddings,
        masks=torch.from_numpy(data.masks[chosen].astype(np.float32) / 255),
        control=control,
        flags=flags,
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
    """The batch of one training step."""
    chosen = draw_scenes(by_kind, shares, count, rng)
    modes = draw_modes(plan, count, step, rng)
    return gather(data, chosen, modes, draw_embeddings(data, chosen, rng))
