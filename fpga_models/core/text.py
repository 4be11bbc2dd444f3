"""Prompts to text states, as the base was trained: one CLIP encoder (SD 1.5, mini) or SDXL's two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


@dataclass(frozen=True, kw_only=True, eq=False)
class TextStates:
    """What a UNet reads of prompts: states (B, M, D), and SDXL's pooled text (B, P) or None."""

    states: Tensor
    pooled: Tensor | None = None


class SecondEncoder(nn.Module):
    """SDXL's second text encoder with its tokenizer."""

    def __init__(self, encoder: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype) -> SecondEncoder | None:
        """Read `text_encoder_2/` and `tokenizer_2/` of a preset folder; None where the base has no second encoder."""
        if not (directory / "text_encoder_2").is_dir():
            return None
        options = {"use_safetensors": True, "local_files_only": True, "torch_dtype": dtype}
        encoder = CLIPTextModelWithProjection.from_pretrained(directory / "text_encoder_2", **options)
        return cls(encoder, CLIPTokenizer.from_pretrained(directory / "tokenizer_2", local_files_only=True))


def encode(
    prompts: Sequence[str], encoder: CLIPTextModel, tokenizer: CLIPTokenizer, second: SecondEncoder | None
) -> TextStates:
    """Text states of prompts.

    With two encoders: the last but one layer of each, side by side, and the pooled text of the second; an empty prompt
    is all zero, as in SDXL's training.
    """
    if second is None:
        return TextStates(states=encoder(_ids(prompts, encoder, tokenizer)).last_hidden_state)
    parts = [
        each(_ids(prompts, each, words), output_hidden_states=True)
        for each, words in ((encoder, tokenizer), (second.encoder, second.tokenizer))
    ]
    states, pooled = torch.cat([part.hidden_states[-2] for part in parts], dim=-1), parts[1].text_embeds
    said = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)
    return TextStates(states=states * said[:, None, None], pooled=pooled * said[:, None])


def _ids(prompts: Sequence[str], encoder: nn.Module, tokenizer: CLIPTokenizer) -> Tensor:
    tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = tokens.input_ids.to(next(encoder.parameters()).device)
    return ids
