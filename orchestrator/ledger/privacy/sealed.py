"""Everything in the database that is sealed: which rows hold a wrapped data key, and what lies under it.

Any table with a column `data_key` belongs here by that name; items on their way into the library carry theirs in
`params`. Used when the master key changes, which may lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from orchestrator.contracts.people import EnrolParams
from orchestrator.ledger.engine.base import Row
from orchestrator.ledger.engine.session import Ledger, retrying
from orchestrator.ledger.tables import rows_api, rows_people, rows_photos
from orchestrator.ledger.tables.rows import Batch, Item, Reference
from orchestrator.secrets.vault import Envelope

UNDER: Mapping[type[Row], tuple[str, ...]] = {
    Reference: ("embedding", "crop"),
    rows_photos.StageResult: ("data",),
    rows_photos.ArchivePerson: ("data",),
    rows_people.FoundFace: ("embedding", "crop"),
    rows_api.Webhook: ("secret",),
}
"""Columns that lie under the `data_key` of their row; pictures in the store lie under the same keys."""
ENROLMENTS = "enrolment"
PAGE = 200


def kinds() -> list[type[Row]]:
    """Return every mapped table that has a column `data_key`."""
    return [mapper.class_ for mapper in Row.registry.mappers if "data_key" in mapper.columns]


Wrap = Callable[[Envelope], str]


def rewrap(ledger: Ledger, wrap: Wrap) -> dict[str, int]:
    """Wrap every data key anew, bound to its place, and return how many there are, by kind; what they seal stays.

    Page by page, so that nobody waits for the writer's lock until it is done; run again, it goes on.
    """
    counts = {kind.__tablename__: _rewrap_rows(ledger, kind, wrap) for kind in kinds()}
    return counts | {ENROLMENTS: _rewrap_enrolments(ledger, wrap)}


def every(session: Session) -> Iterator[tuple[str, Envelope, list[bytes]]]:
    """Yield (kind, envelope, sealed bytes in the row) of everything that is sealed."""
    for kind in kinds():
        for row in session.scalars(select(kind).execution_options(yield_per=PAGE)):
            envelope: Envelope = row.envelope  # type: ignore[attr-defined]  # whatever has a `data_key` has one
            found = [getattr(row, name) for name in UNDER[kind]]
            if envelope.key is not None:
                yield kind.__tablename__, envelope, [_as_bytes(one) for one in found if one is not None]
    for item in session.scalars(_enrolments().execution_options(yield_per=PAGE)):
        for reference in EnrolParams.load(item.params).references:
            if reference.data_key:
                yield ENROLMENTS, Envelope(key=reference.data_key, place=reference.place), []


def _rewrap_rows(ledger: Ledger, kind: type[Row], wrap: Wrap) -> int:
    keys = kind.__mapper__.primary_key
    names = [kind.__mapper__.get_property_by_column(key).key for key in keys]
    after: tuple[Any, ...] | None = None
    count = 0

    @retrying
    def page(ledger: Ledger) -> tuple[int, tuple[Any, ...] | None]:
        with ledger.write() as session:
            query = select(kind).order_by(*keys).limit(PAGE).with_for_update()
            if after is not None:
                query = query.where(tuple_(*keys) > after)
            found = session.scalars(query).all()
            held = [row for row in found if row.data_key is not None]  # type: ignore[attr-defined]  # as above
            for row in held:
                row.data_key = wrap(row.envelope)  # type: ignore[attr-defined]  # as above
            last = found[-1] if found else None
            return len(held), tuple(getattr(last, name) for name in names) if last is not None else None

    while True:
        more, place = page(ledger)
        count += more
        if place is None:
            return count
        after = place


@retrying
def _rewrap_enrolments(ledger: Ledger, wrap: Wrap) -> int:
    count = 0
    with ledger.write() as session:
        for item in session.scalars(_enrolments()):
            given = EnrolParams.load(item.params)
            if any(one.data_key for one in given.references):
                fresh = tuple(
                    one.model_copy(update={"data_key": wrap(Envelope(key=one.data_key, place=one.place))})
                    if one.data_key
                    else one
                    for one in given.references
                )
                item.params = given.model_copy(update={"references": fresh}).dump()
                count += len(fresh)
    return count


def _enrolments() -> Select[tuple[Item]]:
    return select(Item).where(Item.batch_id.in_(select(Batch.id).where(Batch.kind == "enrol")))


def _as_bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
