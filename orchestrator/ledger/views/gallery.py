"""Pictures of a batch for pages: only the columns that a tile shows, so that ten thousand items stay cheap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from orchestrator.contracts.photos import Restored
from orchestrator.errors import NotFoundError
from orchestrator.ledger.engine.states import BAD, ENDED, STATES, State
from orchestrator.ledger.queue import reviews
from orchestrator.ledger.tables.rows import Artifact, Item, Output, Stage
from orchestrator.ledger.tables.rows_reviews import Review
from orchestrator.ledger.views import listings

PREVIEW = Stage.result[Restored.column_key("preview")]["sha256"].as_string()
VERDICTS = ("accepted", "needs_review", "rejected", "unchanged")
SHOWS: dict[str, ColumnElement[bool]] = {
    **{word: (Item.verdict == word) & reviews.undecided() for word in VERDICTS},
    "approved": reviews.is_("approved"),
    "turned_down": reviews.is_("rejected"),
    "starred": reviews.starred(),
    "doubtful": reviews.open_(),
    "failed": Item.state == State.FAILED,
    "held": Item.state == State.HELD,
    "open": Item.state.not_in(ENDED),
    "cancelled": Item.state == State.CANCELLED,
    "drawn": Item.output_id.is_not(None),
}
"""What a gallery may be cut down to; what a person decided on stands no longer under the machine's verdict."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One item in a gallery; `output_id` is None as long as it has no picture.

    `preview` is the hash of a photo's small picture that is there before its output.
    """

    id: str
    position: int
    custom_id: str
    state: str
    verdict: str | None
    similarity: float | None
    redraws: int
    error_code: str | None
    error_message: str | None
    error_stage: str | None
    output_id: str | None
    preview: str | None
    width: int | None
    height: int | None
    decision: str | None
    starred: bool | None
    note: str | None

    @property
    def checking(self) -> bool:
        """Whether its picture is drawn, and nothing was said of it yet."""
        return self.state not in ENDED and self.verdict is None and bool(self.output_id or self.preview)


def tiles(
    session: Session,
    batch_id: str,
    *,
    show: str | None = None,
    code: str | None = None,
    order: str = "position",
    after: tuple[float | None, int] | None = None,
    limit: int = 60,
) -> list[Tile]:
    """Return tiles in one of listings.ORDERS, those behind a place (similarity, position)."""
    query = (
        select(
            Item.id,
            Item.position,
            Item.custom_id,
            Item.state,
            Item.verdict,
            Item.similarity,
            Item.redraws,
            Item.error_code,
            Item.error_message,
            Item.error_stage,
            Item.output_id,
            PREVIEW.label("preview"),
            Output.width,
            Output.height,
            Review.decision,
            Review.starred,
            Review.note,
        )
        .outerjoin(Output, Output.id == Item.output_id)
        .outerjoin(Review, Review.item_id == Item.id)
        .outerjoin(Stage, and_(Stage.item_id == Item.id, Stage.name == "restore", Item.output_id.is_(None)))
        .where(Item.batch_id == batch_id, *_cut(show, code))
    )
    found = session.execute(listings.ordered(query, order, after).limit(limit)).mappings()
    return [Tile(**row) for row in found]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many items of a batch there are by state, verdict, decision of a person and, where it went wrong, code.

    `verdicts` counts what nobody has decided on: together with `decisions` each completed item counts once.
    """

    states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    verdicts: dict[str, int] = field(default_factory=dict)
    decisions: dict[str, int] = field(default_factory=dict)
    starred: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        """How many items failed or are held."""
        return sum(self.states[state] for state in BAD)

    def of(self, show: str) -> int:
        """Return how many items one of SHOWS lets through."""
        if show == "open":
            return sum(count for state, count in self.states.items() if state not in ENDED)
        if show in ("approved", "turned_down"):
            return self.decisions.get("approved" if show == "approved" else "rejected", 0)
        if show == "starred":
            return self.starred
        if show == "doubtful":
            return self.verdicts.get("needs_review", 0) + self.verdicts.get("rejected", 0)
        return self.states[show] if show in self.states else self.verdicts.get(show, 0)


def tally(session: Session, batch_id: str) -> Tally:
    """Count the items of a batch, in one query."""
    counted = Tally()
    columns = (Item.state, Item.verdict, Item.error_code, Review.decision, Review.starred)
    query = (
        select(*columns, func.count())
        .outerjoin(Review, Review.item_id == Item.id)
        .where(Item.batch_id == batch_id)
        .group_by(*columns)
    )
    starred = 0
    for state, verdict, code, decision, star, count in session.execute(query).tuples():
        counted.states[state] += count
        if decision is not None:
            counted.decisions[decision] = counted.decisions.get(decision, 0) + count
        elif verdict is not None:
            counted.verdicts[verdict] = counted.verdicts.get(verdict, 0) + count
        if code is not None and state in BAD:
            counted.errors[code] = counted.errors.get(code, 0) + count
        starred += count if star else 0
    return replace(counted, starred=starred)


def neighbours(session: Session, item: Item, *, show: str | None, code: str | None) -> tuple[str | None, str | None]:
    """Return the ids of the items before and behind one in manifest order, among those that are let through."""

    def nearest(query: Select[tuple[str]]) -> str | None:
        return session.scalars(query.where(Item.batch_id == item.batch_id, *_cut(show, code)).limit(1)).first()

    before = select(Item.id).where(Item.position < item.position).order_by(Item.position.desc())
    behind = select(Item.id).where(Item.position > item.position).order_by(Item.position)
    return nearest(before), nearest(behind)


def output(session: Session, owner: str, output_id: str) -> tuple[Output, Artifact]:
    """Return a picture of this owner and where its bytes are.

    Raises:
        NotFoundError: there is none, it is somebody else's, or it was erased.
    """
    query = (
        select(Output, Artifact)
        .join(Artifact, Artifact.id == Output.artifact_id)
        .where(Output.owner == owner, Output.id == output_id, Artifact.state == "live")
    )
    found = session.execute(query).tuples().first()
    if found is None:
        raise NotFoundError("there is no such picture", code="picture_not_found")
    return found


def _cut(show: str | None, code: str | None) -> Sequence[ColumnElement[bool]]:
    cut = [SHOWS[show]] if show else []
    return [*cut, Item.error_code == code] if code else cut
