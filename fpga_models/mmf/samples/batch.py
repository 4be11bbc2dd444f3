"""One training batch and the ways it is disturbed before the network sees it: drops, noise, order.

Every choice is drawn from the generator passed in, so that a step is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBatch:
    """Cached facts of B pictures.

    Attributes:
        latents: (B, C, h, w), scaled as the UNet sees them.
        text: (B, M) token ids, or (B, M, D) states of a frozen text encoder.
        embeddings: (B, K, E) unit length, each from another picture of the same person; zero for nobody.
        regions: (B, K, h, w) where each person's face is, zero for padding.
        masks: (B, K, h, w) where each person may act: the regions, unless disturbed.
        counted: (B, 1, h, w) where the diffusion loss counts, 0 or 1.
        control: (B, 3, H, W) control image in [0, 1].
        flags: (B, 2) modality flags.
        kps5: (B, K, 5, 2) face points in pixels.
        crops: (B, K, 3, 112, 112) aligned faces in [-1, 1] for the local tokens, zero for a person without; None when
            there is no local branch to feed.
        local_keep: (B, K, n) 1 keeps a local token, 0 drops it; None keeps all.
    """

    latents: Tensor
    text: Tensor
    embeddings: Tensor
    regions: Tensor
    masks: Tensor
    counted: Tensor
    control: Tensor
    flags: Tensor
    kps5: Tensor
    crops: Tensor | None = None
    local_keep: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, wanted: Tensor) -> TrainingBatch:
        """The batch of these rows."""
        return self._each(lambda tensor: tensor[wanted])

    def to(self, device: torch.device) -> TrainingBatch:
        """The batch on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def join(self, other: TrainingBatch) -> TrainingBatch:
        """Both batches as one, this one first."""
        values: dict[str, Any] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            values[field.name] = None if mine is None else torch.cat([mine, theirs])
        return TrainingBatch(**values)

    def loss_weight(self, face: float) -> Tensor:
        """Weight of the diffusion loss (B, 1, h, w): 1 + face * m where it counts, m the union of the regions."""
        return self.counted * (1 + face * self.regions.amax(dim=1, keepdim=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = None if value is None else change(value)
        return TrainingBatch(**values)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Shares of samples whose condition is dropped or changed [field, all-ones masks ours].

    `local_token_drop` is the share of single local tokens left out, on top of the people who have none [ours].
    """

    text_drop: float = 0.07
    id_drop: float = 0.07
    both_drop: float = 0.05
    full_mask: float = 0.07
    embedding_noise: float = 0.02
    local_token_drop: float = 0.3


def augment(
    batch: TrainingBatch, how: Augmentation, rng: np.random.Generator, empty_text: Tensor, local_tokens: int = 0
) -> TrainingBatch:
    """Drop conditions, blur embeddings, shuffle people.

    Args:
        batch: what the data set gave.
        how: the shares.
        rng: source of every choice.
        empty_text: (M,) token ids or (M, D) states of the empty prompt.
        local_tokens: of one person, if the batch has crops.
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
    known = batch.embeddings.abs().amax(dim=-1, keepdim=True) > 0
    blurred = torch.nn.functional.normalize(batch.embeddings + how.embedding_noise * noise, dim=-1)
    embeddings = torch.where(known & ~no_id[:, None, None], blurred, 0.0)
    present = batch.masks.amax(dim=(-1, -2)) > 0  # (B, K)
    masks = torch.where((full[:, None] & present)[..., None, None], torch.ones_like(batch.masks), batch.masks)
    crops, keep = None, None
    if batch.crops is not None:
        crops = (batch.crops * ~no_id[:, None, None, None, None])[rows, order]
        keep = torch.from_numpy(rng.random((size, people, local_tokens)) >= how.local_token_drop)
    return replace(
        batch,
        text=torch.where(no_text.reshape(-1, *[1] * empty_text.ndim), empty_text, batch.text),
        embeddings=embeddings[rows, order],
        regions=batch.regions[rows, order],
        masks=masks[rows, order],
        kps5=batch.kps5[rows, order],
        crops=crops,
        local_keep=keep,
    )
