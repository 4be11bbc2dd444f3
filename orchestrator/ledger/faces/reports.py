"""What scans found, to be shown and exported: people with their best faces, photos with who is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Integer, and_, case, exists, func, select
from sqlalchemy.orm import Session

from orchestrator.contracts.photos import SeenFace
from orchestrator.ledger.tables.rows_people import FoundFace, FoundPerson, ScannedPhoto

AT_ONCE = 500
ROOT = func.coalesce(FoundPerson.of, FoundPerson.id)
FAULTS = ("small", "blurred", "dark", "turned", "inside")


@dataclass(frozen=True, kw_only=True)
class PersonSeen:
    """A person whom scans found: faces, files that show them, and ids of their best faces."""

    id: str
    number: int
    name: str | None
    handle: str | None
    faces: int
    photos: int
    best: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FaceSeen:
    """One face with whose it is, as far as that is known."""

    id: str
    seen: SeenFace
    person_id: str | None
    number: int | None
    name: str | None
    handle: str | None
    decided: bool


@dataclass(frozen=True, kw_only=True)
class PhotoSeen:
    """One file with the faces in it, from the left."""

    archive: str
    path: str
    width: int
    height: int
    orientation: int
    faces: tuple[FaceSeen, ...]


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts over an owner's scans, or one archive."""

    photos: int
    pictures: int
    faces: int
    people: int
    unsorted: int
    small: int
    blurred: int
    dark: int
    turned: int
    other_kind: int


def _of(owner: str, archive: str | None) -> list[ColumnElement[bool]]:
    here = [FoundFace.owner == owner]
    if archive is not None:
        shown = exists().where(
            ScannedPhoto.owner == owner,
            ScannedPhoto.archive == archive,
            ScannedPhoto.pixels_sha256 == FoundFace.pixels_sha256,
        )
        here.append(shown)
    return here


def people(
    session: Session, owner: str, archive: str | None = None, *, best: int = 6, only: list[str] | None = None
) -> list[PersonSeen]:
    """Return everybody who was found, or the one person of these groups, those in most photos first."""
    here = [*_of(owner, archive), *([FoundFace.person_id.in_(only)] if only is not None else [])]
    asked = FoundPerson.owner == owner, FoundPerson.of.is_(None), *([FoundPerson.id.in_(only)] if only else [])
    files = (
        select(ScannedPhoto.pixels_sha256, func.count().label("files"))
        .where(ScannedPhoto.owner == owner, *([ScannedPhoto.archive == archive] if archive is not None else []))
        .group_by(ScannedPhoto.pixels_sha256)
        .subquery()
    )
    pictures = (
        select(ROOT.label("root"), FoundFace.pixels_sha256, func.count().label("faces"))
        .join(FoundPerson, FoundPerson.id == FoundFace.person_id)
        .where(*here)
        .group_by(ROOT, FoundFace.pixels_sha256)
        .subquery()
    )
    counted = {
        root: (int(faces), int(photos))
        for root, faces, photos in session.execute(
            select(pictures.c.root, func.sum(pictures.c.faces), func.sum(files.c.files))
            .join(files, files.c.pixels_sha256 == pictures.c.pixels_sha256)
            .group_by(pictures.c.root)
        ).tuples()
    }
    place = func.row_number().over(partition_by=ROOT, order_by=(FoundFace.quality.desc(), FoundFace.id))
    ranked = (
        select(ROOT.label("root"), FoundFace.id, place.label("place"))
        .join(FoundPerson, FoundPerson.id == FoundFace.person_id)
        .where(*here)
        .subquery()
    )
    faces: dict[str, list[str]] = {}
    query = select(ranked.c.root, ranked.c.id).where(ranked.c.place <= best).order_by(ranked.c.place)
    for root, face_id in session.execute(query).tuples():
        faces.setdefault(root, []).append(face_id)
    found = [
        PersonSeen(
            id=row.id,
            number=row.number,
            name=row.name,
            handle=row.handle,
            faces=counted.get(row.id, (0, 0))[0],
            photos=counted.get(row.id, (0, 0))[1],
            best=tuple(faces.get(row.id, ())),
        )
        for row in session.scalars(select(FoundPerson).where(*asked))
        if row.id in counted or archive is None
    ]
    return sorted(found, key=lambda one: (-one.photos, one.number))


def faces_of(
    session: Session, owner: str, person_ids: list[str] | None, *, limit: int, offset: int = 0
) -> list[FoundFace]:
    """Return faces of these groups, or with None those that are nobody's, best first."""
    whose = FoundFace.person_id.is_(None) if person_ids is None else FoundFace.person_id.in_(person_ids)
    query = select(FoundFace).where(FoundFace.owner == owner, whose)
    return list(session.scalars(query.order_by(FoundFace.quality.desc(), FoundFace.id).limit(limit).offset(offset)))


def paths(session: Session, owner: str, pixels: list[str]) -> dict[str, list[str]]:
    """Return {picture: the files that hold it}."""
    found: dict[str, list[str]] = {}
    query = select(ScannedPhoto.pixels_sha256, ScannedPhoto.path).where(
        ScannedPhoto.owner == owner, ScannedPhoto.pixels_sha256.in_(pixels)
    )
    for picture, path in session.execute(query.order_by(ScannedPhoto.path)).tuples():
        found.setdefault(picture, []).append(path)
    return found


def showing(session: Session, owner: str, handles: list[str], archive: str | None = None) -> tuple[int, int]:
    """Count the faces of people of the library, by their handles, and the files that show any of them."""
    tops = select(FoundPerson.id).where(FoundPerson.owner == owner, FoundPerson.handle.in_(handles))
    parts = select(FoundPerson.id).where(FoundPerson.id.in_(tops) | FoundPerson.of.in_(tops))
    theirs = [*_of(owner, archive), FoundFace.person_id.in_(parts)]
    faces = session.scalar(select(func.count(FoundFace.id)).where(*theirs)) or 0
    pictures = select(FoundFace.pixels_sha256).where(*theirs)
    files = select(func.count(ScannedPhoto.id)).where(
        ScannedPhoto.owner == owner,
        ScannedPhoto.pixels_sha256.in_(pictures),
        *([ScannedPhoto.archive == archive] if archive is not None else []),
    )
    return faces, session.scalar(files) or 0


def archives(session: Session, owner: str) -> dict[str, int]:
    """Return {archive: how many of its photos were looked at}."""
    query = select(ScannedPhoto.archive, func.count()).where(ScannedPhoto.owner == owner)
    return dict(session.execute(query.group_by(ScannedPhoto.archive).order_by(ScannedPhoto.archive)).tuples().all())


def photos(session: Session, owner: str, archive: str | None = None) -> Iterator[PhotoSeen]:
    """Yield every file that was looked at, by path, with the faces in it."""
    where = [ScannedPhoto.owner == owner, *([ScannedPhoto.archive == archive] if archive is not None else [])]
    order = ScannedPhoto.archive, ScannedPhoto.path
    after: tuple[str, str] = "", ""
    while rows := session.scalars(
        select(ScannedPhoto)
        .where(
            *where,
            (ScannedPhoto.archive > after[0]) | and_(ScannedPhoto.archive == after[0], ScannedPhoto.path > after[1]),
        )
        .order_by(*order)
        .limit(AT_ONCE)
    ).all():
        faces = _faces(session, owner, [row.pixels_sha256 for row in rows])
        for row in rows:
            yield PhotoSeen(
                archive=row.archive,
                path=row.path,
                width=row.width,
                height=row.height,
                orientation=row.orientation,
                faces=tuple(faces.get(row.pixels_sha256, ())),
            )
        after = rows[-1].archive, rows[-1].path
        session.expire_all()


def _faces(session: Session, owner: str, pixels: list[str]) -> dict[str, list[FaceSeen]]:
    tops = {row.id: row for row in session.scalars(select(FoundPerson).where(FoundPerson.owner == owner))}
    query = select(FoundFace.id, FoundFace.pixels_sha256, FoundFace.face, FoundFace.person_id, FoundFace.decided).where(
        FoundFace.owner == owner, FoundFace.pixels_sha256.in_(pixels)
    )
    found: dict[str, list[FaceSeen]] = {}
    for face_id, picture, column, person_id, decided in session.execute(query.order_by(FoundFace.number)).tuples():
        group = tops.get(person_id or "")
        top = tops.get(group.of, group) if group is not None and group.of else group
        found.setdefault(picture, []).append(
            FaceSeen(
                id=face_id,
                seen=SeenFace.load(column),
                person_id=top.id if top else None,
                number=top.number if top else None,
                name=top.name if top else None,
                handle=top.handle if top else None,
                decided=decided,
            )
        )
    return found


def totals(session: Session, owner: str, archive: str | None = None) -> Totals:
    """Count what was found."""
    where = [ScannedPhoto.owner == owner, *([ScannedPhoto.archive == archive] if archive is not None else [])]
    files, pictures = session.execute(
        select(func.count(), func.count(ScannedPhoto.pixels_sha256.distinct())).where(*where)
    ).one()
    flags = [
        func.coalesce(func.sum(case((FoundFace.face[name].as_boolean().is_(True), 1), else_=0).cast(Integer)), 0)
        for name in FAULTS
    ]
    nobody = func.coalesce(func.sum(case((FoundFace.person_id.is_(None), 1), else_=0)), 0)
    count, unsorted, small, blurred, dark, turned, inside = session.execute(
        select(func.count(), nobody, *flags).where(*_of(owner, archive))
    ).one()
    seen = (
        select(func.count(ROOT.distinct()))
        .select_from(FoundFace)
        .join(FoundPerson, FoundPerson.id == FoundFace.person_id)
        .where(*_of(owner, archive))
    )
    return Totals(
        photos=files,
        pictures=pictures,
        faces=count,
        people=session.scalar(seen) or 0,
        unsorted=unsorted,
        small=small,
        blurred=blurred,
        dark=dark,
        turned=turned,
        other_kind=count - inside,
    )


def looks(session: Session, owner: str, archive: str | None = None) -> Iterator[tuple[str, str, str, str, int, int]]:
    """Yield path, sha256 of the file and of its pixels, perceptual hash, width and height of every photo, by path."""
    where = [ScannedPhoto.owner == owner, *([ScannedPhoto.archive == archive] if archive is not None else [])]
    query = select(
        ScannedPhoto.path,
        ScannedPhoto.file_sha256,
        ScannedPhoto.pixels_sha256,
        ScannedPhoto.phash,
        ScannedPhoto.width,
        ScannedPhoto.height,
    ).where(*where)
    order = ScannedPhoto.archive, ScannedPhoto.path
    yield from session.execute(query.order_by(*order).execution_options(yield_per=AT_ONCE)).tuples()
