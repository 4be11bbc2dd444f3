"""Files on their way in: parts arrive in order, a cut one is gone on with, and the whole is stored under its hash.

Every part is an object of its own in the byte store, so any server of a deployment can take the next one, on any kind
of store. An S3 store can be handed the parts without us, by links that we sign (`part_links`, `finish`); the parts are
then one object beside where ours would lie. What is not finished, or not used, is swept away after a day.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO, Any

from orchestrator import logs
from orchestrator.archive.kinds import HEAD
from orchestrator.archive.originals import SUFFIXES
from orchestrator.archive.reach import KEPT
from orchestrator.errors import ConflictError, InputError, UsageError
from orchestrator.ledger import artifacts, uploads
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.ledger.tables.rows_api import Upload
from orchestrator.pictures import MEDIA_TYPES, photo_format
from orchestrator.storage import ByteStore, PartStore, content_key
from orchestrator.storage.base import MAX_URL_SECONDS
from orchestrator.storage.keys import check_sha256
from orchestrator.storage.streams import spooled

PREFIX = "uploads/"
"""Of the keys of all parts."""
MOST_OPEN = 200
PART_BYTES, MOST_PARTS = 16 * 2**20, 10_000
"""Of what a client hands to the store itself; S3 takes no more parts."""
MOST_LINKS = 100
READING_DAYS = 7.0
"""So long an uploaded archive is kept for whoever reads it."""
OTHER = "application/octet-stream"


def begin(ledger: Ledger, owner: str, *, name: str, size: int, sha256: str | None, most_bytes: int) -> dict[str, Any]:
    """Enter a file that will be sent and return its object.

    Raises:
        UsageError: it is empty or too large, or the sha256 is none.
        ConflictError: too many uploads are unfinished.
    """
    if not 1 <= size <= most_bytes:
        raise UsageError(f"an upload has 1 to {most_bytes} bytes, got {size}", code="upload_too_large")
    said = check_sha256(sha256) if sha256 else ""
    return upload_object(uploads.begin(ledger, owner=owner, name=name, size=size, sha256=said, most=MOST_OPEN))


def look(ledger: Ledger, owner: str, upload_id: str) -> Upload:
    """Return an upload as it stands.

    Raises:
        NotFoundError: there is none.
    """
    with ledger.read() as session:
        return uploads.get(session, owner, upload_id)


def receive(ledger: Ledger, store: ByteStore, owner: str, upload_id: str, *, at: int, part: IO[bytes]) -> Upload:
    """Take the next part, and store the whole under its hash when it was the last one.

    Raises:
        NotFoundError: there is no such upload.
        ConflictError: it goes on at another byte, ask where; or its parts go to the store itself.
        UsageError: the part holds more than is missing.
        InputError: `checksum_mismatch`, the whole is not what the client said; the upload is given up.
        StoreUnavailableError: the store is full or does not answer; what arrived before stays.
    """
    upload = look(ledger, owner, upload_id)
    if upload.parts_id:
        raise ConflictError(f"the parts of upload {upload_id} go to the store, by its links", code="upload_in_parts")
    if upload.state != "open" or upload.received != at:
        raise ConflictError(f"upload {upload_id} goes on at byte {upload.received}, not at {at}", code="upload_offset")
    with spooled(part) as (copy, sha256, size):  # type: ignore[arg-type]  # IO is a BinaryIO
        if at + size > upload.size:
            raise UsageError(f"the upload has {upload.size} bytes; this part ends at {at + size}", code="part_too_long")
        if size:
            # the hash in the key: a part that was sent twice is the same object; which one counts, its row says
            key = f"{_folder(upload_id)}{at:016d}-{size}-{sha256[:16]}"
            store.put(key, copy, media_type=OTHER, sha256=sha256)  # type: ignore[arg-type]  # IO is a BinaryIO
            uploads.advance(ledger, upload_id, at=at, by=size, key=key)
    if at + size == upload.size:
        _finish(ledger, store, upload)
    return look(ledger, owner, upload_id)


def part_links(
    ledger: Ledger,
    store: ByteStore,
    owner: str,
    upload_id: str,
    *,
    numbers: Sequence[int] = (),
    seconds: int = MAX_URL_SECONDS,
) -> dict[str, object]:
    """Return links by which the store itself takes parts of an upload, and which parts it has.

    Args:
        numbers: of the parts that links are wanted for, from 1; without any, the first MOST_LINKS that are missing.
        seconds: how long the links live, 1 to 900.

    Raises:
        NotFoundError: there is no such upload.
        ConflictError: `store_takes_no_parts`, or the upload has ended, or has bytes that came here.
        UsageError: there is no part of such a number.
    """
    look(ledger, owner, upload_id)
    if not isinstance(store, PartStore):
        raise ConflictError("this store takes no parts itself; send them here with PATCH", code="store_takes_no_parts")
    upload = _in_parts(ledger, store, owner, upload_id)
    wanted = _part_sizes(upload.size)
    if wrong := [number for number in numbers if number not in wanted]:
        raise UsageError(f"the upload has parts 1 to {len(wanted)}, got {wrong[0]}", code="part_number")
    have = {n: part.size for n, part in store.parts(_direct(upload), upload.parts_id or "").items()}
    missing = [number for number, size in wanted.items() if have.get(number) != size]
    uploads.prolong(ledger, upload_id)
    return {
        "id": upload.id,
        "object": "upload.parts",
        "part_size": wanted[1],
        "parts": len(wanted),
        "missing": len(missing),
        "received": sum(size for number, size in have.items() if number not in missing),
        "data": [
            {
                "number": number,
                "size": wanted[number],
                "url": store.part_url(
                    _direct(upload), upload.parts_id or "", number, size=wanted[number], expires_seconds=seconds
                ),
            }
            for number in (numbers or missing)[:MOST_LINKS]
        ],
    }


def finish(ledger: Ledger, store: ByteStore, owner: str, upload_id: str) -> Upload:
    """Make a file of the parts that the store was handed; one that is whole already stays as it is.

    Raises:
        NotFoundError: there is no such upload.
        ConflictError: `upload_unfinished`, parts are missing or have another size; ask for links again.
        InputError: `checksum_mismatch`, as in `receive`.
    """
    upload = look(ledger, owner, upload_id)
    if upload.state == "complete":
        return upload
    if not isinstance(store, PartStore) or not upload.parts_id:
        raise ConflictError(f"upload {upload_id} was not handed to the store in parts", code="upload_unfinished")
    key, wanted = _direct(upload), _part_sizes(upload.size)
    if store.head(key) is None:  # else a server died after the parts had been put together
        have = store.parts(key, upload.parts_id)
        missing = [n for n, size in wanted.items() if n not in have or have[n].size != size]
        if missing:
            raise ConflictError(
                f"{len(missing)} of {len(wanted)} parts of upload {upload_id} are missing, the first is {missing[0]}",
                code="upload_unfinished",
            )
        store.finish_parts(key, upload.parts_id, {number: have[number] for number in wanted})
    if upload.received < upload.size:
        uploads.advance(ledger, upload_id, at=upload.received, by=upload.size - upload.received, key=key)
    _finish(ledger, store, upload)
    return look(ledger, owner, upload_id)


def _in_parts(ledger: Ledger, store: PartStore, owner: str, upload_id: str) -> Upload:
    """Return an open upload whose parts go to the store itself; the first time that is begun there."""
    upload = look(ledger, owner, upload_id)
    if not upload.parts_id and upload.state == "open":
        begun = store.begin_parts(_direct(upload), media_type=OTHER)
        if not uploads.begin_parts(ledger, upload_id, begun):  # somebody else was faster
            store.give_up_parts(_direct(upload), begun)
        upload = look(ledger, owner, upload_id)
    if upload.state != "open" or not upload.parts_id:
        raise ConflictError(
            f"upload {upload_id} is {upload.state} and has {upload.received} bytes that came here", code="upload_offset"
        )
    return upload


def _direct(upload: Upload) -> str:
    """Return the key of the object that the store makes of its parts: to us it is one part from the first byte on."""
    return f"{_folder(upload.id)}{0:016d}-{upload.size}-direct"


def _part_sizes(size: int) -> dict[int, int]:
    """Return how many bytes each part has, by number."""
    whole = max(PART_BYTES, -(-size // MOST_PARTS))
    return {number: min(whole, size - at) for number, at in enumerate(range(0, size, whole), start=1)}


def _finish(ledger: Ledger, store: ByteStore, upload: Upload) -> None:
    with ledger.read() as session:
        keys = uploads.parts(session, upload.id)
    with spooled(io.BufferedReader(_Parts(store, keys))) as (whole, sha256, size):
        if size != upload.size or upload.sha256 not in ("", sha256):
            uploads.abort(ledger, upload.id)
            raise InputError(
                f"upload {upload.id} has sha256 {sha256}, {upload.sha256 or 'another size'} was said; it is given up",
                code="checksum_mismatch",
            )
        form = photo_format(whole.read(HEAD))
        whole.seek(0)
        media_type = MEDIA_TYPES[form] if form else OTHER
        key = content_key(upload.owner, sha256, SUFFIXES.get(media_type, ".bin"))
        artifact_id = artifacts.reserve(
            ledger, owner=upload.owner, sha256=sha256, key=key, size=size, media_type=media_type
        )
        store.put(key, whole, media_type=media_type, sha256=sha256)  # type: ignore[arg-type]  # IO is a BinaryIO
    uploads.complete(ledger, upload.id, artifact_id=artifact_id, sha256=sha256, media_type=media_type)
    _remove_parts(store, upload)


def whole(ledger: Ledger, owner: str, upload_id: str) -> tuple[Upload, Artifact]:
    """Return a finished upload and its stored bytes.

    Raises:
        NotFoundError: there is no such upload.
        ConflictError: it is not finished.
    """
    with ledger.read() as session:
        upload = uploads.get(session, owner, upload_id)
        if upload.artifact_id is None:
            raise ConflictError(
                f"upload {upload_id} has {upload.received} of {upload.size} bytes", code="upload_unfinished"
            )
        return upload, session.get_one(Artifact, upload.artifact_id)


def as_source(ledger: Ledger, owner: str, upload_id: str) -> tuple[str, str]:
    """Return as what `reach.opened` reads a finished upload, and its name; the bytes are kept for READING_DAYS.

    Raises:
        as `whole`.
    """
    upload, artifact = whole(ledger, owner, upload_id)
    uploads.keep(ledger, artifact.id, READING_DAYS)
    return f"{KEPT}{artifact.id}", upload.name


def give_up(ledger: Ledger, store: ByteStore, owner: str, upload_id: str) -> None:
    """Forget an upload and what arrived of it; a batch that has its bytes keeps them.

    Raises:
        NotFoundError: there is no such upload.
    """
    upload = look(ledger, owner, upload_id)
    uploads.abort(ledger, upload_id)
    _remove_parts(store, upload)


def remove_overdue(ledger: Ledger, store: ByteStore) -> int:
    """Remove uploads whose time is over, with their parts; return how many those were."""
    with ledger.read() as session:
        found = uploads.overdue(session)
    gone = []
    for upload in found:
        with logs.surviving("upload not removed", upload=upload.id):
            _remove_parts(store, upload)
            gone.append(upload.id)
    if gone:
        uploads.forget(ledger, gone)
    return len(gone)


def upload_object(upload: Upload) -> dict[str, object]:
    """Return the JSON object of an upload."""
    return {
        "id": upload.id,
        "object": "upload",
        "name": upload.name,
        "size": upload.size,
        "received": upload.received,
        "state": upload.state,
        "sha256": upload.sha256 or None,
        "media_type": upload.media_type,
        "created_at": upload.created_at.isoformat(),
        "expires_at": upload.expires_at.isoformat(),
    }


def _folder(upload_id: str) -> str:
    return f"{PREFIX}{upload_id}/"


def _remove_parts(store: ByteStore, upload: Upload) -> None:
    if upload.parts_id and isinstance(store, PartStore):
        store.give_up_parts(_direct(upload), upload.parts_id)
    for part in list(store.list(_folder(upload.id))):
        store.delete(part.key)


class _Parts(io.RawIOBase):
    """All parts of an upload as one stream."""

    def __init__(self, store: ByteStore, keys: Sequence[str]) -> None:
        super().__init__()
        self._store = store
        self._keys = iter(keys)
        self._part: IO[bytes] | None = None

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed names a private protocol
        """Fill the buffer as far as one read of the present part goes."""
        while True:
            if self._part is None:
                key = next(self._keys, None)
                if key is None:
                    return 0
                self._part = self._store.open(key)
            piece = self._part.read(len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            self._part.close()
            self._part = None
