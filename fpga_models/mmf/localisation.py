"""Watches how much attention goes to each person's ID tokens, for the localisation loss.

Decoupled attention gives each person a softmax of their own, so the probabilities of a person's tokens add up to one in
every cell and say nothing about the place. Compared is therefore what a joint softmax over text and ID tokens of the
same layer would give them [ours; the loss on it is FastComposer's].
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from diffusers import UNet2DConditionModel
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.adapters.id_layers import cross_attention_sizes
from fpga_models.mmf.losses import localisation_loss


class AttentionProbe:
    """Reads queries and keys of every cross-attention layer while the context is open; changes nothing."""

    def __init__(self, unet: UNet2DConditionModel, adapter: IdAdapter) -> None:
        names = [name.removesuffix(".processor") for name in cross_attention_sizes(unet)]
        self._layers = [unet.get_submodule(name) for name in names]
        self._projections = adapter.layers()
        self._seen: list[dict[str, Tensor]] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._seen = [{} for _ in self._layers]
        for seen, layer, projection in zip(self._seen, self._layers, self._projections, strict=True):
            for name, module in (("query", layer.to_q), ("text", layer.to_k), ("people", projection.to_k_ip)):
                self._hooks.append(module.register_forward_hook(_keep(seen, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def loss(self, regions: Tensor, known: Tensor) -> Tensor:
        """Mean localisation loss of the layers seen last; regions (B, K, h, w), known (B, K)."""
        losses = []
        watched, self._seen = self._seen, []  # nothing is kept alive until the next step
        for seen, layer in zip(watched, self._layers, strict=True):
            shares = attention_shares(seen["query"], seen["text"], seen["people"], regions.shape[1], layer.heads)
            grid = _halved(regions, shares.shape[1])
            losses.append(localisation_loss(shares.float(), grid, known))
        return torch.stack(losses).mean()


def attention_shares(query: Tensor, text: Tensor, people: Tensor, count: int, heads: int) -> Tensor:
    """Share of a joint softmax over text keys (B, M, C) and ID keys (B, K*n, C) that each person gets, (B, N, K)."""
    q, k = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (query, torch.cat([text, people], dim=1)))
    probabilities = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).float().softmax(-1)  # (B, h, N, M + K*n)
    mean: Tensor = reduce(probabilities[..., text.shape[1] :], "b h m (k n) -> b m k", "mean", k=count)
    return mean * (people.shape[1] // count)


def _halved(regions: Tensor, cells: int) -> Tensor:
    """Regions on the grid of a layer: each downsampling halves both sides, rounding up."""
    height, width = regions.shape[-2:]
    while height * width > cells:
        height, width = (height + 1) // 2, (width + 1) // 2
    return F.adaptive_max_pool2d(regions, (height, width))


def _keep(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen[name] = output

    return hook
