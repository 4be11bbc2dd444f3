"""Text states of all captions, computed once: the text encoder is frozen while the modal network learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextModel

from fpga_models.mmf.samples.data import TrainingData

BATCH = 256


@torch.no_grad()
def cache_text_states(
    data: TrainingData, empty_text: Tensor, encoder: CLIPTextModel, path: Path
) -> tuple[TrainingData, Tensor]:
    """The data with states (N, M, D) float16 in place of token ids, and those of the empty prompt (M, D).

    Args:
        path: .npy file to read, or to write if it is not there; it belongs to this data and this encoder.
    """
    device = next(encoder.parameters()).device
    empty: Tensor = encoder.eval()(empty_text[None].to(device)).last_hidden_state[0].cpu()
    if not path.exists():
        partial = path.with_name(f".partial-{path.name}")
        states = np.lib.format.open_memmap(partial, "w+", np.float16, (len(data.text), *empty.shape))
        for start in range(0, len(data.text), BATCH):
            ids = torch.from_numpy(data.text[start : start + BATCH]).to(device)
            states[start : start + BATCH] = encoder(ids).last_hidden_state.cpu().numpy()
        states.flush()
        partial.replace(path)
    return replace(data, text=np.load(path, mmap_mode="r")), empty.half().float()
