"""What became of every file of a source: `files.jsonl`, one line for each entry.

Photos stand in the ledger as items, what is no photo in the list of `orchestrator.archive.passed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.archive.passed import passed_of
from orchestrator.ledger.tables.rows import Batch
from orchestrator.results.results import errors_lines, results_lines
from orchestrator.storage import ByteStore


def files_lines(
    session: Session, store: ByteStore, batch: Batch, names: Mapping[str, str], copied: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    """Yield what became of each file: restored, unchanged, copied, refused or skipped, with the reason.

    Args:
        names: what results are written as, by item id.
        copied: paths of files that were copied as they are, with the error where that went wrong.
    """
    for item in results_lines(session, batch):
        changed = (item["scores"] or {}).get("changed", True)
        yield {
            "path": item["params"].get("source_path", item["params"].get("path")),
            "outcome": "restored" if changed else "unchanged",
            "output": names.get(item["id"]),
            "custom_id": item["custom_id"],
            "verdict": item["verdict"],
            "reason": (item["scores"] or {}).get("reason"),
            "notes": (item["scores"] or {}).get("notes", []),
        }
    for line in errors_lines(session, batch):
        yield _other(line.get("path") or line["custom_id"], "refused", line["error"], copied)
    for one in passed_of(store, batch.options):
        yield _other(one.path, "skipped", {"code": "no_photo", "message": one.reason}, copied)


def _other(
    path: str | None, outcome: str, reason: Mapping[str, Any], copied: Mapping[str, str | None]
) -> dict[str, Any]:
    done = path is not None and path in copied and copied[path] is None
    said = {"path": path, "outcome": "copied" if done else outcome, "output": path if done else None, "reason": reason}
    error = copied.get(path) if path is not None else None
    return {**said, "error": error} if error else said
