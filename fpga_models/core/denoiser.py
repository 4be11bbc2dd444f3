"""One denoiser: a stock UNet with the identity adapter injected and the control image brought in.

Training, generation and restoration all call this and nothing else. `prepare` turns people, control image and text
states into a `Condition` once; `forward` runs one step. It knows nothing of schedules, guidance or images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from fpga_models.core.adapters.hint import HintAdapter
from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.adapters.local_tokens import LocalConfig
from fpga_models.core.bases.network import Added, Network, People
from fpga_models.core.control import Drawing
from fpga_models.core.multi_id_attention import IdentityCondition, eject, inject, mask_shares


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """What a ControlNet reads, in P passes: one a row, or one a person of a row.

    Attributes:
        rows: (P,) the row of the batch that a pass belongs to.
        picture: (P, 3, H, W).
        states: (P, M, D), what its cross-attention reads.
        strength: (P,).
        places: (P,) the person of its row, whose mask bounds where the pass acts; None means everywhere.
        masks: (B, K, h, w) on the latent grid, of all rows.
    """

    rows: Tensor
    picture: Tensor
    states: Tensor
    strength: Tensor
    places: Tensor | None
    masks: Tensor

    def select(self, rows: Tensor) -> Control:
        """The passes of some rows of the batch, which are counted anew."""
        counted, passes = (self.rows[None] == rows[:, None]).nonzero(as_tuple=True)
        return Control(
            rows=counted,
            picture=self.picture[passes],
            states=self.states[passes],
            strength=self.strength[passes],
            places=None if self.places is None else self.places[passes],
            masks=self.masks[rows],
        )

    def join(self, other: Control) -> Control:
        """Both batches as one, this one first."""
        return Control(
            rows=torch.cat([self.rows, other.rows + len(self.masks)]),
            picture=torch.cat([self.picture, other.picture]),
            states=torch.cat([self.states, other.states]),
            strength=torch.cat([self.strength, other.strength]),
            places=None if self.places is None or other.places is None else torch.cat([self.places, other.places]),
            masks=torch.cat([self.masks, other.masks]),
        )

    def act(self, feature: Tensor) -> Tensor:
        """What features (P, C, h, w) of the passes add to the rows, (B, C, h, w); exactly nothing outside a mask."""
        weighted = feature * self.strength[:, None, None, None].to(feature.dtype)
        if self.places is not None:
            shares = mask_shares(self.masks, *feature.shape[-2:])[self.rows, self.places]
            weighted = weighted * shares[:, None].to(feature.dtype)
        owns = self.rows[None] == torch.arange(len(self.masks), device=self.rows.device)[:, None]
        return torch.einsum("bp,pchw->bchw", owns.to(feature.dtype), weighted)


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
            added=None if self.added is None else self.added.select(rows),
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


class Denoiser(Network):
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

    @property
    def latent_channels(self) -> int:
        """Channels of its latents."""
        return int(self.unet.config.in_channels)

    @property
    def embedding_dim(self) -> int:
        """Width of the face embeddings that its adapter reads."""
        return self.id_adapter.config.embedding_dim

    @property
    def drawing(self) -> Drawing:
        """A ControlNet never saw our drawing."""
        return "ours" if self.controlnet is None else "published"

    @property
    def apart(self) -> bool:
        """InstantID's ControlNet is shown each person alone."""
        return self.controlnet is not None and self.control_states == "identity"

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
        self,
        *,
        text: Tensor,
        people: People,
        control: Tensor,
        flags: Tensor,
        added: Added | None = None,
        strength: Tensor | None = None,
    ) -> Condition:
        """Project the identities and the control image once.

        Args:
            text: (B, M, D) text encoder states.
            people: who acts where.
            control: (B, 3, H, W) in [0, 1].
            flags: (B, 2) modality flags.
            added: for bases of the SDXL class.
            strength: (B,) of a ControlNet; None means 1.
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
            shows = flags.amax(dim=1) if strength is None else flags.amax(dim=1) * strength.to(flags)
            shown = self._shown(text, people, who.tokens, control, shows)
        return Condition(text=text, identity=who, hint=hint, added=added, control=shown)

    def _shown(self, text: Tensor, people: People, tokens: Tensor, control: Tensor, strength: Tensor) -> Control:
        """What the ControlNet reads.

        One that reads text sees each row once. One that reads identities (InstantID) sees each person by themselves,
        their landmarks alone, and acts inside their mask alone, so that nobody's features reach another's face [ours].
        A person of scale 0 is shown to it as nobody; whoever is only padding is not shown at all.
        """
        if self.control_states == "text":
            rows = strength.nonzero()[:, 0]
            return Control(
                rows=rows, picture=control[rows], states=text[rows], strength=strength[rows], places=None,
                masks=people.masks,
            )  # fmt: skip
        acting = (strength > 0)[:, None].expand(people.scales.shape)
        if people.present is not None:
            acting = acting & people.present
        rows, places = acting.nonzero(as_tuple=True)
        silent = (people.scales[rows, places] == 0)[:, None, None]
        nobody = self.id_adapter.image_proj(torch.zeros_like(people.embeddings[:1, :1]))[0]  # (1, n, D)
        return Control(
            rows=rows,
            picture=control[rows] if people.pictures is None else people.pictures[rows, places],
            states=torch.where(silent, nobody, tokens[rows, places]),
            strength=strength[rows],
            places=places,
            masks=people.masks,
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
        if self.controlnet is None or shown is None or not len(shown.rows):
            return {}
        added = condition.added.select(shown.rows).as_arguments() if condition.added else None
        down, middle = self.controlnet(
            latents[shown.rows],
            timesteps[shown.rows],
            encoder_hidden_states=shown.states,
            controlnet_cond=shown.picture,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return {
            "down_block_additional_residuals": [shown.act(feature) for feature in down],
            "mid_block_additional_residual": shown.act(middle),
        }

    def _add_hint(self, _conv: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output if self._feature is None else output + self._feature.to(output.dtype)
