"""All pictures of a batch as one zip that is written while it is read: no copy on disk, one picture in memory."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.errors import NotFoundError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import outputs
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, Output
from orchestrator.ledger.views import listings
from orchestrator.planning.naming import distinct
from orchestrator.results import delivery
from orchestrator.results.files import files_lines
from orchestrator.results.results import errors_lines, json_line, results_lines, written_out
from orchestrator.storage import ByteStore

Lines = Callable[[Session, Batch], Iterator[dict[str, object]]]
Row = tuple[Item, Output, Artifact]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One picture: its name in the zip, where its bytes are, and the time that its file gets."""

    name: str
    key: str
    sha256: str
    time: datetime


def entries(ledger: Ledger, owner: str, batch_id: str, items: Container[str] | None = None) -> list[Entry]:
    """Return what the zip will hold: portraits by custom_id, photos in the tree of their archive.

    No two names are one on any file system that it may be unpacked to (orchestrator.planning.naming).

    Args:
        items: ids of the items whose pictures are wanted; all of them by default.

    Raises:
        NotFoundError: there is no such batch of this owner.
    """
    with ledger.read() as session:
        batch = listings.batch(session, owner, batch_id)
        rows = list(outputs.finished(session, batch.id))
        if batch.kind == photos.KIND:
            names = delivery.names(session, batch.id)
        else:
            rows = [row for row in rows if row[1].id == row[0].output_id]
            names = {output.id: f"{item.custom_id}.png" for item, output, _ in rows}
        whole = distinct({output.id: names[output.id] for _, output, _ in rows})
        return [
            Entry(
                name=whole[output.id],
                key=artifact.key,
                sha256=artifact.sha256,
                time=(batch.kind == photos.KIND and delivery.modified(item)) or output.created_at,
            )
            for item, output, artifact in rows
            if items is None or item.id in items
        ]


def written(ledger: Ledger, store: ByteStore, owner: str, batch_id: str, found: list[Entry]) -> Iterator[bytes]:
    """Yield the zip: results.jsonl and errors.jsonl first, then the pictures, stored as they are.

    A picture that was erased meanwhile is left out.

    Raises:
        StoreUnavailableError, TransientError: bytes cannot be read; the zip ends half-way and does not open.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        with ledger.read() as session:
            batch = listings.batch(session, owner, batch_id)
            lists: dict[str, Lines] = {"results.jsonl": results_lines, "errors.jsonl": errors_lines}
            if batch.kind == photos.KIND:
                lists["files.jsonl"] = partial(files, store)
        for name, lines in lists.items():
            with archive.open(_info(name, batch.created_at), "w", force_zip64=True) as file:
                for piece in written_out(ledger, partial(_listed, lines, owner, batch_id)):
                    file.write(piece)
                    yield sink.taken()
        for entry in found:
            try:
                data = store.get(entry.key, sha256=entry.sha256)
            except NotFoundError:
                continue
            archive.writestr(_info(entry.name, entry.time), data)
            yield sink.taken()
    yield sink.taken()


def _listed(lines: Lines, owner: str, batch_id: str, session: Session) -> Iterator[bytes]:
    return map(json_line, lines(session, listings.batch(session, owner, batch_id)))


def files(store: ByteStore, session: Session, batch: Batch) -> Iterator[dict[str, Any]]:
    """Return the lines of files.jsonl with the names that the zip gives to results; nothing of portraits."""
    if batch.kind != photos.KIND:
        return iter(())
    known = delivery.names(session, batch.id)
    chosen = [row for row in outputs.finished(session, batch.id) if row[1].id == row[0].output_id]
    return files_lines(session, store, batch, {item.id: known[output.id] for item, output, _ in chosen}, {})


def _info(name: str, time: datetime) -> zipfile.ZipInfo:
    """Return the head of an entry: its time in the zone of this machine, and the same in UTC beside it.

    A zip knows no year before 1980 and none after 2107, its second field none before 1901 and after 2038.
    """
    local = time.astimezone().timetuple()[:6]
    made = zipfile.ZipInfo(name, min(max(local, (1980, 1, 1, 0, 0, 0)), (2107, 12, 31, 23, 59, 58)))
    seconds = int(time.timestamp())
    if -(2**31) <= seconds < 2**31:
        made.extra = struct.pack("<HHBl", 0x5455, 5, 1, seconds)
    made.external_attr = 0o600 << 16
    return made


class _Sink(io.RawIOBase):
    """Takes what the archive writes until it is fetched."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """Say that it can be written to; it cannot seek, and zipfile needs no more."""
        return True

    def write(self, data: object) -> int:
        """Keep a piece."""
        piece = bytes(data)  # type: ignore[call-overload]  # any buffer
        self._pieces.append(piece)
        return len(piece)

    def taken(self) -> bytes:
        """Return what came since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
