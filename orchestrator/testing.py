"""Twins in memory of what a deployment talks to, for tests of code that uses this product: no disk, no server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from io import BytesIO
from threading import Lock
from typing import BinaryIO

from orchestrator.errors import NotFoundError
from orchestrator.runtime.broker import Bell
from orchestrator.storage.base import Data, Listed, Stored
from orchestrator.storage.keys import check_key, check_prefix, check_sha256, named_sha256
from orchestrator.storage.links import check_expiry
from orchestrator.storage.streams import check_content, pieces, taken, verified


def _utc() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """A byte store in a dictionary; see ByteStore for what it promises."""

    def __init__(self, objects: dict[str, bytes] | None = None, *, clock: Callable[[], datetime] = _utc) -> None:
        """Keep bytes in a dictionary, the caller's own if one is given."""
        self.objects = {} if objects is None else objects
        self._clock = clock
        self._lock = Lock()

    def put(self, key: str, data: Data, *, media_type: str, sha256: str | None = None) -> Stored:
        """See ByteStore; the media type is not kept."""
        check_key(key)
        wanted = check_sha256(sha256) if sha256 is not None else None
        whole = b"".join(pieces(data))
        stored = Stored(key=key, sha256=hashlib.sha256(whole).hexdigest(), size=len(whole))
        check_content(key, stored.sha256, wanted)
        with self._lock:
            present = self.objects.get(key, whole)
            if present != whole and named_sha256(key) != stored.sha256:
                raise taken(stored, hashlib.sha256(present).hexdigest())
            self.objects[key] = whole
        return stored

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """See ByteStore."""
        with self.open(key, sha256=sha256) as stream:
            return stream.read()

    def open(self, key: str, *, sha256: str | None = None) -> BinaryIO:
        """See ByteStore."""
        wanted = check_sha256(sha256) if sha256 is not None else named_sha256(check_key(key))
        if key not in self.objects:
            raise NotFoundError(f"no object {key} in the store", code="object_missing")
        return verified(BytesIO(self.objects[key]), key, wanted, nullcontext)

    def head(self, key: str) -> Stored | None:
        """See ByteStore."""
        data = self.objects.get(check_key(key))
        return None if data is None else Stored(key=key, sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    def delete(self, key: str) -> None:
        """See ByteStore."""
        self.objects.pop(check_key(key), None)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """See ByteStore; everything was modified now."""
        check_prefix(prefix)
        for key, data in [*self.objects.items()]:
            if key.startswith(prefix):
                yield Listed(key=key, size=len(data), modified=self._clock())

    def url(self, key: str, *, expires_seconds: int, filename: str | None = None, media_type: str | None = None) -> str:
        """See ByteStore; the link holds the bytes themselves."""
        check_expiry(expires_seconds)
        whole = base64.b64encode(self.objects.get(check_key(key), b"")).decode()
        return f"data:{media_type or 'application/octet-stream'};base64,{whole}"

    def place(self, key: str) -> str:
        """See ByteStore; no other reader finds it."""
        return f"memory:{check_key(key)}"

    def sweep_stale(self, older_than_seconds: float, *, spare: str = "") -> int:
        """See ByteStore; nothing is ever left half written in a dictionary."""
        return 0

    def check(self) -> None:
        """See ByteStore; always well."""


class MemoryBell(Bell):
    """A broker that keeps what it was given: (queue, body) in order."""

    def __init__(self) -> None:  # it has no application to send by
        self.sent: list[tuple[str, dict[str, object]]] = []

    def send(self, queue: str, body: dict[str, object]) -> None:
        """Take a message."""
        self.sent.append((queue, body))
