"""Key and value projections of identity tokens, one pair per cross-attention layer of a UNet."""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from torch import nn


class IdKeyValue(nn.Module):
    """Key and value projections of the identity tokens for one cross-attention layer."""

    def __init__(self, cross_attention_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(cross_attention_dim, hidden_size, bias=False)
        self.to_v_ip = nn.Linear(cross_attention_dim, hidden_size, bias=False)


class IdLayers(nn.ModuleDict):
    """Projections by the odd numbers 1, 3, 5, ... of the IP-Adapter key layout."""

    def __init__(self, cross_attention_dim: int, hidden_sizes: list[int]) -> None:
        super().__init__({str(2 * i + 1): IdKeyValue(cross_attention_dim, n) for i, n in enumerate(hidden_sizes)})

    def in_order(self) -> list[IdKeyValue]:
        """The projections in the order of `cross_attention_sizes`."""
        return [layer for layer in self.values() if isinstance(layer, IdKeyValue)]


def cross_attention_sizes(unet: UNet2DConditionModel) -> dict[str, int]:
    """Hidden size of every cross-attention layer, by processor name, in the order that numbers the IP-Adapter keys."""
    return {
        name: unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for name in unet.attn_processors
        if name.endswith("attn2.processor")
    }
