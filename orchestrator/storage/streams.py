"""Bytes on their way in and out: cut into pieces, spooled, hashed, verified."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from orchestrator.errors import ConflictError, InputError, StoreUnavailableError, TransientError
from orchestrator.storage.base import Data, Stored

PIECE = 1 << 20
SPOOL_LIMIT = 8 << 20


Guard = Callable[[], AbstractContextManager[None]]


class Readable(Protocol):
    """All that is asked of a source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""

    def close(self) -> None:
        """Let go of it."""


def pieces(data: Data) -> Iterator[bytes]:
    """Yield the data in pieces of at most 1 MiB.

    Raises:
        InputError: `data_unreadable`.
    """
    if isinstance(data, bytes):
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]
        return
    try:
        with data.open("rb") if isinstance(data, Path) else nullcontext(data) as source:
            while piece := source.read(PIECE):
                yield piece
    except OSError as error:
        raise InputError(f"data to store cannot be read: {error}", code="data_unreadable") from error


@contextmanager
def spooled(data: Data) -> Iterator[tuple[IO[bytes], str, int]]:
    """Lend the data as a stream of their own that nobody else changes, with their sha256 and size.

    Up to 8 MiB stay in memory, more goes to a temporary file.

    Raises:
        InputError: `data_unreadable`.
        StoreUnavailableError: `store_full`, there is no room for the temporary file.
    """
    digest = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_LIMIT) as spool:
        for piece in pieces(data):
            digest.update(piece)
            try:
                spool.write(piece)
            except OSError as error:
                raise StoreUnavailableError(f"no room for a temporary copy: {error}", code="store_full") from error
        size = spool.tell()
        spool.seek(0)
        yield spool, digest.hexdigest(), size


def check_content(key: str, got: str, wanted: str | None) -> None:
    """Compare the hash of data handed in with what their sender promised.

    Raises:
        InputError: `checksum_mismatch`.
    """
    if wanted is not None and got != wanted:
        raise InputError(f"data for {key} have sha256 {got}, wanted {wanted}", code="checksum_mismatch")


def taken(stored: Stored, present: str | None) -> ConflictError:
    """Return the error for a key that already holds other bytes."""
    return ConflictError(
        f"key {stored.key} holds sha256 {present or 'unknown'}, not {stored.sha256}; objects never change",
        code="key_taken",
    )


class VerifiedReader(io.RawIOBase):
    """Forward-only reader that compares the hash at the end of the stream.

    Args:
        source: where the bytes come from; closed with the reader.
        key: for the message.
        sha256: what the bytes must hash to, or None to let anything pass.
        guard: entered around each read, turns foreign errors into ours.
    """

    def __init__(self, source: Readable, key: str, sha256: str | None, guard: Guard) -> None:
        super().__init__()
        self._guard = guard
        self._source = source
        self._key = key
        self._wanted = sha256
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed names a private protocol
        """Fill the buffer as far as the source goes in one read.

        Raises:
            TransientError: `object_damaged`, at the end.
        """
        with self._guard():
            piece = self._source.read(len(buffer))
        self._digest.update(piece)
        if not piece and self._wanted not in (None, self._digest.hexdigest()):
            raise TransientError(
                f"object {self._key} has sha256 {self._digest.hexdigest()}, wanted {self._wanted}",
                code="object_damaged",
            )
        buffer[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        """Return the rest, in pieces larger than the default."""
        return b"".join(iter(lambda: self.read(PIECE), b""))

    def close(self) -> None:
        """Close the source too."""
        if not self.closed:
            self._source.close()
        super().close()


def verified(source: Readable, key: str, sha256: str | None, guard: Guard) -> BinaryIO:
    """Return a buffered forward-only stream over the source that verifies its content at the end."""
    return io.BufferedReader(VerifiedReader(source, key, sha256, guard), PIECE)
