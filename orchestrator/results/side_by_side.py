"""What champion and candidate made of the same items, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.portraits.candidate import Pair, Side
from orchestrator.results.contact_sheet import VERDICTS
from orchestrator.results.reports import environment
from orchestrator.results.results_folder import write_new


def write_side_by_side(path: Path, title: str, pairs: Sequence[Pair]) -> Path:
    """Write the page to a new file and return its path.

    Raises:
        ConflictError: the file is there already.
        UsageError, TransientError: it cannot be written.
    """
    write_new(path, render_side_by_side(title, pairs).encode())
    return path


def render_side_by_side(title: str, pairs: Sequence[Pair]) -> str:
    """Return the page; every text in it is escaped."""
    sides = {
        "champion": _summary([pair.champion for pair in pairs]),
        "candidate": _summary([pair.candidate for pair in pairs]),
    }
    page = environment().get_template("side_by_side.html")
    return page.render(title=title, pairs=pairs, sides=sides, words=VERDICTS)


def _summary(sides: Sequence[Side]) -> dict[str, object]:
    measured = [side.similarity for side in sides if side.similarity is not None]
    return {
        "versions": sorted({side.version for side in sides}),
        "accepted": sum(side.verdict == "accepted" for side in sides),
        "total": len(sides),
        "similarity": sum(measured) / len(measured) if measured else None,
    }
