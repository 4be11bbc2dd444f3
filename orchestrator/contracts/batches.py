"""What every batch may be told, whatever its kind."""

from __future__ import annotations

from typing import Literal

from orchestrator.contracts.base import Contract

Lane = Literal["interactive", "bulk"]
"""What people may choose; training runs have a lane of their own."""


class BatchOptions(Contract):
    """The options that the queue itself heeds; each kind adds its own.

    Attributes:
        stop_after: so many items may go wrong before it pauses.
        forgiven: so many of them a resume has forgiven.
        pinned: it keeps its model version whatever is promoted meanwhile.
        retries: it makes again what failed in its parent.
        people_of: the batch whose people were found in its archive; a retry or redo looks for nobody itself.
    """

    stop_after: int | None = None
    forgiven: int = 0
    pinned: bool = False
    people_of: str | None = None
    retries: bool = False
