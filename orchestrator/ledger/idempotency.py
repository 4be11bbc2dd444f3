"""First answers to requests with an idempotency key, kept for a day per owner."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, update

from orchestrator.errors import ConflictError
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.tables.rows_api import KeptAnswer

KEPT = timedelta(hours=24)
GIVEN_UP = timedelta(minutes=5)
"""A request without an answer after so long died with its server; the next one takes over."""


@retrying
def begin(ledger: Ledger, owner: str, key: str, request_sha256: str) -> KeptAnswer | None:
    """Claim a key for a request, or return the answer that was given to it before.

    Raises:
        ConflictError: another request has this key, or the same one still runs.
    """
    with ledger.write() as session:
        moment = now(session)
        session.execute(delete(KeptAnswer).where(KeptAnswer.owner == owner, KeptAnswer.created_at < moment - KEPT))
        row = session.get(KeptAnswer, (owner, key), with_for_update=True)
        if row is not None and row.request_sha256 != request_sha256:
            raise ConflictError("this idempotency key belongs to another request", code="idempotency_conflict")
        if row is not None and row.status is not None:
            return row
        if row is not None and row.created_at > moment - GIVEN_UP:
            raise ConflictError("the same request is still under way", code="request_in_progress")
        if row is not None:
            row.created_at = moment
        else:
            session.add(KeptAnswer(owner=owner, key=key, request_sha256=request_sha256, created_at=moment))
        return None


@retrying
def keep(ledger: Ledger, owner: str, key: str, *, status: int, location: str | None, body: dict[str, Any]) -> None:
    """Keep the answer."""
    with ledger.write() as session:
        session.execute(
            update(KeptAnswer)
            .where(KeptAnswer.owner == owner, KeptAnswer.key == key)
            .values(status=status, location=location, body=body)
        )


@retrying
def forget(ledger: Ledger, owner: str, key: str) -> None:
    """Let the key be used again."""
    with ledger.write() as session:
        session.execute(delete(KeptAnswer).where(KeptAnswer.owner == owner, KeptAnswer.key == key))
