"""One loop for whoever waits until the ledger says that something has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import TransientError

T = TypeVar("T")
LOOK_SECONDS = 0.5


def until(
    look: Callable[[], T],
    ended: Callable[[T], bool],
    tell: Callable[[T], None],
    *,
    away: Callable[[TransientError], None] | None = None,
) -> T:
    """Look again and again until it has ended, telling every look; return the last one.

    Args:
        look: reads the ledger.
        ended: whether this look is the last.
        tell: is given every look, the last one too.
        away: is told that the ledger does not answer, which is waited for; without it that is raised.
    """
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
        time.sleep(LOOK_SECONDS)
