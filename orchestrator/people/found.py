"""People whom scans found: to be shown, named, merged, split and forgotten, and taken into the library with consent.

A group of faces is nobody in the library until somebody writes a consent down; then the best pictures of the group
become the person's references, and restorations know them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from orchestrator.archive.duplicates import Album, Look
from orchestrator.contracts.photos import SeenFace
from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.ledger import audit, identities
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.faces import groups, reports, scanned
from orchestrator.ledger.faces.reports import PersonSeen, Totals
from orchestrator.ledger.tables.rows_people import FoundFace
from orchestrator.ledger.views import standing
from orchestrator.people import identities as library
from orchestrator.people.identities import HANDLE, ConsentGiven, NewPerson, Picture
from orchestrator.people.scan import PRESET
from orchestrator.photos.restore import absolute
from orchestrator.planning.presets import load_preset, preset_names
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

SHOWN = 60
REFERENCES = 8
TO_PULL = ("sd15", "sdxl")
"""Presets that restore photographs once they are here."""
MOST_NAME = 200


def people(ledger: Ledger, owner: str, archive: str | None = None) -> list[dict[str, Any]]:
    """Return everybody who was found, those in most photos first, with what they allow."""
    place = absolute(archive) if archive else None
    with ledger.read() as session:
        allowed = identities.scopes(session, owner, now(session))
        return [_person(one, allowed) for one in reports.people(session, owner, place)]


def _person(one: PersonSeen, allowed: dict[str, tuple[str, frozenset[str]]]) -> dict[str, Any]:
    known = allowed.get(one.handle or "")
    return {
        "object": "person",
        **asdict(one),
        "best": list(one.best),
        "identity_id": known[0] if known else None,
        "scopes": sorted(known[1]) if known else [],
    }


def show(ledger: Ledger, owner: str, who: str, *, limit: int = SHOWN, offset: int = 0) -> dict[str, Any]:
    """Return a person with their faces, best first, and the files that show each.

    Raises:
        NotFoundError, ConflictError: there is no such person, or there are several.
    """
    with ledger.read() as session:
        row = groups.get(session, owner, who)
        parts = groups.parts(session, row.id)
        allowed = identities.scopes(session, owner, now(session))
        (found,) = reports.people(session, owner, only=parts)
        faces = reports.faces_of(session, owner, parts, limit=limit, offset=offset)
        paths = reports.paths(session, owner, [face.pixels_sha256 for face in faces])
        return {
            **_person(found, allowed),
            "groups": len(parts),
            "shown": [_face(face, paths.get(face.pixels_sha256, [])) for face in faces],
        }


def unsorted(ledger: Ledger, owner: str, *, limit: int = SHOWN, offset: int = 0) -> list[dict[str, Any]]:
    """Return faces that are nobody's, best first."""
    with ledger.read() as session:
        faces = reports.faces_of(session, owner, None, limit=limit, offset=offset)
        paths = reports.paths(session, owner, [face.pixels_sha256 for face in faces])
        return [_face(face, paths.get(face.pixels_sha256, [])) for face in faces]


def _face(face: FoundFace, paths: list[str]) -> dict[str, Any]:
    seen = SeenFace.load(face.face)
    return {
        "object": "face",
        "id": face.id,
        "photos": paths,
        "box": list(seen.box),
        "score": seen.score,
        "faults": list(seen.faults),
        "inside": seen.inside,
        "decided": face.decided,
    }


def crop(ledger: Ledger, vault: Vault, owner: str, face_id: str) -> bytes:
    """Return the JPEG of a face, opened from its seal.

    Raises:
        NotFoundError: there is no such face.
    """
    with ledger.read() as session:
        face = groups.face(session, owner, face_id)
        return vault.open(face.envelope, face.crop)


def name(ledger: Ledger, owner: str, who: str, given: str, handle: str | None = None) -> dict[str, Any]:
    """Give a person a name; with a handle, say that they are that person of the library.

    Raises:
        NotFoundError, ConflictError: there is no such person, or the handle is somebody else's.
        UsageError: the name or the handle has a wrong form.
    """
    text = unicodedata.normalize("NFC", given).strip()
    if not 0 < len(text) <= MOST_NAME or any(unicodedata.category(c).startswith("C") for c in text):
        raise UsageError(f"a name is one line of 1 to {MOST_NAME} characters, got {given[:80]!r}", code="bad_name")
    with ledger.write() as session:
        row = groups.get(session, owner, who)
        if handle is not None:
            _check_handle(handle)
            others = set(groups.of_handle(session, owner, handle)) - set(groups.parts(session, row.id))
            if others:
                raise ConflictError(
                    f"another group is {handle!r} already; merge the two if they are one person", code="handle_taken"
                )
            row.handle = handle
        row.name = text
        audit.write(session, owner, "people.name", row.id, {}, now(session))
        found = row.id
    return show(ledger, owner, found)


def merge(ledger: Ledger, owner: str, who: str, others: Sequence[str]) -> dict[str, Any]:
    """Make several people one, who keeps the number of the first.

    Raises:
        NotFoundError, ConflictError: there is no such person, or they cannot be one.
    """
    with ledger.write() as session:
        into = groups.get(session, owner, who)
        for other in [groups.get(session, owner, one) for one in others]:
            groups.merge(session, into, other)
        audit.write(session, owner, "people.merge", into.id, {"others": len(others)}, now(session))
        found = into.id
    return show(ledger, owner, found)


def split(ledger: Ledger, owner: str, faces: Sequence[str]) -> dict[str, Any]:
    """Make a new person of these faces.

    Raises:
        NotFoundError, ConflictError: there is no such face, or they cannot be one person.
    """
    with ledger.write() as session:
        row = groups.split(session, owner, _faces(session, owner, faces), now(session))
        audit.write(session, owner, "people.split", row.id, {"faces": len(faces)}, now(session))
        found = row.id
    return show(ledger, owner, found)


def refuse(ledger: Ledger, owner: str, faces: Sequence[str]) -> int:
    """Say of faces that they are not the person's in whose group they are; return how many.

    Raises:
        NotFoundError, ConflictError: there is no such face.
    """
    with ledger.write() as session:
        groups.refuse(session, _faces(session, owner, faces))
        groups.lonely(session, owner)
        audit.write(session, owner, "people.refuse", owner, {"faces": len(faces)}, now(session))
    return len(faces)


def give(ledger: Ledger, owner: str, who: str, faces: Sequence[str]) -> dict[str, Any]:
    """Say of faces that they are this person's.

    Raises:
        NotFoundError, ConflictError: there is no such person or face.
    """
    with ledger.write() as session:
        row = groups.get(session, owner, who)
        groups.belongs(session, _faces(session, owner, faces), row)
        groups.lonely(session, owner)
        audit.write(session, owner, "people.give", row.id, {"faces": len(faces)}, now(session))
        found = row.id
    return show(ledger, owner, found)


def _faces(session: Any, owner: str, faces: Sequence[str]) -> list[FoundFace]:
    if not faces:
        raise UsageError("say which faces, by their ids", code="no_faces")
    return [groups.face(session, owner, one) for one in faces]


def consent(
    ledger: Ledger,
    store: ByteStore,
    settings: Settings,
    owner: str,
    who: str,
    given: ConsentGiven,
    *,
    handle: str | None = None,
    preset: str | None = None,
) -> str | None:
    """Write down what a person allows; who is not in the library yet enters it by the best pictures of their group.

    Returns:
        The batch that takes them into the library, None where they were there.

    Raises:
        NotFoundError, ConflictError: there is no such person, or the handle is somebody else's.
        UsageError: they have no name yet, or no picture that shows them alone.
    """
    with ledger.read() as session:
        row = groups.get(session, owner, who)
        chosen = handle or row.handle or slug(row.name or "")
        _check_handle(chosen)
        living = identities.scopes(session, owner, now(session)).keys()
        there = chosen in living or _in_library(session, owner, chosen)
        if there and chosen != (handle or row.handle):
            raise ConflictError(
                f"there is a person {chosen!r} in the library; if this is them say --handle {chosen}, else another",
                code="handle_taken",
            )
        parts = groups.parts(session, row.id)
        faces = reports.faces_of(session, owner, parts, limit=SHOWN)
        decided = len(parts) > 1 or any(face.decided for face in faces)
        number, title = row.number, row.name
    name(ledger, owner, str(number) if title is None else row.id, title or chosen, chosen)
    if there:
        library.grant(ledger, owner, chosen, given)
        return None
    vault = Vault.of(settings)
    fit = [face for face in faces if (seen := SeenFace.load(face.face)).alone and not seen.faults]
    fit = fit or [face for face in faces if SeenFace.load(face.face).alone]
    if not fit:
        raise UsageError(
            f"no picture shows person {number} alone; add them with pictures of their own: fpga identity add {chosen}",
            code="no_reference",
        )
    pictures = tuple(
        Picture(name=f"face {face.id}", data=vault.open(face.envelope, face.crop)) for face in fit[:REFERENCES]
    )
    person = NewPerson(handle=chosen, name=title, pictures=pictures, consent=given, same_person=decided)
    return library.add(ledger, store, settings, [person], owner=owner, preset=preset or PRESET)


def _in_library(session: Any, owner: str, handle: str) -> bool:
    try:
        identities.get(session, owner, handle)
    except NotFoundError:
        return False
    return True


def slug(text: str) -> str:
    """Return a handle made of a name: its letters without marks, the rest as dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._")[:64]


def _check_handle(handle: str) -> None:
    if not HANDLE.fullmatch(handle) or len(handle) > 64 or handle.startswith("idn_"):
        raise UsageError(
            "say by --handle what manifests shall call this person: letters, digits, '.', '_' and '-'"
            + (f"; got {handle[:80]!r}" if handle else ""),
            code="bad_handle",
        )


def forget(ledger: Ledger, owner: str, who: str) -> int:
    """Remove a person with all their faces; return how many those were. Their photos are not looked at again.

    Raises:
        NotFoundError, ConflictError: there is no such person, or they are in the library and must be erased there.
    """
    with ledger.write() as session:
        row = groups.get(session, owner, who)
        if row.handle and _in_library(session, owner, row.handle):
            raise ConflictError(
                f"{row.handle!r} is in the library; `fpga identity erase {row.handle}` removes their faces here too",
                code="in_library",
            )
        count = groups.forget(session, owner, groups.parts(session, row.id))
        audit.write(session, owner, "people.forget", row.id, {"faces": count}, now(session))
    ledger.settle()
    return count


def forget_archive(ledger: Ledger, owner: str, archive: str) -> int:
    """Remove what was found in an archive; return how many photos of it were known.

    Raises:
        NotFoundError: no scan looked at it.
    """
    with ledger.write() as session:
        count = scanned.forget(session, owner, absolute(archive))
        if not count:
            raise NotFoundError(f"no scan looked at {archive!r}", code="archive_not_found")
        groups.lonely(session, owner)
        audit.write(session, owner, "people.forget_archive", owner, {"photos": count}, now(session))
    ledger.settle()
    return count


def totals(ledger: Ledger, owner: str, archive: str | None = None) -> Totals:
    """Count what was found."""
    with ledger.read() as session:
        return reports.totals(session, owner, absolute(archive) if archive else None)


def restorable(ledger: Ledger, settings: Settings, owner: str, archive: str | None = None) -> dict[str, Any]:
    """Return what a restoration would try: faces of people who allow it, presets that could, and how long each takes.

    `seconds` is what so many photos took this installation, None where it never restored any with that preset.
    """
    place = absolute(archive) if archive else None
    here = preset_names(settings.models_dir)
    presets = [load_preset(settings.models_dir, name) for name in here]
    able = [one.name for one in presets if one.draws and one.domain == "photographs"]
    with ledger.read() as session:
        allowed = [h for h, (_, s) in identities.scopes(session, owner, now(session)).items() if "restore" in s]
        faces, files = reports.showing(session, owner, allowed, place)
        ran = {name: standing.each_seconds(session, "restore", "restore", name) for name in able}
    return {
        "faces": faces,
        "photos": files,
        "presets": [
            {"name": name, "here": True, "seconds": round(median(ran[name]) * files, 1) if ran[name] else None}
            for name in able
        ]
        or [{"name": name, "here": False, "seconds": None} for name in TO_PULL],
    }


def report(ledger: Ledger, settings: Settings, owner: str, archive: str | None = None) -> dict[str, Any]:
    """Return counts of what was found, photos that are there twice, who allows nothing, and what can be restored.

    Raises:
        NotFoundError: `archive_not_found`, no scan looked at it.
    """
    place = absolute(archive) if archive else None
    album, twins = Album(), list[dict[str, str]]()
    with ledger.read() as session:
        counted = reports.totals(session, owner, place)
        if place is not None and not counted.photos:
            raise NotFoundError(f"no scan looked at {archive!r}", code="archive_not_found")
        for path, sha256, pixels, phash, width, height in reports.looks(session, owner, place):
            look = Look(key=path, sha256=sha256, pixels_sha256=pixels, phash=phash, width=width, height=height)
            if twin := album.add(look):
                twins.append({"photo": twin.key, "of": twin.of, "how": twin.how})
        archives = reports.archives(session, owner)
    silent = [one for one in people(ledger, owner, archive) if not one["scopes"]]
    return {
        "object": "people.report",
        "archives": archives,
        **asdict(counted),
        "without_consent": [{"number": one["number"], "name": one["name"], "photos": one["photos"]} for one in silent],
        "restorable": restorable(ledger, settings, owner, archive),
        "twins": twins,
    }
