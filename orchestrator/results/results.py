"""The JSON objects of batches and items: the same for the command line, sidecars, results.jsonl and HTTP.

Field names follow the OpenAI-shaped batch APIs where those have one (`status`, `request_counts`, `custom_id`); ours
stand beside them. Light objects for lists, heavy ones for one batch.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.contracts.people import EnrolParams
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED, ENDED, BatchState, State
from orchestrator.ledger.queue import batches, reviews
from orchestrator.ledger.queue.batches import ItemDetail
from orchestrator.ledger.tables.rows import Artifact, Attempt, Batch, Item, Output, Stage
from orchestrator.ledger.tables.rows_reviews import Review
from orchestrator.ledger.views import history
from orchestrator.storage.streams import PIECE, SPOOL_LIMIT

STATUS_WORDS = {"completed_with_errors": "completed", "paused": "in_progress"}
"""Our batch states that the usual `status` has no word for; `state` has the exact one."""
PAGE = 500
PAUSED = 3
"""What a command ends with that waited for a batch which somebody, or the batch itself, has paused."""
NOT_FOR_THIS_PRESET, OTHER_PRESET = ("outside_domain", "no_generator"), 4
"""Reasons for which photos stay that another preset would do, and what a command that waited for such ends with."""


def batch_object(session: Session, batch: Batch) -> dict[str, Any]:
    """Return everything about a batch but its items: counts by state, error code and verdict, and stage times."""
    counts = batches.counts(session, batch.id)
    return {
        **batch_line(batch, counts),
        "counts": counts,
        "rejected_rows": len(batch.rejected_rows),
        "open": batch.open,
        "error_counts": _with_rejected(batches.error_counts(session, batch.id), batch),
        "verdicts": batches.verdict_counts(session, batch.id),
        "unchanged": batches.unchanged_counts(session, batch.id) if batch.kind == photos.KIND else {},
        "stages": [
            {
                "name": name,
                "count": len(times.run),
                "queue_seconds": spread(times.queue),
                "run_seconds": spread(times.run),
            }
            for name, times in history.stage_times(session, batch.id).items()
        ],
        "model_version": batch.model_version_id,
        "parent_id": batch.parent_id,
        "flow_run_id": batch.flow_run_id,
        "idempotency_key": batch.idempotency_key,
        "options": batch.options,
        "reason": batch.reason,
        "paused_at": _time(batch.paused_at),
        "seconds": _between(batch.started_at, batch.finished_at),
    }


def batch_line(batch: Batch, counts: dict[str, int]) -> dict[str, Any]:
    """Return the light object of a batch for lists; rows that were left out count as failed."""
    rejected = len(batch.rejected_rows)
    return {
        "id": batch.id,
        "object": "batch",
        "kind": batch.kind,
        "name": batch.name,
        "status": STATUS_WORDS.get(batch.state, batch.state),
        "state": batch.state,
        "request_counts": {
            "total": batch.total + rejected,
            "completed": counts["completed"],
            "failed": counts["failed"] + counts["held"] + rejected,
        },
        "owner": batch.owner,
        "lane": batch.lane,
        "priority": batch.priority,
        "preset": batch.preset,
        "created_at": _time(batch.created_at),
        "started_at": _time(batch.started_at),
        "finished_at": _time(batch.finished_at),
    }


def item_object(detail: ItemDetail, *, library: bool = False) -> dict[str, Any]:
    """Return everything about an item: what was asked, what came out, and each stage with its attempts.

    Args:
        library: whether the asker may see the library; else an enrolment tells nobody's name. Keys never leave.
    """
    item = detail.item
    chosen = next(((o, a) for o, a in detail.outputs if o.id == item.output_id), None)
    attempts: dict[int, list[Attempt]] = {}
    for attempt in detail.attempts:
        attempts.setdefault(attempt.stage_id, []).append(attempt)
    return {
        "id": item.id,
        "object": "batch.item",
        "batch_id": item.batch_id,
        "custom_id": item.custom_id,
        "position": item.position,
        "status": item.state,
        "seed": item.seed,
        "params": _asked_for(item, library=library),
        "output": _output(*chosen) if chosen else None,
        "verdict": item.verdict,
        "similarity": item.similarity,
        "scores": chosen[0].scores if chosen else None,
        "redraws": item.redraws,
        "review": review_object(detail.review),
        "stages": [_stage(stage, attempts.get(stage.id, [])) for stage in detail.stages],
        "error": item_error(item),
        "created_at": _time(item.created_at),
        "started_at": _time(item.started_at),
        "finished_at": _time(item.finished_at),
    }


def _asked_for(item: Item, *, library: bool) -> dict[str, Any]:
    """Return what was asked of an item: of an enrolment who and what without the keys, or only how many pictures."""
    if "ingest" not in item.stages:
        return item.params
    given = EnrolParams.load(item.params)
    if not library:
        return {"references": len(given.references)}
    shown = given.model_dump(mode="json", include={"handle", "name", "consent"})
    return {**shown, "references": [{"file_name": one.file_name} for one in given.references]}


def item_lines(session: Session, batch: Batch) -> list[dict[str, Any]]:
    """Return the light objects of all items, in manifest order."""
    ran, reviewed = history.run_seconds(session, batch.id), reviews.of_batch(session, batch.id)
    return [item_line(item, ran.get(item.id), reviewed.get(item.id)) for item in batches.items(session, batch.id)]


def item_line(item: Item, run_seconds: float | None, review: Review | None = None) -> dict[str, Any]:
    """Return the light object of an item; `seconds` has what it waited between its stages, `run_seconds` has not."""
    return {
        "id": item.id,
        "object": "batch.item",
        "custom_id": item.custom_id,
        "status": item.state,
        "seed": item.seed,
        "verdict": item.verdict,
        "similarity": item.similarity,
        "redraws": item.redraws,
        "review": review_object(review),
        "error": item_error(item),
        "started_at": _time(item.started_at),
        "finished_at": _time(item.finished_at),
        "seconds": _between(item.started_at, item.finished_at),
        "run_seconds": None if run_seconds is None else round(run_seconds, 3),
    }


def review_object(review: Review | None) -> dict[str, Any] | None:
    """Return what a person said of an item: decision (`approved`, `rejected` or null), star, note, who and when."""
    if review is None:
        return None
    return {
        "decision": review.decision,
        "starred": review.starred,
        "note": review.note or None,
        "by": review.by,
        "at": _time(review.at),
    }


def item_error(item: Item) -> dict[str, Any] | None:
    """Return the story of an item that went wrong, or of the last mishap of one that still tries."""
    if item.error_code is None:
        return None
    return {
        "code": item.error_code,
        "message": item.error_message,
        "stage": item.error_stage,
        "attempt": item.error_attempt,
    }


def results_lines(session: Session, batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield the objects of the items that are completed, in manifest order; true at any moment."""
    yield from _pages(session, batch, (State.COMPLETED,))


def errors_lines(session: Session, batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield what went wrong, rows left out at submit first, then items; joined on `custom_id`."""
    for row in batch.rejected_rows:
        error = {"code": row["code"], "message": row["message"], "stage": "validate", "field": row["field"]}
        if "more" in row:
            error["more"] = row["more"]
        yield {"custom_id": row["custom_id"], "row": row["row"], "status": "rejected", "error": error}
    for found in _pages(session, batch, (State.FAILED, State.HELD, State.CANCELLED)):
        error = found["error"] or {"code": "cancelled", "message": "the item was cancelled before it ended"}
        line = {"custom_id": found["custom_id"], "id": found["id"], "status": found["status"], "error": error}
        yield line | ({"path": found["params"]["path"]} if "path" in found["params"] else {})


CSV_COLUMNS = (
    "custom_id",
    "status",
    "verdict",
    "similarity",
    "seed",
    "redraws",
    "run_seconds",
    "code",
    "message",
    "decision",
    "starred",
    "note",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet may take a cell for a formula by."""


def csv_lines(session: Session, batch: Batch) -> Iterator[str]:
    """Yield a table of all items, in manifest order; text that would be a formula has a quote before it."""
    yield _csv_row(CSV_COLUMNS)
    for line in item_lines(session, batch):
        error = line["error"] or {}
        told = {**error, **(line["review"] or {}), **line}
        yield _csv_row([told.get(name) for name in CSV_COLUMNS])


def _csv_row(cells: Sequence[object]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(
        [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in cells]
    )
    return out.getvalue()


def json_line(value: Mapping[str, Any]) -> bytes:
    """Return one line of a list as it is written to files."""
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()


def written_out(ledger: Ledger, lines: Callable[[Session], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield what `lines` makes of a session, in pieces, once the session is closed.

    Whoever reads slowly, or not at all, holds a temporary file and no connection to the database.
    """
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_LIMIT) as spool:
        with ledger.read() as session:
            for line in lines(session):
                spool.write(line)
        spool.seek(0)
        yield from iter(partial(spool.read, PIECE), b"")


def exit_code(batch: dict[str, Any]) -> int:
    """Return what a command that waited for this batch ends with.

    0 good, 2 finished with failed items, 3 paused, 4 finished, with photos that this preset could not do: it was not
    made for them, or has no generator.
    """
    if batch["state"] == BatchState.PAUSED:
        return PAUSED
    if batch["state"] in BATCH_ENDED and batch["state"] != BatchState.COMPLETED:
        return 2
    return OTHER_PRESET if any(batch.get("unchanged", {}).get(code) for code in NOT_FOR_THIS_PRESET) else 0


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return the p50, p90 (nearest rank) and maximum of some durations, in milliseconds' precision."""
    ranked = sorted(seconds)
    return {
        "p50": round(ranked[_rank(0.5, len(ranked))], 3),
        "p90": round(ranked[_rank(0.9, len(ranked))], 3),
        "max": round(ranked[-1], 3),
    }


def _rank(share: float, count: int) -> int:
    return max(0, math.ceil(share * count) - 1)


def _pages(session: Session, batch: Batch, states: Sequence[str]) -> Iterator[dict[str, Any]]:
    after = -1
    while page := batches.items(session, batch.id, states=states, after=after, limit=PAGE):
        yield from (item_object(detail) for detail in batches.details(session, page))
        after = page[-1].position


def _output(output: Output, artifact: Artifact) -> dict[str, Any]:
    return {
        "id": output.id,
        "sha256": artifact.sha256,
        "key": artifact.key,
        "size": artifact.size,
        "media_type": artifact.media_type,
        "width": output.width,
        "height": output.height,
        "round": output.round,
        "seed": output.seed,
        "model_version": output.model_version_id,
        "small_faces": small_faces(output.record),
        "record": output.record,
    }


def small_faces(record: Mapping[str, Any]) -> str | None:
    """Say how many small faces of a portrait were drawn again; None where it has none, or they were to be kept."""
    faces = record.get("small_faces") or []
    again = sum(face["outcome"] == "changed" for face in faces)
    return f"{again} of {len(faces)} small face{'s' if len(faces) > 1 else ''} drawn again" if faces else None


def _stage(stage: Stage, attempts: Sequence[Attempt]) -> dict[str, Any]:
    ended = stage.state in ENDED
    return {
        "name": stage.name,
        "round": stage.round,
        "state": stage.state,
        "progress": round(stage.progress, 3),
        "attempts": [_attempt(attempt) for attempt in attempts],
        "queued_at": _time(stage.queued_at),
        "started_at": _time(stage.started_at),
        "finished_at": _time(stage.finished_at),
        "queue_seconds": _between(stage.queued_at, stage.started_at),
        "seconds": _between(stage.started_at, stage.finished_at) if ended else None,
    }


def _attempt(attempt: Attempt) -> dict[str, object]:
    error = {"code": attempt.error_code, "message": attempt.error_message} if attempt.error_code else None
    return {
        "attempt": attempt.token,
        "worker_id": attempt.worker_id,
        "group_size": attempt.group_size,
        "outcome": attempt.outcome,
        "started_at": _time(attempt.started_at),
        "ended_at": _time(attempt.ended_at),
        "error": error,
    }


def _with_rejected(counts: dict[str, int], batch: Batch) -> dict[str, int]:
    for row in batch.rejected_rows:
        counts[row["code"]] = counts.get(row["code"], 0) + 1
    return counts


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return round(max(0.0, (end - start).total_seconds()), 3) if start and end else None
