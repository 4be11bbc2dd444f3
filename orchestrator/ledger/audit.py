"""Who did what to whom, append-only: every row carries the hash of the row before it, so a change shows.

Triggers of the database refuse to change or delete a row. Whoever can drop them still breaks the chain, and the head
row says where it ends, so that rows missing at the end show too. Somebody who rewrites chain and head together is
found by comparing with a hash kept elsewhere: every signed receipt of an erase holds one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.contracts.base import digest
from orchestrator.ledger.tables.rows import Audit, AuditHead

GENESIS = "0" * 64
HEAD = "audit"


def write(session: Session, actor: str, action: str, ref: str, detail: dict[str, Any], moment: datetime) -> None:
    """Append a row inside the caller's transaction; `detail` must hold no names, prompts or embeddings."""
    # the lock on the head row keeps two writers on PostgreSQL from following the same row
    head = session.get_one(AuditHead, HEAD, with_for_update=True, populate_existing=True)
    row = Audit(owner=actor, at=moment, actor=actor, action=action, ref=ref, detail=detail, previous=head.hash, hash="")
    row.hash = row_hash(row)
    session.add(row)
    session.flush()
    head.audit_id, head.hash = row.id, row.hash
    session.flush()


def last(session: Session, ref: str, action: str) -> Audit | None:
    """Return the newest row about `ref` with this action, or None."""
    return session.scalars(
        select(Audit).where(Audit.ref == ref, Audit.action == action).order_by(Audit.id.desc()).limit(1)
    ).first()


def row_hash(row: Audit) -> str:
    """Return the sha256 over everything the row says and the hash of the row before."""
    said = [row.previous, row.at.isoformat(), row.actor, row.action, row.ref, row.detail]
    return digest(said, ascii=True)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a look at the whole chain came to: rows read, the hash at its end, and the first row that is wrong."""

    rows: int
    head: str
    broken: int | None = None


def verify(session: Session, *, anchor: tuple[int, str] | None = None) -> Verified:
    """Read the whole chain.

    A deleted row shows at the row that followed it, or, where it was the last, by its own id.

    Args:
        anchor: id and hash of a row as they were written down elsewhere, such as in a receipt.
    """
    previous, rows, newest = GENESIS, 0, 0
    for row in session.scalars(select(Audit).order_by(Audit.id).execution_options(yield_per=1000)):
        moved = anchor is not None and row.id == anchor[0] and row.hash != anchor[1]
        if row.previous != previous or row.hash != row_hash(row) or row.owner != row.actor or moved:
            return Verified(rows=rows, head=previous, broken=row.id)
        previous, rows, newest = row.hash, rows + 1, row.id
    head = session.get(AuditHead, HEAD)
    if head is None or head.audit_id != newest or head.hash != previous:
        return Verified(rows=rows, head=previous, broken=head.audit_id if head else newest)
    if anchor is not None and anchor[0] > newest:
        return Verified(rows=rows, head=previous, broken=anchor[0])
    return Verified(rows=rows, head=previous)
