"""Faces of decoded pictures, with gradients: for the identity loss, the loss of the eyes, and for picking clones.

`L_id = 1 - cos(F(face of the decoded x0 estimate), e)` [field: PuLID], F the recogniser that conditions the generator,
never the one that judges it. `L_eyes` compares the band of eyes and brows with the true one [field: GHOST's eye loss].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from insightface.utils.face_align import arcface_dst
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fpga_models.core.alignment import CROP_SIDE, similarity
from fpga_models.core.autoencoder import Autoencoder
from fpga_models.mmf.losses import cosine_loss
from fpga_models.mmf.samples.batch import TrainingBatch

EYE_BAND = slice(32, 64), slice(22, 90)
"""Rows and columns of ArcFace's frame with both eyes and brows, glasses too [ours]."""
FaceEncoder = Callable[[Tensor], Tensor]
"""Embeddings (N, E) of aligned crops (N, 3, 112, 112), RGB in [-1, 1]."""


def aligned_faces(pictures: Tensor, kps5: Tensor) -> Tensor:
    """Faces of pictures (N, 3, H, W) at landmarks (N, 5, 2) px in ArcFace's frame, (N, 3, 112, 112); as `align` cuts.

    Black (-1) outside the picture.
    """
    grids = [sampling_grid(points, pictures.shape[-2:]) for points in kps5.detach().cpu().double().numpy()]
    grid = torch.from_numpy(np.stack(grids)).to(pictures)
    return F.grid_sample(pictures + 1, grid, align_corners=False) - 1


def sampling_grid(points: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Where each pixel of the aligned crop comes from, (112, 112, 2) in grid_sample's coordinates."""
    matrix = similarity(points - 0.5, np.asarray(arcface_dst, np.float64))
    inverse = np.linalg.inv(matrix[:, :2])
    across, down = np.meshgrid(np.arange(CROP_SIDE), np.arange(CROP_SIDE))
    source = (np.stack([across, down], axis=-1) - matrix[:, 2]) @ inverse.T
    grid: NDArray[np.float64] = 2 * (source + 0.5) / np.array([size[1], size[0]]) - 1
    return grid


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenFaces:
    """Which faces of a batch are looked at in decoded pictures: all of at most `pictures` samples.

    Attributes:
        smallest_eyes: faces with a smaller distance of the eyes, in px, do not count.
    """

    vae: Autoencoder
    pictures: int = 12
    smallest_eyes: float = 6.5

    def of(self, batch: TrainingBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (B',) to decode, and for each face its row among them (N,) and its person (N,)."""
        known = (batch.embeddings.abs().amax(dim=-1) > 0) & (batch.regions.amax(dim=(-1, -2)) > 0)
        eyes = (batch.kps5[:, :, 1] - batch.kps5[:, :, 0]).norm(dim=-1)  # (B, K)
        counted = known & (eyes >= self.smallest_eyes)
        rows = torch.nonzero(counted.any(dim=1))[: self.pictures, 0]
        where, who = torch.nonzero(counted[rows], as_tuple=True)
        return rows, where, who

    def cut(self, latents: Tensor, kps5: Tensor, where: Tensor, who: Tensor) -> Tensor:
        """Decode latents (B', C, h, w) and align their faces, (N, 3, 112, 112); kps5 (B', K, 5, 2) px."""
        pictures = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return aligned_faces(pictures[where], kps5[where, who])


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedIdentity(SeenFaces):
    """The identity loss of estimated clean latents."""

    encoder: FaceEncoder

    def __call__(self, clean: Tensor, batch: TrainingBatch) -> Tensor:
        """Mean of 1 - cosine over the faces looked at in `clean` (B, C, h, w); 0 if there is none."""
        rows, where, who = self.of(batch)
        if not len(rows):
            return clean.sum() * 0
        faces = self.cut(clean[rows], batch.kps5[rows], where, who)
        return cosine_loss(self.encoder(faces), batch.embeddings[rows[where], who])


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedEyes(SeenFaces):
    """The loss of eyes and brows of estimated clean latents, beside the batch's own latents decoded likewise."""

    pictures: int = 8

    def __call__(self, clean: Tensor, batch: TrainingBatch) -> Tensor:
        """Mean squared difference of `clean` (B, C, h, w) in the band, pixels in [-1, 1]; 0 if no face is looked at."""
        rows, where, who = self.of(batch)
        if not len(rows):
            return clean.sum() * 0
        kps5 = batch.kps5[rows]
        with torch.no_grad():
            true = self.cut(batch.latents[rows], kps5, where, who)
        made = self.cut(clean[rows], kps5, where, who)
        return F.mse_loss(made[..., *EYE_BAND], true[..., *EYE_BAND])
