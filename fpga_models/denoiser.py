"""One denoiser: a stock UNet with the identity adapter injected and the hint added after conv_in.

Training, generation and restoration all call this and nothing else. `prepare` turns people, control image and text
states into a `Condition` once; `forward` runs one step. It knows nothing of schedules, guidance or images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from fpga_models.hint import HintAdapter
from fpga_models.id_adapter import IdAdapter
from fpga_models.local_tokens import LocalConfig
from fpga_models.multi_id_attention import IdentityCondition, eject, inject, mask_shares


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
    """

    embeddings: Tensor
    masks: Tensor
    scales: Tensor
    crops: Tensor | None = None
    local_scales: Tensor | None = None
    local_keep: Tensor | None = None

    def nobody(self) -> People:
        """The same places without anybody: zero embeddings, no local tokens."""
        return replace(self, embeddings=torch.zeros_like(self.embeddings), crops=None, local_keep=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """Everything a step needs besides the noised latents; constant over the steps of a picture."""

    text: Tensor  # (B, M, D)
    identity: IdentityCondition
    hint: Tensor  # (B, C, h, w)

    def select(self, rows: Tensor) -> Condition:
        """The condition of some rows of the batch."""
        return Condition(text=self.text[rows], identity=self.identity.select(rows), hint=self.hint[rows])

    def join(self, other: Condition) -> Condition:
        """Both batches as one, this one first."""
        return Condition(
            text=torch.cat([self.text, other.text]),
            identity=self.identity.join(other.identity),
            hint=torch.cat([self.hint, other.hint]),
        )


class Denoiser(nn.Module):
    """UNet, identity adapter and hint adapter as one module."""

    def __init__(self, unet: UNet2DConditionModel, id_adapter: IdAdapter, hint: HintAdapter) -> None:
        super().__init__()
        self.unet = unet
        self.id_adapter = id_adapter
        self.hint = hint
        self._previous = inject(unet, id_adapter)
        self._feature: Tensor | None = None
        self._hook = unet.conv_in.register_forward_hook(self._add_hint)

    def release(self) -> UNet2DConditionModel:
        """Take the adapters off again and give the stock UNet back, exactly as it was."""
        self._hook.remove()
        eject(self.unet, self._previous)
        return self.unet

    def add_local(self, config: LocalConfig) -> None:
        """Grow a fresh local branch on the identity adapter; the output stays the same until it is trained."""
        self.id_adapter.add_local(config)
        eject(self.unet, self._previous)
        self._previous = inject(self.unet, self.id_adapter)

    def prepare(self, *, text: Tensor, people: People, control: Tensor, flags: Tensor) -> Condition:
        """Project the identities and the control image once.

        Args:
            text: (B, M, D) text encoder states.
            people: who acts where.
            control: (B, 3, H, W) in [0, 1].
            flags: (B, 2) modality flags.
        """
        shares = mask_shares(people.masks, *people.masks.shape[-2:]) * people.scales[:, :, None, None]
        local = None
        if self.id_adapter.local is not None and people.crops is not None:
            local = self.id_adapter.local(people.crops, people.local_keep)
        who = IdentityCondition(
            tokens=self.id_adapter.image_proj(people.embeddings),
            masks=people.masks,
            scales=people.scales,
            local=local,
            local_scales=people.local_scales,
        )
        return Condition(
            text=text,
            identity=who,
            hint=self.hint(control, flags, people.embeddings, shares),
        )

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The UNet's prediction for latents (B, C, h, w) at timesteps (B,), in the schedule's prediction type."""
        self._feature = condition.hint
        try:
            prediction: Tensor = self.unet(
                latents,
                timesteps,
                encoder_hidden_states=condition.text,
                cross_attention_kwargs={"identity": condition.identity},
                return_dict=False,
            )[0]
        finally:
            self._feature = None
        return prediction

    def _add_hint(self, _conv: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output if self._feature is None else output + self._feature.to(output.dtype)
