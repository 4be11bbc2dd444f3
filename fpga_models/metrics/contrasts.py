"""Does leaving a part out make it worse? Paired differences over the same faces, with an interval. Pure."""

from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from fpga_models.metrics.statistics import bootstrap_ci95

Verdict = Literal["hurts", "does not", "helps", "too few"]
FEWEST = 8  # pictures; with fewer an interval says little

Contrast = TypedDict(
    "Contrast",
    {
        "with": float,
        "without": float,
        "difference": float,
        "ci95": tuple[float, float],
        "better": Literal["higher", "lower"],
        "verdict": Verdict,
        "count": int,
    },
)
"""Means with and without a part, their difference (without - with) and its 95 % interval, redrawing whole pictures.

The verdict is about leaving the part out: it "hurts" or "helps" where the interval excludes 0, else it "does not". Of
fewer than FEWEST pictures it says "too few".
"""


def contrast(
    kept: NDArray[np.floating[Any]],
    left_out: NDArray[np.floating[Any]],
    pictures: NDArray[np.int64],
    *,
    better: Literal["higher", "lower"] = "higher",
) -> Contrast:
    """Compare one number per face (N,) with a part and without it; faces where either is NaN are left out.

    Args:
        kept, left_out: the same faces in the same order.
        pictures: (N,) the picture each face stands in.
        better: which direction is the good one.
    """
    both = np.isfinite(kept) & np.isfinite(left_out)
    change = (left_out - kept)[both]
    low, high = bootstrap_ci95(change, pictures[both])
    enough = len(np.unique(pictures[both])) >= FEWEST
    worse, improved = (high < 0, low > 0) if better == "higher" else (low > 0, high < 0)
    return {
        "with": _mean(kept[both]),
        "without": _mean(left_out[both]),
        "difference": _mean(change),
        "ci95": (low, high),
        "better": better,
        "verdict": ("hurts" if worse else "helps" if improved else "does not") if enough else "too few",
        "count": int(both.sum()),
    }


def _mean(values: NDArray[np.floating[Any]]) -> float:
    return float(values.mean()) if len(values) else 0.0
