"""The byte-store protocol, and what its answers look like.

Objects never change: a key keeps its bytes until it is deleted. Every implementation keeps these promises, held by
one suite of contract tests: a reader sees a whole object or none, bytes are verified against their sha256 on the way
in and out, and nothing but the errors named here comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

Data = bytes | Path | BinaryIO

MAX_URL_SECONDS = 900
"""A link is a bearer token; a quarter of an hour is the longest that one lives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One object: its key, the sha256 of its bytes in hex, its size in bytes."""

    key: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One object of a listing; `modified` is in UTC."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of an object that comes in parts: its size in bytes, and what the store calls its content."""

    size: int
    etag: str


class ByteStore(Protocol):
    """Keeps bytes under keys; safe to share between threads, to be opened anew after a fork.

    Every method raises UsageError `key_invalid` for a key that keys.check_key refuses, and StoreUnavailableError
    (`store_unavailable`, `store_full`, `store_denied`) when the store cannot serve; those are worth another try.
    """

    def put(self, key: str, data: Data, *, media_type: str, sha256: str | None = None) -> Stored:
        """Store the bytes durably; the same bytes under the same key again change nothing.

        Args:
            key: where; see keys.content_key.
            data: the bytes, a file, or a stream read from its present position to its end.
            media_type: such as `image/png`; sent with links and downloads.
            sha256: what the caller knows the content to be, in hex; checked before anything becomes readable.

        Raises:
            InputError: `checksum_mismatch`, the data are not what `sha256` says.
            ConflictError: `key_taken`, other bytes are stored under this key. A key that names its content is
                repaired instead. Best effort for a key that two writers fill at once.
        """

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """Return all bytes, verified against `sha256`, else the hash in the key, else what was stored with them.

        Raises:
            NotFoundError: `object_missing`.
            TransientError: `object_damaged`, the bytes are not those that were put.
        """

    def open(self, key: str, *, sha256: str | None = None) -> BinaryIO:
        """Return a forward-only stream of the bytes; a damaged object raises as in `get`, at the end of the stream."""

    def head(self, key: str) -> Stored | None:
        """Return what is stored under the key, or None; the bytes themselves are not verified."""

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is fine."""

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """Yield every whole object whose key starts with the prefix, in no promised order."""

    def url(self, key: str, *, expires_seconds: int, filename: str | None = None, media_type: str | None = None) -> str:
        """Return a link that reads this one object as a download for `expires_seconds` (1 to 900).

        A local store answers with a file URI, which does not expire. That the object exists is not checked.
        """

    def place(self, key: str) -> str:
        """Return where other readers of files find the object: a path, or `s3://bucket/key`. Opens nothing."""

    def sweep_stale(self, older_than_seconds: float, *, spare: str = "") -> int:
        """Remove what killed writers left behind, if older than this; return how many pieces that were.

        Args:
            spare: prefix of objects whose parts clients send; who began those looks after them.
        """

    def check(self) -> None:
        """Write, read and delete a small probe.

        Raises:
            StoreUnavailableError: one of the three failed; the message says which and why.
        """


@runtime_checkable
class PartStore(ByteStore, Protocol):
    """A byte store that takes the parts of an object straight from whoever has them, by links that it signs.

    Errors as in ByteStore; NotFoundError `parts_missing` where no such upload is begun (any more).
    """

    def begin_parts(self, key: str, *, media_type: str) -> str:
        """Begin an object that comes in parts, and return the id under which it is gone on with."""

    def part_url(self, key: str, parts_id: str, number: int, *, size: int, expires_seconds: int) -> str:
        """Return a link that takes one part (1 to 10,000) of exactly `size` bytes by PUT. Asks nobody."""

    def parts(self, key: str, parts_id: str) -> dict[int, Part]:
        """Return the parts that are there, by number."""

    def finish_parts(self, key: str, parts_id: str, parts: Mapping[int, Part]) -> None:
        """Make these parts one object, in the order of their numbers."""

    def give_up_parts(self, key: str, parts_id: str) -> None:
        """Remove what has come of it; again is harmless."""
