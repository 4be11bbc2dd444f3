"""Versions side by side: what differs and which way, beside what does not; for the page and as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from orchestrator.ledger.models import CHAMPION
from orchestrator.models.evaluations import Cell, Comparison
from orchestrator.results.reports import environment
from orchestrator.results.results_folder import write_new

WIDTH = 260.0
"""Of a plot, in CSS pixels."""
LESS_IS_BETTER = frozenset(
    {"landmark_error", "landmark_error_skeleton", "error", "seam", "leakage", "other", "distance", "colour_drift"}
)
"""Parts of a figure's name; of all others more is better."""
REFERENCES = frozenset(
    {"floor", "ceiling", "real", "autoencoder", "undamaged", "before", "n", "faces", "people", "pictures", "places"}
)
"""Last parts of names that say what a figure is measured against, or on how many: neither better nor worse."""
EQUAL = 1e-6
"""Smallest share of a figure that counts as a difference."""
Verdict = Literal["better", "worse", "within", "moved"]


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One version's figure and interval on the axis that a row shares, in pixels."""

    row: int
    x: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of every version, beside that of the version that the others are held against.

    `verdicts` says of each other version: `better` or `worse` where the two intervals lie apart, `within` where they
    meet, `moved` where the figure has no interval or no better side, and None of the version itself or without a value.
    `effect` is the largest distance over the sum of both half intervals (as a share of the figure without intervals).
    """

    name: str
    cells: tuple[Cell, ...]
    verdicts: tuple[Verdict | None, ...]
    effect: float
    plot: tuple[Dot, ...]

    @property
    def group(self) -> str:
        """What the figure belongs to."""
        return self.name.partition(".")[0]

    @property
    def judged(self) -> bool:
        """Whether a version is better or worse by this figure."""
        return bool({"better", "worse"} & set(self.verdicts))


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """A comparison as people read it: groups with differences, the largest first, and figures without one."""

    against: int
    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    alike: tuple[Row, ...]

    def count(self, version: int, verdict: Verdict) -> int:
        """Return by how many figures a version is `better` or `worse`."""
        return sum(row.verdicts[version] == verdict for _, rows in self.groups for row in rows)


def side_by_side(comparison: Comparison) -> SideBySide:
    """Hold every version against the champion, or against the first one where the champion is not among them."""
    against = next((n for n, one in enumerate(comparison.versions) if CHAMPION in one["aliases"]), 0)
    rows = [_row(name, cells, against) for name, cells in comparison.rows.items()]
    differ = [row for row in rows if set(row.verdicts) & {"better", "worse", "moved"}]
    by_group = {
        group: tuple(sorted(found, key=_rank)) for group, found in groupby(sorted(differ, key=_group), key=_group)
    }
    return SideBySide(
        against=against,
        groups=tuple(sorted(by_group.items(), key=lambda found: _rank(found[1][0]))),
        alike=tuple(row for row in rows if row not in differ),
    )


def write_comparison(path: Path, comparison: Comparison) -> Path:
    """Write the page to a new file and return its path.

    Raises:
        ConflictError: the file is there already.
        UsageError, TransientError: it cannot be written.
    """
    write_new(path, render_comparison(comparison).encode())
    return path


def render_comparison(comparison: Comparison) -> str:
    """Return the page; every text in it is escaped."""
    template = environment().get_template("comparison.html")
    return template.render(comparison=comparison, sides=side_by_side(comparison), width=WIDTH)


def plot(cells: tuple[Cell, ...]) -> tuple[Dot, ...]:
    """Return where each version's dot and interval lie on an axis that all of them share, in pixels."""
    ends = [end for cell in cells for end in (cell.value, cell.low, cell.high) if end is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = (high - low) * 0.08 or 0.5

    def x(value: float) -> float:
        return round(WIDTH * (value - low + room) / (high - low + 2 * room), 1)

    return tuple(
        Dot(
            row=row,
            x=x(cell.value),
            low=None if cell.low is None else x(cell.low),
            high=None if cell.high is None else x(cell.high),
        )
        for row, cell in enumerate(cells)
        if cell.value is not None
    )


def _row(name: str, cells: tuple[Cell, ...], against: int) -> Row:
    held = [None if n == against else _held(name, cell, cells[against]) for n, cell in enumerate(cells)]
    return Row(
        name=name,
        cells=cells,
        verdicts=tuple(one and one[0] for one in held),
        effect=max((one[1] for one in held if one), default=0.0),
        plot=plot(cells),
    )


def _held(name: str, cell: Cell, base: Cell) -> tuple[Verdict, float] | None:
    """Return the verdict on a figure beside the other version's, and how far apart they are; None without a value."""
    if cell.value is None or base.value is None:
        return None
    apart = cell.value - base.value
    share = abs(apart) / (max(abs(cell.value), abs(base.value)) or 1.0)
    if cell.low is None or cell.high is None or base.low is None or base.high is None:
        return ("moved" if share > EQUAL else "within"), share
    effect = abs(apart) / ((cell.high - cell.low + base.high - base.low) / 2 or 1.0)
    if cell.low <= base.high and base.low <= cell.high:
        return "within", effect
    parts = name.split(".")
    if parts[-1] in REFERENCES:
        return "moved", effect
    return ("better" if (apart > 0) != bool(LESS_IS_BETTER & set(parts)) else "worse"), effect


def _group(row: Row) -> str:
    return row.group


def _rank(row: Row) -> tuple[bool, float, str]:
    return not row.judged, -row.effect, row.name
