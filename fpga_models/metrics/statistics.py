"""Bootstrap intervals and the share of the way from floor to ceiling. Pure."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Numbers = NDArray[np.floating] | NDArray[np.bool_]
DRAWS = 2000


def bootstrap_ci95(values: Numbers, groups: NDArray[np.int64] | None = None, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` (N,).

    Args:
        values: one number per face.
        groups: (N,) the picture each face stands in; whole pictures are redrawn, since their faces hang together.
        seed: of the resampling.
    """
    if len(values) == 0:
        return (0.0, 0.0)
    members = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(members, weights=values)
    sizes = np.bincount(members)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return (float(low), float(high))


def share_of_way(value: float, floor: float, ceiling: float) -> float:
    """Return how far `value` got from `floor` (0) to `ceiling` (1); 0 where the two do not differ."""
    return (value - floor) / (ceiling - floor) if ceiling > floor else 0.0


def bootstrap_ratio_ci95(above: Numbers, below: Numbers, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of mean(above) / mean(below), redrawing pairs of (N,) and (N,)."""
    if len(above) == 0:
        return (0.0, 0.0)
    drawn = np.random.default_rng(seed).integers(0, len(above), (DRAWS, len(above)))
    bottoms = below[drawn].sum(1)
    ratios = above[drawn].sum(1)[bottoms > 0] / bottoms[bottoms > 0]
    if len(ratios) == 0:
        return (0.0, 0.0)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return (float(low), float(high))
