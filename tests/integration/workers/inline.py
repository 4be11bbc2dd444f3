"""A worker inside the test's own process: the same claims, leases and stages, without Celery around them."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.ledger.queue import sweeper
from workers.runtime.process import Process

QUEUES = ("cpu.io", "gpu.restore", "gpu.generate")


def work(process: Process, until: Callable[[], bool], rounds: int = 200) -> None:
    """Run every queue in turn, with a sweep between them, until something holds."""
    for _ in range(rounds):
        sweeper.sweep(process.ledger, process.settings)
        for queue in QUEUES:
            process.run(queue)
        if until():
            return
    raise AssertionError(f"{rounds} rounds in vain")
