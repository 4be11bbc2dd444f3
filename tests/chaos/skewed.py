"""A sweeper whose clock is wrong: `python -m tests.chaos.skewed SECONDS`."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, tzinfo

import orchestrator.ledger.engine.session
from orchestrator.runtime import sweeping

SKEW = timedelta(seconds=float(sys.argv[1]))


class Wrong(datetime):
    """The time, and a constant error."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime will do
        return datetime.now(tz) + SKEW


orchestrator.ledger.engine.session.datetime = Wrong  # type: ignore[misc]  # on purpose
sweeping.main()
