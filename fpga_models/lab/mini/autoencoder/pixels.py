"""What a decoded picture is held against: differences of pixels, of their slopes and of the strength of edges.

What pixels cannot tell is drawn blurred, so the strength of edges counts besides, wherever they lie [field: gradient
variance loss, Abrahamyan et al. 2022]. Faces and eyes count more than the rest [ours].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fpga_models.idzoom.scenes import Scenes


@dataclass(frozen=True, kw_only=True)
class PixelLoss:
    """Weights of the loss [ours].

    Attributes:
        face_weight, largest_weight: of a pixel in a face of `plain_face` px and more, and in the smallest faces.
        eye_weight: what pixels around the eyes are weighted with besides.
        edge_weight: of the difference in strength of edges, over `edge_window` px.
    """

    face_weight: float = 2.0
    largest_weight: float = 8.0
    plain_face: float = 64.0
    eye_weight: float = 5.0
    gradient_weight: float = 0.5
    edge_weight: float = 1.5
    edge_window: int = 4


def pixel_weights(scenes: Scenes, index: int, loss: PixelLoss) -> NDArray[np.float32]:
    """Weight of every pixel (H, W) of a scene: small faces count more, eyes most."""
    weights = np.ones(scenes.images.shape[1:3], np.float32)
    for place in range(scenes.count[index]):
        x0, y0, x1, y1 = np.rint(scenes.box[index, place]).astype(int)
        size = max(x1 - x0, y1 - y0, 1)
        weight = np.clip(loss.face_weight * loss.plain_face / size, loss.face_weight, loss.largest_weight)
        weights[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = weight
        left, right = scenes.kps5[index, place, :2]
        reach = max(0.25 * float(np.linalg.norm(right - left)), 1.0)
        for eye in (left, right):
            low, high = (
                np.maximum(np.floor(eye - reach), 0).astype(int),
                np.maximum(np.ceil(eye + reach), 0).astype(int),
            )
            weights[low[1] : high[1], low[0] : high[0]] = weight * loss.eye_weight
    return weights


def reconstruction_loss(made: Tensor, wanted: Tensor, weights: Tensor, gradient_weight: float) -> Tensor:
    """Weighted L1 + L2 of pixels plus L1 of their horizontal and vertical differences.

    Args:
        made, wanted: (B, 3, H, W), in [-1, 1].
        weights: (B, 1, H, W), how much each pixel counts.
        gradient_weight: of the differences.
    """
    error = made - wanted
    plain = (weights * (error.abs() + error.square())).mean()
    across = (weights[..., 1:] * error.diff(dim=-1).abs()).mean()
    down = (weights[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    return plain + gradient_weight * (across + down)


def edges(pixels: Tensor, window: int) -> Tensor:
    """Strength of edges (B, 3, h, w) in overlapping windows of pixels (B, 3, H, W): root mean square of differences."""
    across, down = pixels.diff(dim=-1)[..., 1:, :], pixels.diff(dim=-2)[..., 1:]
    return (F.avg_pool2d(across.square() + down.square(), window, stride=window // 2) + 1e-5).sqrt()


def sharp_loss(made: Tensor, real: Tensor, weights: Tensor, loss: PixelLoss) -> Tensor:
    """Difference of pixels (B, 3, H, W) and of the strength of edges, weighted by (B, 1, H, W)."""
    total = reconstruction_loss(made, real, weights, loss.gradient_weight)
    if loss.edge_weight:
        window = loss.edge_window
        looked = F.avg_pool2d(weights[..., 1:, 1:], window, stride=window // 2)
        stronger = (looked * (edges(made, window) - edges(real, window)).abs()).mean()
        total = total + loss.edge_weight * stronger
    return total / weights.mean()
