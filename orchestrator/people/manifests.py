"""Takes a person out of the manifests that schedules stand on: rows that show or name them go, all others stay."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator

from orchestrator.contracts.schedules import ScheduledPortraits
from orchestrator.errors import ContractError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.privacy.register import Words
from orchestrator.ledger.queue import schedules
from orchestrator.planning.manifest import Format, as_utf8, separator_of
from orchestrator.storage import ByteStore

PEOPLE = "people"


def forget(ledger: Ledger, store: ByteStore, owner: str, words: Words) -> int:
    """Rewrite the manifests of an owner's schedules without a person; return how many rows went.

    A schedule of which no row is left stands still. Run again after a failure, it goes on.

    Raises:
        StoreUnavailableError: a manifest cannot be read or written.
        NotFoundError: one is not in the store any more.
    """
    with ledger.read() as session:
        found = list(schedules.listing(session, owner, "portraits"))
    taken = 0
    for row in found:
        try:
            task = ScheduledPortraits.load(row.task)
        except ContractError:  # what nobody can read never runs, and names no manifest
            continue
        if store.head(task.key) is None:  # it cannot run, and says so
            continue
        left, gone = without(store.get(task.key, sha256=task.sha256), task.format, words)
        if not gone:
            continue
        sha256 = hashlib.sha256(left or b"").hexdigest()
        fresh = task.model_copy(update={"key": f"s/{owner}/{sha256}.{task.format}", "sha256": sha256})
        if left is not None:
            store.put(fresh.key, left, media_type="text/plain", sha256=sha256)
        schedules.rewrite(ledger, row.id, fresh.dump(), active=row.active and left is not None)
        with ledger.read() as session:
            used = schedules.refers_to(session, task.key)
        if not used:
            store.delete(task.key)
        taken += gone
    return taken


def without(manifest: bytes, form: Format, words: Words) -> tuple[bytes | None, int]:
    """Return a manifest without the rows that show or name a person, None where no row is left; and how many went."""
    text = as_utf8(manifest, []).decode("utf-8", "surrogateescape")
    head, rows, column = ("", list(_lines(text)), None) if form == "jsonl" else _records(text)
    kept = [row for row in rows if not _tells(row, column, form, words)]
    if len(kept) == len(rows):
        return manifest, 0
    left = head + "".join(raw for raw, _ in kept)
    return (left.encode("utf-8", "surrogateescape") if kept else None), len(rows) - len(kept)


Row = tuple[str, list[str]]
"""As it stands in the file, line end included, and its cells; a line of JSON is one cell."""


def _lines(text: str) -> Iterator[Row]:
    for line in io.StringIO(text, newline=""):
        if line.strip():
            yield line, [line]


def _records(text: str) -> tuple[str, list[Row], int | None]:
    """Return what stands before the first row of a CSV file, its rows, and the number of the column of people."""
    separator, told = separator_of(text)
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=separator)
    head, rows, column, header = "", list[Row](), None, False
    done = 0
    try:
        for number, cells in enumerate(reader, start=1):
            raw, done = "".join(lines[done : reader.line_num]), reader.line_num
            if header:
                rows.append((raw, cells))
                continue
            head += raw
            if any(cell.strip() for cell in cells) and not (told and number == 1):
                names = [cell.strip().lower() for cell in cells]
                header, column = True, names.index(PEOPLE) if PEOPLE in names else None
    except csv.Error:  # nothing after it is read when the time comes either
        rows.append(("".join(lines[done:]), lines[done:]))
    return head, rows, column


def _tells(row: Row, column: int | None, form: Format, words: Words) -> bool:
    raw, cells = row
    if words.identity_id in raw or any(pattern in raw for pattern in words.patterns()):
        return True
    if words.handle is None:
        return False
    shown = _people(raw) if form == "jsonl" else cells[column] if column is not None and column < len(cells) else raw
    return words.handle in re.split(r"[^A-Za-z0-9._-]+", shown)


def _people(line: str) -> str:
    """Return the people of a line of JSON as text; a line that is none is looked at whole."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return json.dumps(value.get(PEOPLE)) if isinstance(value, dict) else line
