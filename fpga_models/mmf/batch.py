"""One training batch and the ways it is disturbed before the network sees it: drops, noise, order.

Every choice is drawn from the generator passed in, so that a step is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

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
        names = [field.name for field in fields(self)]
        return TrainingBatch(**{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names})

    def loss_weight(self, face: float) -> Tensor:
        """Weight of the diffusion loss (B, 1, h, w): 1 + face * m where it counts, m the union of the regions."""
        return self.counted * (1 + face * self.regions.amax(dim=1, keepdim=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainingBatch:
        return TrainingBatch(**{field.name: change(getattr(self, field.name)) for field in fields(self)})


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
        empty_text: (M,) token ids or (M, D) states of the empty prompt.
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
    return replace(
        batch,
        text=torch.where(no_text.reshape(-1, *[1] * empty_text.ndim), empty_text, batch.text),
        embeddings=embeddings[rows, order],
        regions=batch.regions[rows, order],
        masks=masks[rows, order],
        kps5=batch.kps5[rows, order],
    )
