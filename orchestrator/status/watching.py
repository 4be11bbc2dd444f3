"""One loop for whoever waits until the ledger says that something has ended: flows and commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import TransientError

T = TypeVar("T")
LOOK_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0


def until(
    look: Callable[[], T],
    ended: Callable[[T], bool],
    tell: Callable[[T], None],
    *,
    away: Callable[[TransientError], None] | None = None,
    longest: float = LOOK_SECONDS,
) -> T:
    """Look again and again until it has ended, telling every look; return the last one.

    Args:
        look: reads the ledger.
        ended: whether this look is the last.
        tell: is given every look, the last one too.
        away: is told that the ledger does not answer, which is waited for; without it that is raised.
        longest: seconds that the pause between two looks grows to, from half a second.
    """
    pause = LOOK_SECONDS
    while True:
        try:
            found = look()
        except TransientError as error:
            if away is None:
                raise
            away(error)
        else:
            tell(found)
            if ended(found):
                return found
        time.sleep(pause)
        pause = min(longest, pause * 1.2)


class Tenths:
    """Says once for each tenth that more of something is done."""

    def __init__(self) -> None:
        self._shown = -1

    def came(self, done: int, total: int) -> bool:
        """Return whether another tenth is done since the last call."""
        tenth = 10 * done // max(1, total)
        before, self._shown = self._shown, max(self._shown, tenth)
        return tenth > before
