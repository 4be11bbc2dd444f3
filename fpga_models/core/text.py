"""Prompts to text states, as the base was trained: one CLIP encoder (SD 1.5, mini) or SDXL's two side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

CLIP_PLACES, MARKS = 77, 2
"""Places of the published CLIP encoders, and those of them that the marks of beginning and end take."""
MOST_WINDOWS = 8


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


def windows(prompt: str, tokenizer: CLIPTokenizer) -> int:
    """How many windows of the encoder a prompt takes, 1 to 8.

    Only the published CLIP encoders of 77 places are asked more than once, as users of their bases know it from other
    tools; an encoder with a length of its own was trained with a base that has seen one window.
    """
    if tokenizer.model_max_length != CLIP_PLACES:
        return 1
    count = len(_words(prompt, tokenizer))
    return min(MOST_WINDOWS, max(1, math.ceil(count / (CLIP_PLACES - MARKS))))


def encode(
    prompts: Sequence[str],
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    second: SecondEncoder | None,
    *,
    count: int = 1,
) -> TextStates:
    """Text states of prompts.

    With two encoders: the last but one layer of each, side by side, and the pooled text of the second; an empty prompt
    is all zero, as in SDXL's training.

    Args:
        count: windows of every prompt, (B, M, D) with M so many times an encoder's places: each is encoded by itself,
            between marks of its own, and the pooled text is that of the first [as other tools do].
    """
    if second is None:
        states = encoder(_ids(prompts, encoder, tokenizer, count)).last_hidden_state
        return TextStates(states=_side_by_side(states, count))
    parts = [
        each(_ids(prompts, each, words, count), output_hidden_states=True)
        for each, words in ((encoder, tokenizer), (second.encoder, second.tokenizer))
    ]
    states = torch.cat([_side_by_side(part.hidden_states[-2], count) for part in parts], dim=-1)
    pooled = parts[1].text_embeds[::count]
    said = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)
    return TextStates(states=states * said[:, None, None], pooled=pooled * said[:, None])


def _side_by_side(states: Tensor, count: int) -> Tensor:
    """(B * count, M, D) as (B, count * M, D)."""
    return states.reshape(-1, count * states.shape[1], states.shape[2])


def _ids(prompts: Sequence[str], encoder: nn.Module, tokenizer: CLIPTokenizer, count: int) -> Tensor:
    device = next(encoder.parameters()).device
    if count == 1:
        tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        ids: Tensor = tokens.input_ids.to(device)
        return ids
    room = CLIP_PLACES - MARKS
    rows = []
    for prompt in prompts:
        words = _words(prompt, tokenizer)
        for start in range(0, count * room, room):
            row = [tokenizer.bos_token_id, *words[start : start + room], tokenizer.eos_token_id]
            rows.append(row + [tokenizer.pad_token_id] * (CLIP_PLACES - len(row)))
    return torch.tensor(rows, device=device)


def _words(prompt: str, tokenizer: CLIPTokenizer) -> list[int]:
    ids: list[int] = tokenizer(prompt, add_special_tokens=False, truncation=False).input_ids
    return ids
