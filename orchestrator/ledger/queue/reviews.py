"""What people say of items: approve, reject, star, note. The machine's verdict stays beside it, as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ledger import audit
from orchestrator.ledger.engine.session import Ledger, now, retrying
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Item
from orchestrator.ledger.tables.rows_reviews import Review

Decision = Literal["approved", "rejected", "undecided"]
DECISIONS: tuple[str, ...] = get_args(Decision)
AT_ONCE = 500
"""So many items are looked up by one query."""
SAID = aliased(Review)
"""For subqueries: they must not be mistaken for the reviews that a query joins."""


@retrying
def put(
    ledger: Ledger,
    owner: str,
    batch_id: str,
    item_ids: Sequence[str],
    *,
    by: str,
    decision: Decision | None = None,
    starred: bool | None = None,
    note: str | None = None,
) -> int:
    """Review items of one batch; what is None stays as it was. Return how many reviews changed.

    Args:
        by: who reviews.
        decision: `undecided` takes a decision back.
        note: for people's eyes; it is in no log and goes when a person of the item is erased.

    Raises:
        NotFoundError: the batch has no such item.
        ConflictError: an item has no picture that could be approved.
    """
    with ledger.write() as session:
        moment = now(session)
        batch = batches.get(session, owner, batch_id)
        changed: list[str] = []
        for item in _items(session, batch.id, list(dict.fromkeys(item_ids))):
            if decision == "approved" and item.output_id is None:
                raise ConflictError(f"{item.custom_id} has no picture that could be approved", code="item_not_ready")
            row = session.get(Review, item.id)
            if row is None:
                row = Review(item_id=item.id, batch_id=batch.id, owner=owner, decision=None, starred=False, note="")
            before = (row.decision, row.starred, row.note)
            if decision is not None:
                row.decision = None if decision == "undecided" else decision
            row.starred = row.starred if starred is None else starred
            row.note = row.note if note is None else note
            if before != (row.decision, row.starred, row.note):
                row.by, row.at = by, moment
                session.add(row)
                changed.append(item.id)
        if changed:
            detail = {"by": by, "items": changed, "decision": decision, "starred": starred, "note": note is not None}
            audit.write(session, owner, "item.review", batch.id, detail, moment)
        return len(changed)


def of_items(session: Session, item_ids: Sequence[str]) -> dict[str, Review]:
    """Return the reviews of these items, as far as there are any."""
    found: dict[str, Review] = {}
    for start in range(0, len(item_ids), AT_ONCE):
        part = item_ids[start : start + AT_ONCE]
        found |= {row.item_id: row for row in session.scalars(select(Review).where(Review.item_id.in_(part)))}
    return found


def of_batch(session: Session, batch_id: str) -> dict[str, Review]:
    """Return all reviews of a batch by item."""
    return {row.item_id: row for row in session.scalars(select(Review).where(Review.batch_id == batch_id))}


def counts(session: Session, batch_id: str) -> dict[str, int]:
    """Count a batch's items that people approved, rejected and starred."""
    query = select(
        func.sum(case((Review.decision == "approved", 1), else_=0)),
        func.sum(case((Review.decision == "rejected", 1), else_=0)),
        func.sum(case((Review.starred, 1), else_=0)),
    ).where(Review.batch_id == batch_id)
    approved, rejected, starred = session.execute(query).tuples().one()
    return {"approved": int(approved or 0), "rejected": int(rejected or 0), "starred": int(starred or 0)}


def is_(decision: str) -> ColumnElement[bool]:
    """Items that somebody approved, or rejected."""
    return select(SAID.item_id).where(SAID.item_id == Item.id, SAID.decision == decision).exists()


def starred() -> ColumnElement[bool]:
    """Items that somebody starred."""
    return select(SAID.item_id).where(SAID.item_id == Item.id, SAID.starred).exists()


def undecided() -> ColumnElement[bool]:
    """Items that nobody has decided on."""
    return ~select(SAID.item_id).where(SAID.item_id == Item.id, SAID.decision.is_not(None)).exists()


def open_() -> ColumnElement[bool]:
    """Items that the machine doubts or rejects, and on which nobody has decided."""
    return or_(Item.verdict == "needs_review", Item.verdict == "rejected") & undecided()


def _items(session: Session, batch_id: str, item_ids: Sequence[str]) -> list[Item]:
    found: dict[str, Item] = {}
    for start in range(0, len(item_ids), AT_ONCE):
        query = select(Item).where(Item.batch_id == batch_id, Item.id.in_(item_ids[start : start + AT_ONCE]))
        found |= {item.id: item for item in session.scalars(query)}
    missing = [item_id for item_id in item_ids if item_id not in found]
    if missing:
        raise NotFoundError(f"there is no item {missing[0]!r} in batch {batch_id}", code="item_not_found")
    return [found[item_id] for item_id in item_ids]
