"""A second kind of base: a transformer over packed tokens that predicts a flow's velocity (FluxTransformer2DModel).

After every block of two streams each person's tokens are read by the picture's tokens, inside their mask alone:

    x = x + out( sum_k M_k / max(sum_j M_j, 1) * id_scale_k * Attn(q(x), K_k, V_k) )                      [ours]

Where the cross-attention sits is PuLID's idea, the masks are MGMICA's on the grid of packed tokens, two latent cells a
side. No weights of such an adapter are published for several people, so no preset of this kind can be pulled: here is
what one needs. It reads no control image; pooled text is zero where the text encoders give none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from diffusers import FluxTransformer2DModel
from einops import rearrange
from torch import Tensor, nn

from fpga_models.core import ddim
from fpga_models.core.adapters.id_adapter import IdAdapterConfig, IdProjector
from fpga_models.core.adapters.id_layers import IdKeyValue
from fpga_models.core.bases.network import Added, Network, People
from fpga_models.core.multi_id_attention import IdentityCondition, merge_heads, per_person, split_heads
from fpga_models.errors import RequestError

SIDE = 2
"""Latent cells a side of a packed token."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedCondition:
    """Text (B, M, D), pooled text (B, P) and who acts where, masks on the latent grid."""

    text: Tensor
    pooled: Tensor
    identity: IdentityCondition

    def select(self, rows: Tensor) -> Self:
        """The condition of some rows of the batch."""
        return type(self)(text=self.text[rows], pooled=self.pooled[rows], identity=self.identity.select(rows))

    def join(self, other: Self) -> Self:
        """Both batches as one, this one first."""
        return type(self)(
            text=torch.cat([self.text, other.text]),
            pooled=torch.cat([self.pooled, other.pooled]),
            identity=self.identity.join(other.identity),
        )


class IdCrossAttention(nn.Module):
    """What one block reads of the people: a cross-attention of its own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.key_value = IdKeyValue(width, width)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, states: Tensor, identity: IdentityCondition) -> Tensor:
        """Term (B, N, C) for the picture's tokens (B, N, C); exactly zero outside all masks."""
        query = split_heads(self.to_q(self.norm(states)), self.heads)
        key, value = identity.key_value(self.key_value, identity.tokens)
        weights = identity.weights(states.shape[1])
        term: Tensor = self.to_out(merge_heads(per_person(query, key, value, weights, query.shape[-1] ** -0.5)))
        return term


class FluxDenoiser(Network):
    """A stock transformer with the identity adapter hooked behind its blocks of two streams."""

    def __init__(self, transformer: FluxTransformer2DModel, config: IdAdapterConfig, schedule: ddim.Schedule) -> None:
        super().__init__()
        if transformer.config.guidance_embeds:
            raise RequestError("A transformer that guidance was distilled into has no branch without identity.")
        heads = int(transformer.config.num_attention_heads)
        width = heads * int(transformer.config.attention_head_dim)
        self.transformer = transformer
        self.image_proj = IdProjector(config, width)
        self.ip_adapter = nn.ModuleList(IdCrossAttention(width, heads) for _ in transformer.transformer_blocks)
        self.register_buffer("levels", schedule.noises.float(), persistent=False)
        self._embedding_dim = config.embedding_dim
        self._identity: IdentityCondition | None = None
        for block, layer in zip(transformer.transformer_blocks, self.ip_adapter, strict=True):
            block.register_forward_hook(self._reading(layer))

    @property
    def latent_channels(self) -> int:
        """Channels of its latents."""
        return int(self.transformer.config.in_channels) // SIDE**2

    @property
    def embedding_dim(self) -> int:
        """Width of the face embeddings that its adapter reads."""
        return self._embedding_dim

    def prepare(
        self,
        *,
        text: Tensor,
        people: People,
        control: Tensor,
        flags: Tensor,
        added: Added | None = None,
        strength: Tensor | None = None,
    ) -> PackedCondition:
        """Project the identities once; control image, flags and strength are not read."""
        width = int(self.transformer.config.pooled_projection_dim)
        return PackedCondition(
            text=text,
            pooled=text.new_zeros(len(text), width) if added is None else added.pooled,
            identity=IdentityCondition(
                tokens=self.image_proj(people.embeddings), masks=people.masks, scales=people.scales
            ),
        )

    def forward(self, latents: Tensor, timesteps: Tensor, condition: PackedCondition) -> Tensor:
        """The velocity (B, C, h, w) of latents (B, C, h, w) at timesteps (B,) of the schedule.

        Raises:
            RequestError: h or w is odd.
        """
        height, width = latents.shape[-2:]
        if height % SIDE or width % SIDE:
            raise RequestError(f"Latents of {height} x {width} cells: even numbers are wanted to pack them.")
        levels: Tensor = self.get_buffer("levels")
        self._identity = condition.identity
        try:
            output: Tensor = self.transformer(
                hidden_states=pack(latents),
                encoder_hidden_states=condition.text,
                pooled_projections=condition.pooled,
                timestep=levels[timesteps].to(latents.dtype),
                img_ids=_places(height // SIDE, width // SIDE).to(latents),
                txt_ids=latents.new_zeros(condition.text.shape[1], 3),
                return_dict=False,
            )[0]
        finally:
            self._identity = None
        return unpack(output, height, width)

    def _reading(self, layer: nn.Module) -> Callable[[nn.Module, object, Sequence[Tensor]], tuple[Tensor, Tensor]]:
        def read(_block: nn.Module, _inputs: object, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            text, picture = outputs
            return (text, picture) if self._identity is None else (text, picture + layer(picture, self._identity))

        return read


def pack(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as tokens (B, h/2 * w/2, 4 C)."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=SIDE, q=SIDE)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens as latents of `height` x `width` cells again."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=height // SIDE, w=width // SIDE, p=SIDE, q=SIDE)


def _places(height: int, width: int) -> Tensor:
    """Row and column of each token, (height * width, 3)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)
