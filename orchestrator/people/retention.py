"""The cleaner: lets go of what was kept as long as the settings say. Without days in a setting nothing of it goes.

People go by an erase with its receipt; bytes are marked, and the sweeper removes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from orchestrator import logs
from orchestrator.errors import NotFoundError
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.privacy import retention
from orchestrator.ledger.privacy.retention import Due
from orchestrator.people import identities
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore


@dataclass(frozen=True, kw_only=True)
class Class:
    """One class of what is kept: for how many days (0 is for ever), what is due now, and its bytes."""

    name: str
    days: int
    count: int
    size: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line prints."""
        return {"class": self.name, "days": self.days, "due": self.count, "bytes": self.size}


def clean(ledger: Ledger, store: ByteStore, settings: Settings, *, dry_run: bool = False) -> list[Class]:
    """Let go of everything that is due, and return what that was; a dry run only looks.

    A person who cannot be erased now keeps nobody else from it; the next look tries again.
    """
    with ledger.read() as session:
        moment = now(session)
        people = (
            retention.idle_people(session, moment - timedelta(days=settings.keep_people_days))
            if settings.keep_people_days
            else []
        )
        nothing = Due(artifact_ids=[], size=0)
        outputs, originals = (
            look(session, moment - timedelta(days=days)) if days else nothing
            for look, days in (
                (retention.old_outputs, settings.keep_outputs_days),
                (retention.old_originals, settings.keep_originals_days),
            )
        )
    if not dry_run:
        for owner, identity_id in people:
            with logs.surviving("person not erased", identity=identity_id):
                _erase(ledger, store, settings, owner, identity_id)
        retention.expire(ledger, [*outputs.artifact_ids, *originals.artifact_ids])
    return [
        Class(name="people", days=settings.keep_people_days, count=len(people)),
        Class(name="outputs", days=settings.keep_outputs_days, count=len(outputs.artifact_ids), size=outputs.size),
        Class(
            name="originals", days=settings.keep_originals_days, count=len(originals.artifact_ids), size=originals.size
        ),
    ]


def _erase(ledger: Ledger, store: ByteStore, settings: Settings, owner: str, identity_id: str) -> None:
    path = settings.state_dir / "receipts" / f"{identity_id}.json"
    identities.check_receipt_path(path)
    try:
        receipt = identities.erase(ledger, store, settings, owner, identity_id)
    except NotFoundError:  # somebody was faster
        return
    identities.write_receipt(receipt, path)
