"""Pictures for recipe C2: groups drawn with one identity for everybody, kept where every face is that person."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpga_models.core import ddim
from fpga_models.core.autoencoder import Autoencoder
from fpga_models.errors import DataError
from fpga_models.mmf.face_encoding import FaceEncoder, aligned_faces
from fpga_models.mmf.loop import Trainee
from fpga_models.mmf.samples.batch import TrainingBatch
from fpga_models.mmf.samples.clone import Clones, CloneSource, clone_batch

SAMPLING_STEPS = 12
BATCH = 16
ARRAYS = ("latents", "scenes", "identities")


@dataclass(frozen=True, kw_only=True, eq=False)
class CloneMaker:
    """Draws and picks.

    Attributes:
        similarity: every face must reach this cosine with the person asked for.
        patience: at most this many pictures are drawn for each one wanted.
    """

    trainee: Trainee
    schedule: ddim.Schedule
    vae: Autoencoder
    encoder: FaceEncoder
    similarity: float = 0.35
    patience: int = 8

    def make(self, source: CloneSource, count: int, seed: int, tick: Callable[[int], None]) -> Clones:
        """Draw until `count` pictures are kept; `tick` is told how many are after each batch.

        Raises:
            DataError: not one picture could be kept.
        """
        kept: dict[str, list[NDArray[Any]]] = {name: [] for name in ARRAYS}
        found = 0
        people = np.array(sorted(source.appearances))
        for draw in range(-(-count * self.patience // BATCH)):
            rng = np.random.default_rng([seed, 2, draw])
            scenes = source.groups[rng.integers(len(source.groups), size=BATCH)]
            identities = people[rng.integers(len(people), size=BATCH)]
            batch = clone_batch(source.data, scenes, identities, ["landmark"] * BATCH, rng)
            latents = self._draw(batch, seed=seed * 100_003 + draw)
            good = self._all_match(latents, batch)
            drawn: dict[str, NDArray[Any]] = {
                "latents": latents.cpu().numpy().astype(np.float16),
                "scenes": scenes,
                "identities": identities,
            }
            for name, values in drawn.items():
                kept[name].append(values[good])
            found += int(good.sum())
            tick(min(found, count))
            if found >= count:
                break
        if not found:
            raise DataError(
                f"None of {BATCH * (draw + 1)} pictures drawn for recipe C2 shows one person at every place."
            )
        latents_, scenes_, identities_ = (np.concatenate(kept[name])[:count] for name in ARRAYS)
        return Clones(latents=latents_, scenes=scenes_, identities=identities_)

    @torch.no_grad()
    def _draw(self, batch: TrainingBatch, seed: int) -> Tensor:
        device = next(self.trainee.parameters()).device
        condition = self.trainee.eval().prepare(batch.to(device))
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(seed)).to(device)

        def predict(latents: Tensor, timestep: int) -> Tensor:
            return self.trainee.predict(latents, torch.full((len(latents),), timestep, device=device), condition)

        return ddim.sample(self.schedule, noise, predict, ddim.trajectory(self.schedule, SAMPLING_STEPS))

    @torch.no_grad()
    def _all_match(self, latents: Tensor, batch: TrainingBatch) -> NDArray[np.bool_]:
        present = batch.regions.amax(dim=(-1, -2)) > 0
        rows, places = torch.nonzero(present, as_tuple=True)
        pictures = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        got = self.encoder(aligned_faces(pictures[rows], batch.kps5[rows, places])).cpu()
        similarity = torch.ones(present.shape)
        similarity[rows, places] = torch.nn.functional.cosine_similarity(got, batch.embeddings[rows, places], dim=-1)
        matches: NDArray[np.bool_] = (similarity.amin(dim=1) >= self.similarity).numpy()
        return matches


def save_clones(clones: Clones, folder: Path) -> None:
    """Write them so that the folder is there when it is complete."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ARRAYS:
        np.save(partial / f"{name}.npy", getattr(clones, name))
    partial.replace(folder)


def load_clones(folder: Path) -> Clones:
    """Read what `save_clones` wrote."""
    return Clones(**{name: np.load(folder / f"{name}.npy") for name in ARRAYS})
