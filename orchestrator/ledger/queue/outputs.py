"""Outputs of items: the pictures that stages made, what was said of them, and which one an item is known by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import Artifact, Item, Output

REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class NewOutput:
    """A picture as a stage made it; its bytes are in the store by now. Sizes are px."""

    artifact_id: str
    width: int
    height: int
    seed: int
    model_version_id: str
    record: Mapping[str, Any]
    """Everything that is needed to make it again."""
    round: int | None = None
    """Its number among the item's pictures, if not the claim's round."""
    verdict: str | None = None
    similarity: float | None = None
    scores: Mapping[str, Any] | None = None
    id: str | None = None


def add(session: Session, c: Claim, new: NewOutput, moment: datetime) -> str:
    """Write an output of the claimed item in the transaction that publishes its stage, and return its id."""
    row = Output(
        id=new.id or new_id("out"),
        item_id=c.item_id,
        batch_id=c.batch_id,
        owner=c.owner,
        round=c.round if new.round is None else new.round,
        artifact_id=new.artifact_id,
        token=c.token,
        width=new.width,
        height=new.height,
        seed=new.seed,
        model_version_id=new.model_version_id,
        record=dict(new.record),
        verdict=new.verdict,
        similarity=new.similarity,
        scores=None if new.scores is None else dict(new.scores),
        created_at=moment,
    )
    session.add(row)
    session.flush()
    return row.id


def show(session: Session, c: Claim, output_id: str) -> None:
    """Let a picture that nothing was said of yet stand for the claimed item, which has no other."""
    session.execute(update(Item).where(Item.id == c.item_id, Item.output_id.is_(None)).values(output_id=output_id))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An output that is to be looked at: who made it, and where its bytes are."""

    id: str
    model_version_id: str
    key: str
    sha256: str


def of_round(session: Session, item_id: str, round: int) -> Drawn | None:
    """Return the output of one round of an item, or None."""
    row = session.execute(
        select(Output.id, Output.model_version_id, Artifact.key, Artifact.sha256)
        .join(Artifact, Artifact.id == Output.artifact_id)
        .where(Output.item_id == item_id, Output.round == round)
    ).first()
    return None if row is None else Drawn(**row._mapping)


def judge(session: Session, c: Claim, output_id: str, scores: Mapping[str, Any]) -> None:
    """Write what was found of an output (`verdict`, `similarity`, the rest); the item's best one stands for it."""
    session.execute(
        update(Output)
        .where(Output.id == output_id)
        .values(verdict=scores["verdict"], similarity=scores["similarity"], scores=dict(scores))
    )
    order = case((Output.verdict == "accepted", 0), (Output.verdict == "needs_review", 1), else_=2)
    best = session.scalars(
        select(Output).where(Output.item_id == c.item_id).order_by(order, Output.similarity.desc()).limit(1)
    ).one()
    choose(session, c, best.id, best.verdict, best.similarity, redraws=c.round)


def choose(
    session: Session, c: Claim, output_id: str, verdict: str | None, similarity: float | None, *, redraws: int = 0
) -> None:
    """Let an output stand for the claimed item."""
    session.execute(
        update(Item)
        .where(Item.id == c.item_id)
        .values(output_id=output_id, verdict=verdict, similarity=similarity, redraws=redraws)
    )


def finished(session: Session, batch_id: str) -> Iterator[tuple[Item, Output, Artifact]]:
    """Yield every picture that can be read of the items that are completed, in manifest order."""
    query = (
        select(Item, Output, Artifact)
        .join(Output, Output.item_id == Item.id)
        .join(Artifact, Artifact.id == Output.artifact_id)
        .where(Item.batch_id == batch_id, Item.state == State.COMPLETED, Artifact.state == "live")
        .order_by(Item.position, Output.round)
        .execution_options(yield_per=200)
    )
    yield from session.execute(query).tuples()


def item_with(session: Session, owner: str, sha256: str) -> str | None:
    """Return the item whose picture has these bytes, None if none of this owner's has."""
    query = (
        select(Output.item_id)
        .join(Artifact, Artifact.id == Output.artifact_id)
        .where(Artifact.owner == owner, Artifact.sha256 == sha256, Artifact.state == "live")
    )
    return session.scalars(query).first()
