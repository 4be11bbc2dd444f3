"""What an item's page shows, in one object: the picture, the verdict with who is who, every stage. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.ledger import identities, photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import ItemDetail
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.views import gallery, listings
from orchestrator.pictures import SHOWN_TYPES
from orchestrator.results import results

REDO_STATES = ("completed", "failed", "held")


def item(
    ledger: Ledger, owner: str, item_id: str, *, names: bool, show: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return an item with its batch, versions, people, matrix and neighbours.

    Args:
        names: whether the reader may see who people are; else their ids stand there.
        show, code: what the gallery that one came from was cut down to: neighbours are of the same kind.

    Raises:
        NotFoundError: there is no such item of this owner.
    """
    with ledger.read() as session:
        found = listings.item(session, owner, item_id)
        batch = session.get_one(Batch, found.batch_id)
        (detail,) = batches.details(session, [found])
        labels = _labels(session, owner) if names else {}
        before, after = gallery.neighbours(session, found, show=show, code=code)
        shown = results.item_object(detail)
        people = _people(shown, labels)
        photo = batch.kind == photos.KIND
        return {
            **shown,
            "batch": {"id": batch.id, "name": batch.name, "kind": batch.kind, "options": batch.options},
            "ended": found.state in ENDED,
            "photo": photo,
            "picture": _picture(detail),
            "versions": _versions(detail),
            "people": people,
            "matrix": _matrix(shown["scores"], people),
            "faces": _faces(shown["scores"], labels) if photo else [],
            "previews": (shown["scores"] or {}).get("previews"),
            "may_redo": photo and found.state in REDO_STATES,
            "may_reproduce": batch.kind == "generate" and found.output_id is not None,
            "boxes": _boxes(shown["scores"]) if photo else [],
            "review_at": _review_at(batch.id, found.id, show),
            "previous": before,
            "next": after,
        }


def _review_at(batch_id: str, item_id: str, show: str | None) -> str:
    return f"/batches/{batch_id}/review{f'?show={show}' if show else ''}#{item_id}"


def _boxes(scores: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return where the faces of a photo are, numbered as the table of faces has them."""
    found = enumerate((scores or {}).get("faces") or [], start=1)
    return [{"number": number, "box": face["box"]} for number, face in found if face.get("box")]


def _labels(session: Session, owner: str) -> dict[str, str]:
    return {row.id: row.name or row.handle or row.id for row, _ in identities.listing(session, owner)}


def _picture(detail: ItemDetail) -> dict[str, Any] | None:
    """Return the chosen picture's size, and whether a browser can show its bytes as they are."""
    chosen = next(((o, a) for o, a in detail.outputs if o.id == detail.item.output_id), None)
    if chosen is None:
        return None
    output, stored = chosen
    return {
        "output_id": output.id,
        "width": output.width,
        "height": output.height,
        "kept": stored.state == "live",
        "showable": stored.media_type in SHOWN_TYPES,
        "media_type": stored.media_type,
        "record": output.record,
        "model_version": output.model_version_id,
    }


def _versions(detail: ItemDetail) -> list[dict[str, Any]]:
    """Return every picture that was made of the item: redraws of a portrait, candidates of a photo."""
    return [
        {
            "output_id": output.id,
            "round": output.round,
            "seed": output.seed,
            "verdict": output.verdict,
            "similarity": output.similarity,
            "chosen": output.id == detail.item.output_id,
            "kept": stored.state == "live",
        }
        for output, stored in detail.outputs
    ]


def _people(item: Mapping[str, Any], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the people asked for, each with what was found at their place and what became of a small face."""
    asked = item["params"].get("people") or []
    judged = (item["scores"] or {}).get("people") or [{} for _ in asked]
    record = item["output"]["record"] if item["output"] else {}
    small = {face["person"]: face for face in record.get("small_faces") or []}
    shown = [labels.get(one["identity"], one["identity"]) for one in asked]
    return [
        {
            "id": one["identity"],
            "label": label,
            "known": one["identity"] in labels,
            "slot": one.get("slot"),
            "similarity": score.get("similarity"),
            "face": score.get("face"),
            "small_face": small.get(index),
            "taken_for": shown[score["nearest"]] if score.get("nearest") not in (None, index) else None,
        }
        for index, (one, label, score) in enumerate(zip(asked, shown, judged, strict=True))
    ]


def _matrix(scores: Mapping[str, Any] | None, people: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each face that was found: its box, and its cosine with everybody asked for."""
    if not scores or not people:
        return []
    boxes = [face["box"] for face in scores.get("faces") or []]
    rows = []
    for index, values in enumerate(scores.get("matrix") or []):
        cells = [
            {"value": value, "own": person["face"] == index, "best": value == max(values)}
            for value, person in zip(values, people, strict=True)
        ]
        rows.append({"number": index + 1, "box": boxes[index] if index < len(boxes) else None, "cells": cells})
    return rows


def _faces(scores: Mapping[str, Any] | None, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what happened to each face of a photo."""
    shown = []
    for face in (scores or {}).get("faces") or []:
        who = face.get("person") or {}
        identity = who.get("identity")
        archive = f"person {who['archive_person']} of the archive" if who.get("archive_person") is not None else ""
        shown.append(
            {
                "person": labels.get(identity, identity) if identity else archive,
                "outcome": face["outcome"],
                "before": face.get("before"),
                "after": face.get("after"),
                "verdict": face.get("verdict"),
            }
        )
    return shown
