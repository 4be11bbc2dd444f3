"""People whom scans found: groups of faces, and what a person said of them, which no later scan undoes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.photos import SeenFace
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.tables.rows_people import FoundFace, FoundPerson, ScannedPhoto
from orchestrator.ledger.tables.rows_photos import StageResult, StageResultIdentity

AT_ONCE = 500


def members(session: Session, owner: str, encoder: str) -> Iterator[FoundFace]:
    """Yield every face that belongs to somebody, a few at a time."""
    query = select(FoundFace).where(
        FoundFace.owner == owner, FoundFace.encoder == encoder, FoundFace.person_id.is_not(None)
    )
    for face in session.scalars(query.execution_options(yield_per=AT_ONCE)):
        session.expunge(face)
        yield face


def ungrouped(session: Session, owner: str, encoder: str, *, least_side: float) -> Iterator[FoundFace]:
    """Yield the faces that belong to nobody yet and are fit to be compared."""
    query = select(FoundFace).where(
        FoundFace.owner == owner,
        FoundFace.encoder == encoder,
        FoundFace.person_id.is_(None),
        FoundFace.decided.is_(False),
    )
    for face in session.scalars(query.order_by(FoundFace.id).execution_options(yield_per=AT_ONCE)):
        session.expunge(face)
        seen = SeenFace.load(face.face)
        if seen.inside and seen.side >= least_side:
            yield face


def roots(session: Session, owner: str) -> dict[str, str]:
    """Return {group: the group that it was merged into}, for those that were."""
    query = select(FoundPerson.id, FoundPerson.of).where(FoundPerson.owner == owner, FoundPerson.of.is_not(None))
    return {i: str(of) for i, of in session.execute(query).tuples()}


def write(
    session: Session,
    owner: str,
    encoder: str,
    known: Sequence[str],
    fresh: int,
    joined: Mapping[str, int],
    moment: datetime,
) -> None:
    """Write new groups and which faces went where; what was decided or forgotten meanwhile stays as it is.

    Args:
        known: ids of the groups that labels count first.
        fresh: how many new groups follow them.
        joined: {face: label}.
    """
    made = [_new(session, owner, encoder, moment).id for _ in range(fresh)]
    there = set(session.scalars(select(FoundPerson.id).where(FoundPerson.owner == owner)))
    places = [*known, *made]
    by_label: dict[int, list[str]] = {}
    for face, label in joined.items():
        by_label.setdefault(label, []).append(face)
    for label, faces in by_label.items():
        if places[label] not in there:
            continue
        for start in range(0, len(faces), AT_ONCE):
            session.execute(
                update(FoundFace)
                .where(
                    FoundFace.id.in_(faces[start : start + AT_ONCE]),
                    FoundFace.person_id.is_(None),
                    FoundFace.decided.is_(False),
                )
                .values(person_id=places[label])
                .execution_options(synchronize_session=False)
            )


def _new(session: Session, owner: str, encoder: str, moment: datetime) -> FoundPerson:
    last = session.scalar(select(func.max(FoundPerson.number)).where(FoundPerson.owner == owner)) or 0
    row = FoundPerson(id=new_id("fnd"), owner=owner, encoder=encoder, number=last + 1, created_at=moment)
    session.add(row)
    session.flush()
    return row


def get(session: Session, owner: str, who: str) -> FoundPerson:
    """Return a person by number, handle, name or id: the group that others were merged into.

    Raises:
        NotFoundError: there is none, or it is somebody else's.
        ConflictError: several have this name.
    """
    asked = [FoundPerson.handle == who, FoundPerson.name == who, FoundPerson.id == who]
    if who.isdecimal() and len(who) < 10:
        asked.append(FoundPerson.number == int(who))
    found = session.scalars(select(FoundPerson).where(FoundPerson.owner == owner, or_(*asked))).all()
    people = {root.id: root for root in (_top(session, one) for one in found)}
    if len(people) > 1:
        numbers = ", ".join(str(one.number) for one in people.values())
        raise ConflictError(f"several people are called {who!r}; say which number: {numbers}", code="ambiguous_person")
    if not people:
        raise NotFoundError(f"no scan found a person {who!r}; `fpga people list` shows them", code="person_not_found")
    return next(iter(people.values()))


def _top(session: Session, one: FoundPerson) -> FoundPerson:
    return session.get_one(FoundPerson, one.of) if one.of else one


def parts(session: Session, person_id: str) -> list[str]:
    """Return the groups that are one person: its own and those merged into it."""
    return [person_id, *session.scalars(select(FoundPerson.id).where(FoundPerson.of == person_id))]


def face(session: Session, owner: str, face_id: str) -> FoundFace:
    """Return a face; a unique beginning of its id is enough.

    Raises:
        NotFoundError: there is none, or it is somebody else's.
        ConflictError: several begin so.
    """
    query = select(FoundFace).where(FoundFace.owner == owner, FoundFace.id.startswith(face_id, autoescape=True))
    found = session.scalars(query.limit(2)).all()
    if not found:
        raise NotFoundError(f"there is no face {face_id!r}", code="face_not_found")
    if len(found) > 1:
        raise ConflictError(f"several faces begin with {face_id!r}; give more of the id", code="ambiguous_id")
    return found[0]


def merge(session: Session, into: FoundPerson, other: FoundPerson) -> None:
    """Make two people one, which keeps the number of the first; its name too, where it has one.

    Raises:
        ConflictError: they were found by two recognisers, or both have a name.
    """
    if into.id == other.id:
        raise ConflictError(f"person {into.number} is both of them already", code="same_person")
    if into.encoder != other.encoder:
        raise ConflictError("they were found by different recognisers", code="encoder_mismatch")
    if into.handle and other.handle:
        raise ConflictError(
            f"both have a name in the library, {into.handle!r} and {other.handle!r}; one of them must be taken away",
            code="handle_taken",
        )
    into.name, into.handle = into.name or other.name, into.handle or other.handle
    other.name = other.handle = None
    session.execute(update(FoundPerson).where(FoundPerson.of == other.id).values(of=into.id))
    other.of = into.id
    session.flush()


def split(session: Session, owner: str, faces: Sequence[FoundFace], moment: datetime) -> FoundPerson:
    """Make a new person of these faces, who are no longer those whose they were.

    Raises:
        ConflictError: they were found by two recognisers.
    """
    if len({face.encoder for face in faces}) > 1:
        raise ConflictError("they were found by different recognisers", code="encoder_mismatch")
    row = _new(session, owner, faces[0].encoder, moment)
    for face in faces:
        _refuse(session, face)
        face.person_id, face.decided = row.id, True
    session.flush()
    return row


def refuse(session: Session, faces: Sequence[FoundFace]) -> None:
    """Take faces away from the person whose they were; a later scan may give them to others, never to that one."""
    for face in faces:
        _refuse(session, face)
        face.person_id = None
    session.flush()


def belongs(session: Session, faces: Sequence[FoundFace], person: FoundPerson) -> None:
    """Give faces to a person, whosever they were."""
    for face in faces:
        _refuse(session, face)
        face.person_id, face.decided = person.id, True
        face.refused = [one for one in face.refused if one not in parts(session, person.id)]
    session.flush()


def _refuse(session: Session, face: FoundFace) -> None:
    if face.person_id is not None:
        root = _top(session, session.get_one(FoundPerson, face.person_id)).id
        face.refused = list(dict.fromkeys([*face.refused, *parts(session, root)]))


def forget(session: Session, owner: str, person_ids: Sequence[str]) -> int:
    """Remove groups with all their faces, and what was kept of looking at the pictures; return how many faces."""
    mine = FoundFace.owner == owner, FoundFace.person_id.in_(person_ids)
    pixels = session.scalars(select(FoundFace.pixels_sha256).where(*mine).distinct()).all()
    keys = select(ScannedPhoto.faces_key).where(ScannedPhoto.owner == owner, ScannedPhoto.pixels_sha256.in_(pixels))
    for table in (StageResultIdentity, StageResult):
        session.execute(
            delete(table).where(table.owner == owner, table.key.in_(keys)).execution_options(synchronize_session=False)
        )
    gone = session.scalars(delete(FoundFace).where(*mine).returning(FoundFace.id)).all()
    session.execute(update(FoundPerson).where(FoundPerson.of.in_(person_ids)).values(of=None))
    session.execute(delete(FoundPerson).where(FoundPerson.owner == owner, FoundPerson.id.in_(person_ids)))
    session.expire_all()
    return len(gone)


def of_handle(session: Session, owner: str, handle: str | None) -> list[str]:
    """Return every group that is this person of the library."""
    if not handle:
        return []
    query = select(FoundPerson.id).where(FoundPerson.owner == owner, FoundPerson.handle == handle)
    return [part for root in session.scalars(query).all() for part in parts(session, root)]


def lonely(session: Session, owner: str) -> int:
    """Remove groups without a face and without a name, and return how many there were."""
    has = select(FoundFace.person_id).where(FoundFace.owner == owner, FoundFace.person_id.is_not(None))
    below = select(FoundPerson.of).where(FoundPerson.owner == owner, FoundPerson.of.is_not(None))
    empty = session.scalars(
        select(FoundPerson.id).where(
            FoundPerson.owner == owner,
            FoundPerson.id.not_in(has),
            FoundPerson.id.not_in(below),
            FoundPerson.handle.is_(None),
            FoundPerson.name.is_(None),
        )
    ).all()
    session.execute(delete(FoundPerson).where(FoundPerson.id.in_(empty)))
    return len(empty)
