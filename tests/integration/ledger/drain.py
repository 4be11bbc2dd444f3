"""A worker without networks: claims and publishes until nothing is due, then prints what it did as JSON.

`python -m tests.integration.ledger.drain URL NAME`
"""

from __future__ import annotations

import json
import sys

from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, outcomes
from tests.integration.ledger.helpers import LEASE, end


def drain(url: str, worker: str) -> list[tuple[int, int]]:
    """Work the queue dry and return (stage id, token) of everything published."""
    ledger = Ledger(url)
    done: list[tuple[int, int]] = []
    while held := claims.claim(ledger, worker_id=worker, queues=["cpu.io"], limit=3, lease_seconds=LEASE):
        for c in claims.start(ledger, held):
            outcomes.publish(ledger, c, end)
            done.append((c.stage_id, c.token))
    ledger.dispose()
    return done


if __name__ == "__main__":
    json.dump(drain(*sys.argv[1:]), sys.stdout)
