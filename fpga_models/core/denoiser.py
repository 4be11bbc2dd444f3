"""One denoiser: a stock UNet with the identity adapter injected and the control image brought in.

Training, generation and restoration all call this and nothing else. `prepare` turns people, control image and text
states into a `Condition` once; `forward` runs one step. It knows nothing of schedules, guidance or images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from fpga_models.core.hint import HintAdapter
from fpga_models.core.id_adapter import IdAdapter
from fpga_models.core.local_tokens import LocalConfig
from fpga_models.core.multi_id_attention import IdentityCondition, eject, inject, mask_shares


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
class Added:
    """What SDXL reads besides: pooled text (B, P) and sizes (B, 6) in px (original, crop corner, wanted)."""

    pooled: Tensor
    sizes: Tensor

    def join(self, other: Added) -> Added:
        """Both batches as one, this one first."""
        return Added(pooled=torch.cat([self.pooled, other.pooled]), sizes=torch.cat([self.sizes, other.sizes]))

    def as_arguments(self) -> dict[str, Tensor]:
        """Under the names that diffusers gives them."""
        return {"text_embeds": self.pooled, "time_ids": self.sizes}


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """What a ControlNet reads: picture (B, 3, H, W), states (B, M, D), strength (B,), 0 where nothing is shown."""

    picture: Tensor
    states: Tensor
    strength: Tensor

    def select(self, rows: Tensor) -> Control:
        """Some rows of the batch."""
        return Control(picture=self.picture[rows], states=self.states[rows], strength=self.strength[rows])

    def join(self, other: Control) -> Control:
        """Both batches as one, this one first."""
        return Control(
            picture=torch.cat([self.picture, other.picture]),
            states=torch.cat([self.states, other.states]),
            strength=torch.cat([self.strength, other.strength]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """Everything a step needs besides the noised latents; constant over the steps of a picture."""

    text: Tensor  # (B, M, D)
    identity: IdentityCondition
    hint: Tensor | None  # (B, C, h, w); None without a hint adapter
    added: Added | None = None
    control: Control | None = None

    def select(self, rows: Tensor) -> Condition:
        """The condition of some rows of the batch."""
        return Condition(
            text=self.text[rows],
            identity=self.identity.select(rows),
            hint=None if self.hint is None else self.hint[rows],
            added=None if self.added is None else Added(pooled=self.added.pooled[rows], sizes=self.added.sizes[rows]),
            control=None if self.control is None else self.control.select(rows),
        )

    def join(self, other: Condition) -> Condition:
        """Both batches as one, this one first."""
        return Condition(
            text=torch.cat([self.text, other.text]),
            identity=self.identity.join(other.identity),
            hint=None if self.hint is None or other.hint is None else torch.cat([self.hint, other.hint]),
            added=None if self.added is None or other.added is None else self.added.join(other.added),
            control=None if self.control is None or other.control is None else self.control.join(other.control),
        )


class Denoiser(nn.Module):
    """UNet, identity adapter, and what brings the control image in, as one module.

    That is our hint adapter, or for published bases a ControlNet, which reads the text or, in InstantID, the identity
    tokens (`control_states`); or neither.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        id_adapter: IdAdapter,
        hint: HintAdapter | None,
        controlnet: ControlNetModel | None = None,
        control_states: Literal["text", "identity"] = "text",
    ) -> None:
        super().__init__()
        self.unet = unet
        self.id_adapter = id_adapter
        self.hint = hint
        self.controlnet = controlnet
        self.control_states = control_states
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

    def prepare(
        self, *, text: Tensor, people: People, control: Tensor, flags: Tensor, added: Added | None = None
    ) -> Condition:
        """Project the identities and the control image once.

        Args:
            text: (B, M, D) text encoder states.
            people: who acts where.
            control: (B, 3, H, W) in [0, 1].
            flags: (B, 2) modality flags.
            added: for bases of the SDXL class.
        """
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
        hint, shown = None, None
        if self.hint is not None:
            shares = mask_shares(people.masks, *people.masks.shape[-2:]) * people.scales[:, :, None, None]
            hint = self.hint(control, flags, people.embeddings, shares)
        if self.controlnet is not None:
            states = text if self.control_states == "text" else who.tokens.flatten(1, 2)
            shown = Control(picture=control, states=states, strength=flags.amax(dim=1))
        return Condition(text=text, identity=who, hint=hint, added=added, control=shown)

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The UNet's prediction for latents (B, C, h, w) at timesteps (B,), in the schedule's prediction type."""
        self._feature = condition.hint
        try:
            prediction: Tensor = self.unet(
                latents,
                timesteps,
                encoder_hidden_states=condition.text,
                cross_attention_kwargs={"identity": condition.identity},
                added_cond_kwargs=condition.added.as_arguments() if condition.added else None,
                return_dict=False,
                **self._residuals(latents, timesteps, condition),
            )[0]
        finally:
            self._feature = None
        return prediction

    def _residuals(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> dict[str, Any]:
        """What the ControlNet adds to the UNet's skip connections and middle, as arguments of the UNet."""
        shown = condition.control
        if self.controlnet is None or shown is None:
            return {}
        down, middle = self.controlnet(
            latents,
            timesteps,
            encoder_hidden_states=shown.states,
            controlnet_cond=shown.picture,
            added_cond_kwargs=condition.added.as_arguments() if condition.added else None,
            return_dict=False,
        )
        strength = shown.strength[:, None, None, None].to(middle.dtype)
        return {
            "down_block_additional_residuals": [feature * strength for feature in down],
            "mid_block_additional_residual": middle * strength,
        }

    def _add_hint(self, _conv: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output if self._feature is None else output + self._feature.to(output.dtype)
