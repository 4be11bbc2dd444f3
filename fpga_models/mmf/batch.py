"""One training batch and the ways it is disturbed before the network sees it: drops, noise, order.

Every choice is drawn from the generator passed in, so that a step is a function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBatch:
    """Cached facts of B pictures.

    Attributes:
        latents: (B, C, h, w), scaled as the UNet sees them.
        text: (B, M) token ids.
        embeddings: (B, K, E) unit length, each from another picture of the same person.
        masks: (B, K, h, w) region of each person, zero for padding.
        control: (B, 3, H, W) control image in [0, 1].
        flags: (B, 2) modality flags.
    """

    latents: Tensor
    text: Tensor
    embeddings: Tensor
    masks: Tensor
    control: Tensor
    flags: Tensor

    def face_weight(self, face: float) -> Tensor:
        """Loss weight 1 + face * m, m the union of the regions, (B, 1, h, w)."""
        return 1 + face * self.masks.amax(dim=1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Shares of samples whose condition is dropped or changed [field, all-ones masks ours]."""

    text_drop: float = 0.07
    id_drop: float = 0.07
    both_drop: float = 0.05
    full_mask: float = 0.07
    embedding_noise: float = 0.02


def disturb(batch: TrainingBatch, how: Disturbance, rng: np.random.Generator, empty_text: Tensor) -> TrainingBatch:
    """Drop conditions, blur embeddings, shuffle people.

    Args:
        batch: what the data set gave.
        how: the shares.
        rng: source of every choice.
        empty_text: (M,) token ids of the empty prompt.
    """
    size, people = batch.embeddings.shape[:2]
    draw = rng.random(size)
    both = draw < how.both_drop
    no_text = torch.from_numpy(both | (draw > 1 - how.text_drop))
    no_id = torch.from_numpy(both | (rng.random(size) < how.id_drop))
    full = torch.from_numpy(rng.random(size) < how.full_mask)
    order = torch.from_numpy(rng.permuted(np.tile(np.arange(people), (size, 1)), axis=1))
    rows = torch.arange(size)[:, None]

    noise = torch.from_numpy(rng.standard_normal(batch.embeddings.shape, dtype=np.float32))
    embeddings = torch.nn.functional.normalize(batch.embeddings + how.embedding_noise * noise, dim=-1)
    present = batch.masks.amax(dim=(-1, -2)) > 0  # (B, K)
    masks = torch.where((full[:, None] & present)[..., None, None], torch.ones_like(batch.masks), batch.masks)
    return replace(
        batch,
        text=torch.where(no_text[:, None], empty_text, batch.text),
        embeddings=torch.where(no_id[:, None, None], 0.0, embeddings)[rows, order],
        masks=masks[rows, order],
    )
