"""Who did what to whom, append-only: every row carries the hash of the row before it, so a change shows."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from orchestrator.ledger.rows import Audit

GENESIS = "0" * 64
LOCK = 8_240_924


def write(session: Session, actor: str, action: str, ref: str, detail: dict[str, Any], moment: datetime) -> None:
    """Append a row inside the caller's transaction; `detail` must hold no names, prompts or embeddings."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    previous = session.scalar(select(Audit.hash).order_by(Audit.id.desc()).limit(1)) or GENESIS
    row = Audit(owner=actor, at=moment, actor=actor, action=action, ref=ref, detail=detail, previous=previous, hash="")
    row.hash = digest(row)
    session.add(row)
    session.flush()


def last(session: Session, ref: str, action: str) -> Audit | None:
    """Return the newest row about `ref` with this action, or None."""
    return session.scalars(
        select(Audit).where(Audit.ref == ref, Audit.action == action).order_by(Audit.id.desc()).limit(1)
    ).first()


def digest(row: Audit) -> str:
    """Return the sha256 over everything the row says and the hash of the row before."""
    said = [row.previous, row.at.isoformat(), row.actor, row.action, row.ref, row.detail]
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verify(session: Session) -> int | None:
    """Return the id of the first row that does not follow from the one before it, or None when all do."""
    previous = GENESIS
    for row in session.scalars(select(Audit).order_by(Audit.id)):
        if row.previous != previous or row.hash != digest(row):
            return row.id
        previous = row.hash
    return None
