"""Pages of batches and items by keyset: a page costs the same wherever it lies in the list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from orchestrator.errors import NotFoundError
from orchestrator.ledger.engine.states import UNENDED, among
from orchestrator.ledger.queue.batches import STATE_WORDS
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, ItemIdentity, Output, Stage

R = TypeVar("R", bound=tuple[Any, ...])
ORDERS = ("position", "similarity", "-similarity")


def batch(session: Session, owner: str, batch_id: str) -> Batch:
    """Return a batch of this owner by its whole id.

    Raises:
        NotFoundError: there is none, or it is somebody else's.
    """
    found = session.scalars(select(Batch).where(Batch.owner == owner, Batch.id == batch_id)).first()
    if found is None:
        raise NotFoundError(f"there is no batch {batch_id!r}", code="batch_not_found")
    return found


def item(session: Session, owner: str, item_id: str) -> Item:
    """Return an item of this owner.

    Raises:
        NotFoundError: there is none, or it is somebody else's.
    """
    found = session.scalars(select(Item).where(Item.owner == owner, Item.id == item_id)).first()
    if found is None:
        raise NotFoundError(f"there is no item {item_id!r}", code="item_not_found")
    return found


def artifact(session: Session, owner: str, artifact_id: str) -> Artifact:
    """Return stored bytes of this owner that can be read.

    Raises:
        NotFoundError: there are none, or they are somebody else's.
    """
    query = select(Artifact).where(Artifact.owner == owner, Artifact.id == artifact_id, Artifact.state == "live")
    found = session.scalars(query).first()
    if found is None:
        raise NotFoundError(f"there is no artifact {artifact_id!r}", code="artifact_not_found")
    return found


def outputs(session: Session, found: Sequence[Item]) -> dict[str, tuple[Output, Artifact]]:
    """Return the chosen output and its bytes of these items, by item id."""
    query = (
        select(Output, Artifact)
        .join(Artifact, Artifact.id == Output.artifact_id)
        .where(Output.id.in_([one.output_id for one in found if one.output_id]))
    )
    return {output.item_id: (output, stored) for output, stored in session.execute(query).tuples()}


def batches(
    session: Session,
    owner: str,
    *,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    text: str | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> Sequence[Batch]:
    """Return batches, newest first, those made before a place; `text` is part of a name or the start of an id."""
    query = select(Batch).where(Batch.owner == owner)
    if text:
        named, begins = Batch.name.icontains(text, autoescape=True), Batch.id.startswith(text, autoescape=True)
        query = query.where(or_(named, begins))
    if states:
        query = query.where(Batch.state.in_([STATE_WORDS.get(state, state) for state in states]))
    if kinds:
        query = query.where(Batch.kind.in_(kinds))
    if before is not None:
        moment, last = before
        query = query.where(or_(Batch.created_at < moment, and_(Batch.created_at == moment, Batch.id < last)))
    return session.scalars(query.order_by(Batch.created_at.desc(), Batch.id.desc()).limit(limit)).all()


def items(
    session: Session,
    batch_id: str,
    *,
    states: Sequence[str] = (),
    verdicts: Sequence[str] = (),
    codes: Sequence[str] = (),
    order: str = "position",
    after: tuple[float | None, int] | None = None,
    limit: int = 50,
) -> Sequence[Item]:
    """Return items in one of ORDERS, those behind a place (similarity, position); without a similarity come last."""
    query = select(Item).where(Item.batch_id == batch_id)
    if states:
        query = query.where(Item.state.in_([STATE_WORDS.get(state, state) for state in states]))
    if verdicts:
        query = query.where(Item.verdict.in_(verdicts))
    if codes:
        query = query.where(Item.error_code.in_(codes))
    return session.scalars(ordered(query, order, after).limit(limit)).all()


def ordered(query: Select[R], order: str, after: tuple[float | None, int] | None) -> Select[R]:
    """Return a query over items in one of ORDERS, what lies behind a place (similarity, position)."""
    if order == "position":
        query = query.order_by(Item.position)
        return query.where(Item.position > after[1]) if after else query
    falling = order.startswith("-")
    column = Item.similarity
    query = query.order_by(column.is_(None), column.desc() if falling else column.asc(), Item.position)
    if after is None:
        return query
    similarity, position = after
    if similarity is None:
        return query.where(column.is_(None), Item.position > position)
    beyond: ColumnElement[bool] = column < similarity if falling else column > similarity
    return query.where(or_(column.is_(None), beyond, and_(column == similarity, Item.position > position)))


def counts_of(session: Session, batch_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of items by state for each of these batches, in one query."""
    found: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    query = (
        select(Item.batch_id, Item.state, func.count())
        .where(Item.batch_id.in_(batch_ids))
        .group_by(Item.batch_id, Item.state)
    )
    for batch_id, state, count in session.execute(query).tuples():
        found[batch_id][state] = count
    return found


def used_in(session: Session, identity_id: str, limit: int = 20) -> Sequence[tuple[Batch, int]]:
    """Return the newest batches that show a person, each with how many items of it do."""
    query = (
        select(Batch, func.count())
        .join(Item, Item.batch_id == Batch.id)
        .join(ItemIdentity, ItemIdentity.item_id == Item.id)
        .where(ItemIdentity.identity_id == identity_id)
        .group_by(Batch.id)
        .order_by(Batch.created_at.desc())
        .limit(limit)
    )
    return list(session.execute(query).tuples())


def queues(session: Session, owner: str | None = None) -> dict[str, dict[str, int]]:
    """Return open stages by queue and state, of one owner or of everybody."""
    query = select(Stage.queue, Stage.state, func.count()).where(among(Stage.state, UNENDED))
    if owner is not None:
        query = query.where(Stage.owner == owner)
    found: dict[str, dict[str, int]] = {}
    for queue, state, count in session.execute(query.group_by(Stage.queue, Stage.state)).tuples():
        found.setdefault(queue, {})[state] = count
    return found


def children(session: Session, batch_id: str) -> list[tuple[str, str]]:
    """Return id and name of the batches that were made from this one, oldest first."""
    query = select(Batch.id, Batch.name).where(Batch.parent_id == batch_id).order_by(Batch.created_at)
    return [(found, name) for found, name in session.execute(query).tuples()]
