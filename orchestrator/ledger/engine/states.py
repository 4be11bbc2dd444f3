"""The words for states and which move may follow which. Everything that may ever happen is in these two tables.

queued ──claim──▶ leased ──start──▶ running ──publish──▶ completed
   ▲                │                  │ ├──error──────▶ failed
   └──── release, lost lease, retry ───┘ └──3 crashes──▶ held ──operator──▶ queued
queued ──cancel──▶ cancelled          leased, running ──cancel──▶ cancelling ──worker confirms──▶ cancelled
"""

from __future__ import annotations

MOVES: dict[str, frozenset[str]] = {
    "queued": frozenset({"leased", "cancelled", "failed"}),
    "leased": frozenset({"running", "queued", "cancelling", "failed", "held"}),
    "running": frozenset({"completed", "queued", "cancelling", "failed", "held"}),
    "cancelling": frozenset({"cancelled"}),
    "held": frozenset({"queued", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""Moves of items and stages."""

BATCH_MOVES: dict[str, frozenset[str]] = {
    "validating": frozenset({"in_progress", "failed", "cancelled"}),
    "in_progress": frozenset({"paused", "cancelling", "completed", "completed_with_errors", "failed", "cancelled"}),
    "paused": frozenset({"in_progress", "cancelling", "cancelled"}),
    "cancelling": frozenset({"cancelled"}),
    # an operator may release a held item of a batch that had ended
    "completed_with_errors": frozenset({"in_progress"}),
    "completed": frozenset(),
    "failed": frozenset({"in_progress"}),
    "cancelled": frozenset(),
}
"""Moves of batches."""

STATES = tuple(MOVES)
BATCH_STATES = tuple(BATCH_MOVES)
LEASED = ("leased", "running", "cancelling")
"""States in which a worker holds the stage."""
ENDED = ("completed", "failed", "cancelled", "held")
"""States in which an item waits for nobody; `held` waits for an operator, not for a worker."""
BAD = ("failed", "held")
"""Ends of an item that went wrong."""
BATCH_ENDED = ("completed", "completed_with_errors", "failed", "cancelled")


def sources(target: str, *, batch: bool = False) -> tuple[str, ...]:
    """Return the states from which `target` may be reached."""
    moves = BATCH_MOVES if batch else MOVES
    return tuple(state for state, following in moves.items() if target in following)
