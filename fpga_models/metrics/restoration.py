"""What a restoration won back and what it cost: similarity by face size, and the picture outside the masks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from fpga_models.metrics.statistics import bootstrap_ci95

Floats = NDArray[np.floating[Any]]
Picture = NDArray[np.uint8] | NDArray[np.uint16]
BIN_EDGES = (0, 12, 16, 20, 24, 28, 40, 64)
"""Lower bounds of the face-size bins in px; the last one is open."""
SMALL = (16, 28)
"""Faces of these px, both included, are the small ones that DIIR is for."""
SSIM_WINDOW = 7


@dataclass(frozen=True, kw_only=True)
class WonBack:
    """Similarity of a set of faces before and after, beside the one of undamaged faces.

    Attributes:
        share: (after - before) / (ceiling - before) of the means; 0 where nothing was lost.
        ci95: of the share, redrawing faces.
        count: faces.
    """

    count: int
    before: float
    after: float
    ceiling: float
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Background:
    """The picture where no mask lies.

    Attributes:
        changed_pixels: pixels that differ at all.
        max_change: largest difference of a channel, in steps of the picture's type.
        psnr: dB; None where nothing differs.
        ssim: mean over the windows centred there, 1 where nothing differs.
    """

    changed_pixels: int
    max_change: int
    psnr: float | None
    ssim: float


def won_back(before: Floats, after: Floats, ceiling: Floats) -> WonBack:
    """Share of the lost similarity that came back, over faces (N,) of cosines.

    Args:
        before: of the damaged faces, 0 where none was found.
        after: of the same faces restored.
        ceiling: of the same faces undamaged.
    """
    gained, lost = after - before, ceiling - before
    return WonBack(
        count=len(before),
        before=_mean(before),
        after=_mean(after),
        ceiling=_mean(ceiling),
        share=_share(float(gained.sum()), float(lost.sum())),
        ci95=_share_ci95(gained, lost),
    )


def by_size(sizes: Floats, before: Floats, after: Floats, ceiling: Floats) -> dict[str, WonBack]:
    """`won_back` per bin of the longer side of the face box (N,) in px; empty bins are left out."""
    bins = size_bins(sizes)
    return {name: won_back(before[chosen], after[chosen], ceiling[chosen]) for name, chosen in bins.items()}


def size_bins(sizes: Floats, edges: Sequence[float] = BIN_EDGES) -> dict[str, NDArray[np.bool_]]:
    """Which faces (N,) fall into each bin of their size in px, by its name; empty bins are left out."""
    bins = np.digitize(sizes, edges) - 1
    result = {}
    for index, low in enumerate(edges):
        chosen = bins == index
        if chosen.any():
            name = f"{low:g}-{edges[index + 1]:g}" if index + 1 < len(edges) else f"{low:g}+"
            result[name] = chosen
    return result


def small(sizes: Floats) -> NDArray[np.bool_]:
    """Which faces (N,) are small ones."""
    return np.asarray((sizes >= SMALL[0]) & (sizes <= SMALL[1]))


def background(original: Picture, restored: Picture, mask: Floats) -> Background:
    """Compare two pictures of one shape and type where `mask` (H, W) is 0.

    Raises:
        ValueError: shapes or types differ.
    """
    if original.shape != restored.shape or original.dtype != restored.dtype or mask.shape != original.shape[:2]:
        raise ValueError(
            f"one shape and type is wanted, got {original.dtype} {original.shape}, {restored.dtype} {restored.shape} "
            f"and a mask {mask.shape}"
        )
    outside = mask == 0
    if not outside.any():
        return Background(changed_pixels=0, max_change=0, psnr=None, ssim=1.0)
    planes = [p[..., None] if p.ndim == 2 else p for p in (original, restored)]
    difference = np.abs(planes[0][outside].astype(np.int64) - planes[1][outside])  # (N, C)
    error = float((difference.astype(np.float64) ** 2).mean())
    peak = float(np.iinfo(original.dtype).max)
    return Background(
        changed_pixels=int(difference.any(axis=1).sum()),
        max_change=int(difference.max()),
        psnr=10 * float(np.log10(peak**2 / error)) if error else None,
        ssim=_ssim_outside(planes[0], planes[1], outside),
    )


def border_gradient_ratio(original: Picture, restored: Picture, mask: Floats) -> float:
    """Gradient energy on the ring 0 < mask < 0.5, restored over original: about 1 without a seam, more with one.

    1 where there is no ring, or no gradient on it in either picture.
    """
    ring = (mask > 0) & (mask < 0.5)
    if not ring.any():
        return 1.0
    energies = [float(_gradient_energy(picture)[ring].mean()) for picture in (original, restored)]
    if energies[0] == 0:
        return 1.0 if energies[1] == 0 else float("inf")
    return energies[1] / energies[0]


def _gradient_energy(picture: Picture) -> Floats:
    """(H, W) squared gradient of the brightness."""
    values = picture.astype(np.float64)
    grey = values if values.ndim == 2 else np.mean(values[..., :3], axis=2)
    down, right = np.gradient(grey)
    energy: Floats = down**2 + right**2
    return energy


def _ssim_outside(original: Picture, restored: Picture, outside: NDArray[np.bool_]) -> float:
    if min(original.shape[:2]) < SSIM_WINDOW:
        return 1.0 if np.array_equal(original[outside], restored[outside]) else 0.0
    # Inside the mask the pictures may differ; there the original stands in, so that no window sees the edit.
    hidden = np.where(outside[..., None], restored, original)
    _, similarity = structural_similarity(
        original, hidden, win_size=SSIM_WINDOW, channel_axis=2, full=True, data_range=np.iinfo(original.dtype).max
    )
    return float(similarity[outside].mean())


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _share(gained: float, lost: float) -> float:
    return gained / lost if lost > 0 else 0.0


def _share_ci95(gained: Floats, lost: Floats) -> tuple[float, float]:
    """Interval of a ratio of means: that of gained - share * lost, over the mean loss (Fieller's linearisation)."""
    if len(gained) == 0 or lost.sum() <= 0:
        return (0.0, 0.0)
    share = _share(float(gained.sum()), float(lost.sum()))
    residual = (gained - share * lost).astype(np.float32)
    low, high = bootstrap_ci95(residual)
    return share + low / float(lost.mean()), share + high / float(lost.mean())
