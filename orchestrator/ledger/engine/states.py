"""The words for states and which move may follow which. Everything that may ever happen is in these two tables.

queued ──claim──▶ leased ──start──▶ running ──publish──▶ completed
   ▲                │                  │ ├──error──────▶ failed
   └──── release, lost lease, retry ───┘ └──3 crashes──▶ held ──operator──▶ queued
queued ──claim and start at once──▶ running
queued ──cancel──▶ cancelled          leased, running ──cancel──▶ cancelling ──worker confirms──▶ cancelled
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import ColumnElement, literal
from sqlalchemy.orm import InstrumentedAttribute


class State(StrEnum):
    """Where an item or one of its stages stands."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    CANCELLING = "cancelling"
    HELD = "held"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BatchState(StrEnum):
    """Where a batch stands."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: dict[State, frozenset[State]] = {
    # a worker that begins at once needs no row for the moment between
    State.QUEUED: frozenset({State.LEASED, State.RUNNING, State.CANCELLED, State.FAILED}),
    State.LEASED: frozenset({State.RUNNING, State.QUEUED, State.CANCELLING, State.FAILED, State.HELD}),
    State.RUNNING: frozenset({State.COMPLETED, State.QUEUED, State.CANCELLING, State.FAILED, State.HELD}),
    State.CANCELLING: frozenset({State.CANCELLED}),
    State.HELD: frozenset({State.QUEUED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""Moves of items and stages."""

BATCH_MOVES: dict[BatchState, frozenset[BatchState]] = {
    BatchState.VALIDATING: frozenset({BatchState.IN_PROGRESS, BatchState.FAILED, BatchState.CANCELLED}),
    BatchState.IN_PROGRESS: frozenset(set(BatchState) - {BatchState.VALIDATING, BatchState.IN_PROGRESS}),
    BatchState.PAUSED: frozenset({BatchState.IN_PROGRESS, BatchState.CANCELLING, BatchState.CANCELLED}),
    BatchState.CANCELLING: frozenset({BatchState.CANCELLED}),
    # an operator may release a held item of a batch that had ended
    BatchState.COMPLETED_WITH_ERRORS: frozenset({BatchState.IN_PROGRESS}),
    BatchState.COMPLETED: frozenset(),
    BatchState.FAILED: frozenset({BatchState.IN_PROGRESS}),
    BatchState.CANCELLED: frozenset(),
}
"""Moves of batches."""

STATES = tuple(State)
BATCH_STATES = tuple(BatchState)
LEASED = (State.LEASED, State.RUNNING, State.CANCELLING)
"""States in which a worker holds the stage."""
WAITING = (State.QUEUED, State.HELD)
"""States in which nobody holds it and it may still go on."""
ENDED = (State.COMPLETED, State.FAILED, State.CANCELLED, State.HELD)
"""States in which an item waits for nobody; `held` waits for an operator, not for a worker."""
UNENDED = tuple(state for state in State if state not in ENDED)
BAD = (State.FAILED, State.HELD)
"""Ends of an item that went wrong."""
BATCH_ENDED = (BatchState.COMPLETED, BatchState.COMPLETED_WITH_ERRORS, BatchState.FAILED, BatchState.CANCELLED)

BATCH_OPEN = tuple(state for state in BatchState if state not in BATCH_ENDED)


def among(column: InstrumentedAttribute[str], states: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a state is one of these, written out: with parameters no partial index would serve."""
    return column.in_([literal(str(state), literal_execute=True) for state in states])


def sources(target: State) -> tuple[State, ...]:
    """Return the states of items and stages from which `target` may be reached."""
    return tuple(state for state, following in MOVES.items() if target in following)


def batch_sources(target: BatchState) -> tuple[BatchState, ...]:
    """Return the states of batches from which `target` may be reached."""
    return tuple(state for state, following in BATCH_MOVES.items() if target in following)
