"""A worker inside the test's own process: the same claims, leases and stages, without Celery around them."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ledger.queue import sweeper
from workers.runtime.process import Process


def work(process: Process, until: Callable[[], bool], rounds: int = 200) -> None:
    """Work off what is due, with a sweep before each look, until something holds."""
    for _ in range(rounds):
        sweeper.sweep(process.ledger, process.settings)
        process.run()
        if until():
            return
    raise AssertionError(f"{rounds} rounds in vain")
