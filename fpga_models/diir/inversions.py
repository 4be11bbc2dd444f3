"""Paths of inverted crops, kept: another try, seed or person starts from them instead of climbing again [ours].

A path climbs from the clean latents and asks for no identity (unless `own_identity` says so), so it depends on the
crop, its landmarks and the grid of timesteps alone. One that climbs the same grid less far is its beginning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fpga_models.errors import WeightsError


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversion:
    """One path: latents (T + 1, C, h, w) float32, clean ones first, and the timesteps (T) that it climbs to."""

    latents: Tensor
    levels: tuple[int, ...]


@dataclass(kw_only=True)
class Inversions:
    """Paths by crop; `found` and `made` count what was used again and what was computed."""

    paths: dict[str, Inversion] = field(default_factory=dict)
    found: int = 0
    made: int = 0

    def get(self, key: str, levels: Sequence[int]) -> Tensor | None:
        """Latents (len(levels) + 1, C, h, w) of a path that begins with these levels, or None."""
        kept = self.paths.get(key)
        if kept is None or kept.levels[: len(levels)] != tuple(levels):
            return None
        self.found += 1
        return kept.latents[: len(levels) + 1]

    def add(self, key: str, levels: Sequence[int], latents: Tensor) -> None:
        """Keep a path that was just computed, (L, C, h, w) for L levels, clean one first, on the CPU."""
        self.made += 1
        self.paths[key] = Inversion(latents=latents.float().cpu().contiguous(), levels=tuple(levels))

    def to_bytes(self) -> bytes:
        """All paths as one safetensors file; the same paths give the same bytes."""
        tensors = {f"{key}.latents": kept.latents for key, kept in sorted(self.paths.items())}
        levels = {f"{key}.levels": torch.tensor(kept.levels) for key, kept in sorted(self.paths.items())}
        return safetensors.torch.save({**tensors, **levels})

    @classmethod
    def from_bytes(cls, data: bytes) -> Inversions:
        """Paths that `to_bytes` wrote.

        Raises:
            WeightsError: the bytes are something else.
        """
        try:
            state = safetensors.torch.load(data)
            keys = [name.removesuffix(".latents") for name in state if name.endswith(".latents")]
            paths = {
                key: Inversion(latents=state[f"{key}.latents"], levels=tuple(state[f"{key}.levels"].tolist()))
                for key in keys
            }
        except (SafetensorError, KeyError) as error:
            raise WeightsError(f"Kept inversions cannot be read: {error}") from error
        return cls(paths=paths)


def crop_key(*parts: bytes) -> str:
    """Name of a crop: sha256 over the parts that its path depends on, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
