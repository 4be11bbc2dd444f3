"""What an identity adapter has in each attention layer of a UNet, in the key layout of published IP-Adapter files.

`N.to_{k,v}_ip.weight` for every cross-attention, N odd in the order of `unet.attn_processors`; the FaceID files have
`N.to_{q,k,v,out}_lora.{down,up}.weight` for every attention besides, N from 0: small changes of the base's own layers.
"""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

PARTS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
"""LoRA name to layer name inside an attention."""


class LowRank(nn.Module):
    """A change of one linear layer: W + up down."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)


class AttentionLora(nn.Module):
    """Changes of the four linear layers of one attention; rank 0 has none."""

    def __init__(self, context_size: int, hidden_size: int, rank: int) -> None:
        super().__init__()
        for part in PARTS if rank else ():
            inputs = context_size if part in ("to_k", "to_v") else hidden_size
            self.add_module(f"{part}_lora", LowRank(inputs, hidden_size, rank))


class IdKeyValue(AttentionLora):
    """Key and value projections of the identity tokens for one cross-attention layer."""

    def __init__(self, cross_attention_dim: int, hidden_size: int, rank: int = 0) -> None:
        super().__init__(cross_attention_dim, hidden_size, rank)
        self.to_k_ip = nn.Linear(cross_attention_dim, hidden_size, bias=False)
        self.to_v_ip = nn.Linear(cross_attention_dim, hidden_size, bias=False)


class IdLayers(nn.ModuleDict):
    """The layers by their number in the key layout; `rank` is that of the LoRA, 0 for none."""

    def __init__(self, cross_attention_dim: int, hidden_sizes: list[int], rank: int = 0) -> None:
        super().__init__()
        for index, size in enumerate(hidden_sizes):
            if rank:
                self[str(2 * index)] = AttentionLora(size, size, rank)
            self[str(2 * index + 1)] = IdKeyValue(cross_attention_dim, size, rank)

    def in_order(self) -> list[IdKeyValue]:
        """The projections in the order of `cross_attention_sizes`."""
        return [layer for layer in self.values() if isinstance(layer, IdKeyValue)]

    def changes(self, unet: UNet2DConditionModel) -> dict[str, Tensor]:
        """What the LoRA adds to weights of `unet`, by their names in its state dict."""
        names = [name.removesuffix(".processor") for name in unet.attn_processors]
        return {
            f"{names[int(number)]}.{PARTS[part.removesuffix('_lora')]}.weight": low_rank.up.weight
            @ low_rank.down.weight
            for number, layer in self.items()
            for part, low_rank in layer.named_children()
            if isinstance(low_rank, LowRank)
        }


def cross_attention_sizes(unet: UNet2DConditionModel) -> dict[str, int]:
    """Hidden size of every cross-attention layer, by processor name, in the order that numbers the IP-Adapter keys."""
    return {
        name: unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for name in unet.attn_processors
        if name.endswith("attn2.processor")
    }
