"""The identity adapter: a face embedding becomes tokens, with their own key and value in each cross-attention layer.

One safetensors file in the IP-Adapter key layout: `image_proj.*` is the projector, `ip_adapter.N.*` the layers
(id_layers.py). Two published layouts load: IP-Adapter-FaceID's perceptron (proj.0, proj.2, norm; fed unit-length
embeddings; with or without its LoRA), which is also ours, and InstantID's resampler (latents, proj_in, layers, ...; fed
raw embeddings). The local branch, where there is one, lies under `local.*`, which stock diffusers does not look at.
Knows nothing of masks: multi_id_attention.py says where a person acts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from fpga_models.core.adapters.id_layers import IdKeyValue, IdLayers, cross_attention_sizes
from fpga_models.core.adapters.local_tokens import HEAD_WIDTH as LOCAL_HEAD_WIDTH
from fpga_models.core.adapters.local_tokens import LocalConfig, LocalTokens
from fpga_models.core.adapters.resampler import HEAD_WIDTH, Resampler, ResamplerConfig, resampler_config_of
from fpga_models.core.weights import read_safetensors
from fpga_models.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class IdAdapterConfig:
    """Sizes of the adapter.

    `input_scale` multiplies the (unit length) embedding, so that its entries are of order one: training sets
    sqrt(embedding_dim), saving folds it into the first layer, and a loaded file always has 1 [ours].

    Attributes:
        hidden_multiple: width of the perceptron over the embedding's.
        rank: of the LoRA in FaceID files, 0 for none.
        resampler: sizes of InstantID's projector; None means the perceptron.
        local: sizes of the local branch, None without.
    """

    embedding_dim: int = 512
    tokens: int = 4
    hidden_multiple: int = 1
    input_scale: float = 1.0
    rank: int = 0
    resampler: ResamplerConfig | None = None
    local: LocalConfig | None = None


class InstantIdProjector(Resampler):
    """Embedding -> tokens by a perceiver resampler (InstantID)."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """Tokens (B, K, n, D) of raw embeddings (B, K, E)."""
        tokens: Tensor = super().forward(embeddings.flatten(0, 1)[:, None])
        return rearrange(tokens, "(b k) n d -> b k n d", b=len(embeddings))


class IdProjector(nn.Module):
    """Embedding -> n tokens of the cross-attention width, by a two-layer perceptron and a norm (IP-Adapter-FaceID)."""

    def __init__(self, config: IdAdapterConfig, cross_attention_dim: int) -> None:
        super().__init__()
        hidden = config.embedding_dim * config.hidden_multiple
        self.tokens = config.tokens
        self.input_scale = config.input_scale
        self.proj = nn.Sequential(
            nn.Linear(config.embedding_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, cross_attention_dim * config.tokens),
        )
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Tokens (B, K, n, D) of unit-length embeddings (B, K, E); a zero embedding gives the unconditional tokens."""
        flat = self.proj(embeddings * self.input_scale)  # (B, K, n*D)
        tokens: Tensor = self.norm(rearrange(flat, "b k (n d) -> b k n d", n=self.tokens))
        return tokens


class IdAdapter(nn.Module):
    """Projector and per-layer key/value projections for one UNet, and the local branch if there is one."""

    def __init__(self, config: IdAdapterConfig, *, cross_attention_dim: int, hidden_sizes: list[int]) -> None:
        super().__init__()
        self.config = config
        self.cross_attention_dim = cross_attention_dim
        self.hidden_sizes = hidden_sizes
        self.image_proj: IdProjector | InstantIdProjector = (
            InstantIdProjector(config.resampler) if config.resampler else IdProjector(config, cross_attention_dim)
        )
        self.ip_adapter = IdLayers(cross_attention_dim, hidden_sizes, config.rank)
        self.local: LocalTokens | None = None
        if config.local:
            self.add_local(config.local)

    @classmethod
    def for_unet(cls, unet: UNet2DConditionModel, config: IdAdapterConfig) -> IdAdapter:
        """A fresh adapter with the sizes of `unet`."""
        sizes = list(cross_attention_sizes(unet).values())
        return cls(config, cross_attention_dim=unet.config.cross_attention_dim, hidden_sizes=sizes)

    def add_local(self, config: LocalConfig) -> None:
        """Grow a fresh local branch, which changes nothing until it is trained; takes the place of an older one."""
        self.local = LocalTokens(
            config, cross_attention_dim=self.cross_attention_dim, hidden_sizes=self.hidden_sizes
        ).to(next(self.parameters()))
        self.config = replace(self.config, local=config)

    def layers(self) -> list[IdKeyValue]:
        """The key/value projections in the order of `cross_attention_sizes`."""
        return self.ip_adapter.in_order()

    def save(self, path: Path, *, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
        """Write one safetensors file that stock diffusers' `load_ip_adapter` also understands."""
        state = {key: value.detach().clone() for key, value in self.state_dict().items()}
        if not self.config.resampler:
            state["image_proj.proj.0.weight"] *= self.config.input_scale
        config = asdict(self.config) | {"input_scale": 1.0}
        header = dict(metadata) | {"format": "pt", "config": json.dumps(config, sort_keys=True)}
        save_file({k: v.to(dtype).contiguous() for k, v in state.items()}, path, metadata=header)

    @classmethod
    def load(cls, path: Path, unet: UNet2DConditionModel) -> IdAdapter:
        """Read an adapter file made for `unet`.

        Raises:
            WeightsError: the file has another layout, or was made for another base.
        """
        state, _ = read_safetensors(path)
        adapter = cls.for_unet(unet, _config_of(state, unet.config.cross_attention_dim, path))
        wanted = {key: tuple(value.shape) for key, value in adapter.state_dict().items()}
        got = {key: tuple(value.shape) for key, value in state.items()}
        if wanted != got:
            differing = sorted(key for key in wanted.keys() | got.keys() if wanted.get(key) != got.get(key))
            raise WeightsError(
                f"{path.name} was made for another base: {differing[0]} is {got.get(differing[0])}, "
                f"this UNet wants {wanted.get(differing[0])} ({len(differing)} keys differ)."
            )
        adapter.load_state_dict(state)
        return adapter


def _config_of(state: Mapping[str, Tensor], cross_attention_dim: int, path: Path) -> IdAdapterConfig:
    """Sizes read off the tensors themselves, so that files written by others need no metadata of ours.

    Raises:
        WeightsError: neither of the layouts.
    """
    if any(key.startswith("image_proj.perceiver_resampler.") for key in state):
        raise WeightsError(
            f"{path.name} is of the IP-Adapter-FaceID-Plus layout, which also reads CLIP features of the picture; "
            "an IP-Adapter-FaceID or InstantID layout was wanted."
        )
    down = state.get("ip_adapter.0.to_q_lora.down.weight")
    rank, local = 0 if down is None else down.shape[0], _local_config_of(state)
    resampler = resampler_config_of(state, "image_proj.", HEAD_WIDTH)
    if resampler:
        return IdAdapterConfig(
            embedding_dim=resampler.embedding_dim, tokens=resampler.tokens, rank=rank, resampler=resampler, local=local
        )
    first, last = state.get("image_proj.proj.0.weight"), state.get("image_proj.proj.2.weight")
    if first is None or last is None or first.ndim != 2 or last.ndim != 2:
        raise WeightsError(
            f"{path.name} has no image_proj.proj.0 and proj.2, nor image_proj.latents: an IP-Adapter-FaceID or "
            f"InstantID layout was wanted, got keys such as {sorted(state)[:3]}."
        )
    return IdAdapterConfig(
        embedding_dim=first.shape[1],
        tokens=max(1, last.shape[0] // cross_attention_dim),
        hidden_multiple=max(1, first.shape[0] // first.shape[1]),
        rank=rank,
        local=local,
    )


def _local_config_of(state: Mapping[str, Tensor]) -> LocalConfig | None:
    found = resampler_config_of(state, "local.resampler.", LOCAL_HEAD_WIDTH)
    return LocalConfig(tokens=found.tokens, width=found.width, depth=found.depth) if found else None
