"""The cleaner: lets go of what was kept as long as the settings say. Without days in a setting nothing of it goes.

People go by an erase with its receipt; bytes are marked, and the sweeper removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

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
    """Let go of everything that is due, look after look, and return what that was; a dry run only looks.

    Each look ends its transactions. A person who cannot be erased now keeps nobody else from it; the next time tries
    again.
    """
    people = _people(ledger, store, settings, dry_run=dry_run)
    outputs = _bytes(ledger, retention.old_outputs, settings.keep_outputs_days, dry_run=dry_run)
    originals = _bytes(ledger, retention.old_originals, settings.keep_originals_days, dry_run=dry_run)
    return [
        Class(name="people", days=settings.keep_people_days, count=people),
        Class(name="outputs", days=settings.keep_outputs_days, count=len(outputs), size=sum(outputs.values())),
        Class(name="originals", days=settings.keep_originals_days, count=len(originals), size=sum(originals.values())),
    ]


def _people(ledger: Ledger, store: ByteStore, settings: Settings, *, dry_run: bool) -> int:
    """Erase everybody whom nobody used for so long, and return how many those were."""
    count, after = 0, ""
    while settings.keep_people_days:
        with ledger.read() as session:
            before = now(session) - timedelta(days=settings.keep_people_days)
            found = retention.idle_people(session, before, after)
        if not found:
            break
        for owner, identity_id in found:
            if not dry_run:
                with logs.surviving("person not erased", identity=identity_id):
                    _erase(ledger, store, settings, owner, identity_id)
        count, after = count + len(found), found[-1][1]
    return count


def _bytes(
    ledger: Ledger, look: Callable[[Session, datetime, str], Due], days: int, *, dry_run: bool
) -> dict[str, int]:
    """Let go of the bytes of one class, and return the size of each by its artifact."""
    found: dict[str, int] = {}
    after: str | None = "" if days else None
    while after is not None:
        with ledger.read() as session:
            due = look(session, now(session) - timedelta(days=days), after)
        if not dry_run:
            retention.expire(ledger, list(due.sizes))
        found, after = found | due.sizes, due.last
    return found


def _erase(ledger: Ledger, store: ByteStore, settings: Settings, owner: str, identity_id: str) -> None:
    path = settings.state_dir / "receipts" / f"{identity_id}.json"
    identities.check_receipt_path(path)
    try:
        receipt = identities.erase(ledger, store, settings, owner, identity_id)
    except NotFoundError:  # somebody was faster
        return
    identities.write_receipt(receipt, path)
