"""What generation and restoration ask of a base, whatever draws in it: a UNet (`denoiser`) or a transformer (`flux`).

network    takes latents, timesteps and a prepared condition, and predicts as its schedule says
schedule   `ddim.Schedule`: noise levels of diffusion or of flow matching, steps and their exact undoing
text       `text.TextStates`, what encoders say of prompts
mask grid  people's masks come on the latent grid; the network brings them onto its own layers
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from fpga_models.core.control import Drawing


@dataclass(frozen=True, kw_only=True, eq=False)
class People:
    """Identities of a batch, padded to the same number K with zero masks.

    Attributes:
        embeddings: (B, K, E), unit length; zero for the unconditional branch.
        masks: (B, K, h, w) in [0, 1] on the latent grid.
        scales: (B, K) id_scale.
        crops: (B, K, 3, 112, 112) aligned faces in [-1, 1] for the local tokens, zero for a person without; None if
            there are none at all.
        local_scales: (B, K) strength of the local tokens; None means `scales`.
        local_keep: (B, K, m) 1 keeps a local token, 0 drops it (in training); None keeps all.
        pictures: (B, K, 3, H, W) control picture of each person alone, for a ControlNet that reads identities; None
            shows everybody the batch's.
        present: (B, K) False for padding; None means all.
    """

    embeddings: Tensor
    masks: Tensor
    scales: Tensor
    crops: Tensor | None = None
    local_scales: Tensor | None = None
    local_keep: Tensor | None = None
    pictures: Tensor | None = None
    present: Tensor | None = None

    def nobody(self) -> People:
        """The same places without anybody: zero embeddings, no local tokens."""
        return replace(self, embeddings=torch.zeros_like(self.embeddings), crops=None, local_keep=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Added:
    """What SDXL reads besides: pooled text (B, P) and sizes (B, 6) in px (original, crop corner, wanted)."""

    pooled: Tensor
    sizes: Tensor

    def join(self, other: Added) -> Added:
        """Both batches as one, this one first."""
        return Added(pooled=torch.cat([self.pooled, other.pooled]), sizes=torch.cat([self.sizes, other.sizes]))

    def select(self, rows: Tensor) -> Added:
        """Some rows of the batch."""
        return Added(pooled=self.pooled[rows], sizes=self.sizes[rows])

    def as_arguments(self) -> dict[str, Tensor]:
        """Under the names that diffusers gives them."""
        return {"text_embeds": self.pooled, "time_ids": self.sizes}


class Condition(Protocol):
    """Everything a step needs besides the noised latents; constant over the steps of a picture."""

    def select(self, rows: Tensor) -> Self:
        """The condition of some rows of the batch."""

    def join(self, other: Self) -> Self:
        """Both batches as one, this one first."""


class Network(nn.Module):
    """A base with its identity adapter. `forward` takes latents (B, C, h, w), timesteps (B,) and a prepared condition.

    It returns its prediction (B, C, h, w) in the schedule's prediction type.
    """

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Channels C of its latents."""

    @property
    @abstractmethod
    def embedding_dim(self) -> int:
        """Width of the face embeddings that its adapter reads."""

    @property
    def drawing(self) -> Drawing:
        """How a control picture is drawn for it."""
        return "ours"

    @property
    def apart(self) -> bool:
        """Whether it is shown control pictures of each person alone."""
        return False

    @abstractmethod
    def prepare(
        self,
        *,
        text: Tensor,
        people: People,
        control: Tensor,
        flags: Tensor,
        added: Added | None = None,
        strength: Tensor | None = None,
    ) -> Condition:
        """Project identities and control image once; as `Denoiser.prepare`."""
