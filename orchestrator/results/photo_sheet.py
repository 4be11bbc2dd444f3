"""The before/after sheet of a restored archive: what is finished now, what failed, what looks the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.archive.duplicates import Album, Look
from orchestrator.archive.passed import passed_of
from orchestrator.contracts.photos import PhotoOptions, PhotoParams
from orchestrator.errors import UsageError
from orchestrator.ledger import identities, photos
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.results.before_after import BeforeAfter, Photo, write_before_after
from orchestrator.results.results import errors_lines, results_lines
from orchestrator.storage import ByteStore
from orchestrator.wording import cosine

MOST_PHOTOS = 5000


def write_photo_sheet(session: Session, store: ByteStore, batch: Batch, path: Path) -> Path:
    """Write the sheet of a restore batch with its pictures beside it and return its path.

    Raises:
        ConflictError: a file is there already.
        UsageError: the batch has too many photos for one page, or the file cannot be written.
        StoreUnavailableError, TransientError: bytes cannot be read, or the disk is full.
    """
    if batch.total > MOST_PHOTOS:
        raise UsageError(
            f"a sheet shows at most {MOST_PHOTOS} photos, this batch has {batch.total}; see --download",
            code="too_many_pictures",
        )
    handles = {row.id: row.handle or row.id for row, _ in identities.listing(session, batch.owner)}
    finished = [item for item in results_lines(session, batch) if item["output"] and item["scores"]]
    sheet = BeforeAfter(
        title=batch.name,
        batch_id=batch.id,
        state=batch.state,
        facts=_facts(session, batch),
        photos=[_photo(item, store, handles) for item in finished],
        failures=[_failure(line) for line in errors_lines(session, batch)],
        others=[(one.path, one.reason) for one in passed_of(store, batch.options)],
        near=list(near_pairs(session, batch.id)),
    )
    return write_before_after(path, sheet)


def near_pairs(session: Session, batch_id: str) -> Iterator[tuple[str, str]]:
    """Yield (path, path of an earlier one) of photos that are the same, or look so."""
    album = Album()
    paths: dict[str, str] = {}
    said = dict(photos.ingested(session, batch_id))
    for item in batches.items(session, batch_id):
        found = said.get(item.id)
        photo = PhotoParams.load(item.params)
        if found is None or photo.original is None:
            continue
        paths[item.id] = photo.path
        twin = album.add(
            Look(
                key=item.id,
                sha256=photo.original.sha256,
                pixels_sha256=found.pixels_sha256,
                phash=found.phash,
                width=found.width,
                height=found.height,
            )
        )
        if twin is not None and twin.how == "near":
            yield paths[twin.of], paths[item.id]


def _facts(session: Session, batch: Batch) -> dict[str, str]:
    counts = batches.counts(session, batch.id)
    verdicts = batches.verdict_counts(session, batch.id)
    options = PhotoOptions.load(batch.options)
    people = photos.people(session, options.people_of or batch.id)
    facts = {
        "photos": ", ".join(f"{count} {state}" for state, count in counts.items() if count),
        "verdicts": ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in verdicts.items()),
        "fidelity": str(options.fidelity),
        "preset": f"{batch.preset}, {batch.model_version_id}",
    }
    if people:
        facts["people"] = f"{len(people)} found by their faces; their best faces are the references"
    return facts


def _photo(item: Mapping[str, Any], store: ByteStore, handles: Mapping[str, str]) -> Photo:
    scores, output = item["scores"], item["output"]
    previews = scores["previews"]
    return Photo(
        path=item["params"]["path"],
        verdict=item["verdict"] or "",
        reason=(scores.get("reason") or {}).get("message", ""),
        size=f"{output['width']} x {output['height']} px",
        faces=[_face(face, handles) for face in scores["faces"]],
        notes=scores["notes"],
        reused=any(scores["reused_from"].values()),
        before=partial(store.get, previews["before"]["key"], sha256=previews["before"]["sha256"]),
        after=partial(store.get, previews["after"]["key"], sha256=previews["after"]["sha256"]),
    )


def _face(face: Mapping[str, Any], handles: Mapping[str, str]) -> dict[str, str]:
    person = face["person"] or {}
    who = person.get("identity")
    name = handles.get(who, who) if who else f"person {person['archive_person']} of the archive" if person else ""
    return {
        "person": str(name or ""),
        "outcome": str(face["outcome"]).replace("_", " "),
        "before": cosine(face.get("before")) if face.get("before") is not None else "",
        "after": cosine(face.get("after")) if face.get("after") is not None else "",
    }


def _failure(line: Mapping[str, Any]) -> dict[str, str]:
    error = line["error"]
    return {
        "path": str(line.get("path") or line["custom_id"] or ""),
        "stage": str(error.get("stage") or ""),
        "code": str(error["code"]),
        "message": str(error["message"]),
    }
