"""Does at once what a sweeper does every few seconds, whoever leads: for a deployment whose sweeper is away.

Lost leases are taken back, ended batches closed, expired bytes removed, due effects delivered, workers woken. Nothing
here can harm a deployment that is well: every step is conditional on the rows being as the query found them.
"""

from __future__ import annotations

from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import sweeper
from orchestrator.runtime import dispatch
from orchestrator.runtime.sweeping import remove_expired
from orchestrator.settings import Settings
from orchestrator.storage import open_store


def repair(settings: Settings) -> list[str]:
    """Repair what a query can see and return a sentence for each thing that was done.

    Raises:
        TransientError: database or store do not answer.
    """
    ledger = Ledger.of(settings)
    try:
        swept = sweeper.sweep(ledger, settings)
        removed = 0
        while count := remove_expired(ledger, open_store(settings)):
            removed += count
        dispatch.deliver(ledger, settings)
        woken = dispatch.ring(ledger, settings)
    finally:
        ledger.dispose()
    done = {
        "lost leases were taken back": swept.requeued,
        "items were held, having killed their worker too often": swept.held,
        "cancels were ended": swept.cancelled,
        "batches were closed": len(swept.closed),
        "expired objects were removed": removed,
        "hints were sent": woken,
    }
    return [f"{count} {what}" for what, count in done.items() if count]
