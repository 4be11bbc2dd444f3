"""Versions side by side as one self-contained HTML page: every figure as numbers and as a plot with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.models.evaluations import Cell, Comparison
from orchestrator.results.reports import environment
from orchestrator.results.results_folder import write_new

WIDTH = 260.0
"""Of a plot, in CSS pixels."""


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
    rows = [{"name": name, "cells": cells, "plot": plot(cells)} for name, cells in comparison.rows.items()]
    return environment().get_template("comparison.html").render(comparison=comparison, rows=rows, width=WIDTH)


def plot(cells: tuple[Cell, ...]) -> list[dict[str, Any]]:
    """Return where each version's dot and interval lie on an axis that all of them share, in pixels."""
    ends = [end for cell in cells for end in (cell.value, cell.low, cell.high) if end is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = (high - low) * 0.08 or 0.5

    def x(value: float | None) -> float | None:
        return None if value is None else round(WIDTH * (value - low + room) / (high - low + 2 * room), 1)

    return [
        {"row": row, "x": x(cell.value), "low": x(cell.low), "high": x(cell.high)}
        for row, cell in enumerate(cells)
        if cell.value is not None
    ]
