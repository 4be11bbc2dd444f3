"""What happens to an aligned crop before an encoder sees it in training: misalignment, low resolution, light, noise.

All of it imitates what the product feeds: landmarks a little off, faces of 14 to 100 px, decoded latents.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LOW_RESOLUTION_SHARE = 0.4  # the crops are rendered at 18 to 90 px already
SMALLEST_SIDE = 10  # px of the halved crop that a 14 px face really has


def augment(crops: Tensor, generator: np.random.Generator) -> Tensor:
    """Degrade crops (B, 3, S, S) in [-1, 1]; the result has the same shape and range."""
    crops = _low_resolution(_misalign(crops, generator), generator)
    crops = _light(crops, generator)
    sigma = _uniform(generator, (len(crops), 1, 1, 1), 0.0, 0.12)
    noise = torch.from_numpy(generator.standard_normal(crops.shape, dtype=np.float32))
    return (crops + sigma * noise).clamp(-1, 1)


def _uniform(generator: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    return torch.from_numpy(generator.uniform(low, high, shape).astype(np.float32))


def _misalign(crops: Tensor, generator: np.random.Generator) -> Tensor:
    """Rotate up to 6 degrees, scale up to 8 %, shift up to 4 % of the side."""
    count = len(crops)
    angle = _uniform(generator, (count,), -0.105, 0.105)
    scale = torch.exp(_uniform(generator, (count,), -0.08, 0.08))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = _uniform(generator, (2, count), -0.08, 0.08)  # in units of half the side
    matrix = torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)
    grid = F.affine_grid(matrix, list(crops.shape), align_corners=False)
    return F.grid_sample(crops, grid, padding_mode="border", align_corners=False)


def _low_resolution(crops: Tensor, generator: np.random.Generator) -> Tensor:
    """Shrink part of the batch to a log-uniform side and enlarge it again, four sides per batch."""
    parts = []
    for part in crops.chunk(4):
        if generator.random() < LOW_RESOLUTION_SHARE:
            side = round(math.exp(generator.uniform(math.log(SMALLEST_SIDE), math.log(crops.shape[-1]))))
            small = F.interpolate(part, size=(side, side), mode="bilinear", antialias=True)
            part = F.interpolate(small, size=crops.shape[-2:], mode="bilinear")
        parts.append(part)
    return torch.cat(parts)


def _light(crops: Tensor, generator: np.random.Generator) -> Tensor:
    """Change gain by up to 18 % and white balance by up to 6 % per channel."""
    count = len(crops)
    overall = _uniform(generator, (count, 1, 1, 1), -0.18, 0.18)
    balance = _uniform(generator, (count, 3, 1, 1), -0.06, 0.06)
    gain = torch.exp(overall + balance)
    return ((crops + 1) * gain - 1).clamp(-1, 1)
