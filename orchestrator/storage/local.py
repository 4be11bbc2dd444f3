"""A directory as byte store: every object a file, its key the path below the root.

Writing is temporary file -> fsync -> rename -> fsync of the directory, so that an object is whole or absent even after
a power cut. All paths are walked from an open root without following links, so that no key and no planted link leads
out. Needs an ordinary POSIX file system.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import ConflictError, NotFoundError, StoreUnavailableError
from orchestrator.storage.base import Data, Listed, Stored
from orchestrator.storage.keys import check_key, check_prefix, check_sha256, named_sha256
from orchestrator.storage.links import check_expiry
from orchestrator.storage.probe import probe
from orchestrator.storage.streams import check_content, pieces, taken, verified

TEMPORARY = ".tmp-"
"""Keys have no part with a leading dot, so that no key ever names a temporary file."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def _typed_errors(action: str) -> Iterator[None]:
    """Turn errors of the file system into ours."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise StoreUnavailableError(f"store is full: {action}: {reason}", code="store_full") from error
        raise StoreUnavailableError(f"store cannot be used: {action}: {reason}") from error


class LocalStore:
    """Byte store in one directory, created for its owner alone (0700, files 0600)."""

    def __init__(self, root: Path) -> None:
        """Open the directory, making it if need be; nothing stays open between calls.

        Raises:
            StoreUnavailableError: it cannot be made or entered.
        """
        self.root = root.absolute()
        self._durable: set[str] = set()
        with _typed_errors(f"open {self.root}"):
            for path in reversed([path for path in [self.root, *self.root.parents] if not path.exists()]):
                path.mkdir(mode=0o700, exist_ok=True)
                _sync(path.parent)
            with self._directory([]):
                pass

    def put(self, key: str, data: Data, *, media_type: str, sha256: str | None = None) -> Stored:
        """See ByteStore; the media type is not kept, links take it from their caller."""
        *parents, name = check_key(key).split("/")
        wanted = check_sha256(sha256) if sha256 is not None else None
        temporary = f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            with _typed_errors(f"put {key}"), self._directory(parents, create=True) as directory:
                try:
                    stored = _write(directory, temporary, key, data, wanted)
                    if not self._holds(stored):
                        _sync(temporary, directory)
                        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                    os.fsync(directory)  # also when another writer renamed the same object a moment ago
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(temporary, dir_fd=directory)
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, NotADirectoryError | IsADirectoryError):
                raise ConflictError(f"key {key} crosses the path of another object", code="key_taken") from error
            raise
        return stored

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """See ByteStore."""
        with self.open(key, sha256=sha256) as stream:
            return stream.read()

    def open(self, key: str, *, sha256: str | None = None) -> BinaryIO:
        """See ByteStore."""
        wanted = check_sha256(sha256) if sha256 is not None else named_sha256(check_key(key))
        with _typed_errors(f"open {key}"):
            source = self._open(key)
        if source is None:
            raise NotFoundError(f"no object {key} in the store", code="object_missing")
        return verified(source, key, wanted, partial(_typed_errors, f"read {key}"))

    def head(self, key: str) -> Stored | None:
        """See ByteStore; the hash is the one in the key, or else computed from the file now."""
        with _typed_errors(f"head {key}"):
            source = self._open(key)
            if source is None:
                return None
            with source:
                sha256 = named_sha256(key) or hashlib.file_digest(source, "sha256").hexdigest()
                return Stored(key=key, sha256=sha256, size=os.fstat(source.fileno()).st_size)

    def delete(self, key: str) -> None:
        """See ByteStore; emptied directories stay."""
        *parents, name = check_key(key).split("/")
        absent = suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)
        with _typed_errors(f"delete {key}"), absent, self._directory(parents) as directory:
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """See ByteStore."""
        for key, about in self._files(check_prefix(prefix).split("/")[:-1]):
            if key.startswith(prefix) and not _is_temporary(key):
                yield Listed(key=key, size=about.st_size, modified=datetime.fromtimestamp(about.st_mtime, UTC))

    def url(self, key: str, *, expires_seconds: int, filename: str | None = None, media_type: str | None = None) -> str:
        """See ByteStore."""
        check_expiry(expires_seconds)
        return (self.root / check_key(key)).as_uri()

    def place(self, key: str) -> str:
        """See ByteStore; a path below the directory."""
        return str(self.root / check_key(key))

    def sweep_stale(self, older_than_seconds: float, *, spare: str = "") -> int:
        """See ByteStore; the pieces are temporary files of killed writers."""
        before = time.time() - older_than_seconds
        stale = [path for path, about in self._files([]) if _is_temporary(path) and about.st_mtime <= before]
        for path in stale:
            *parents, name = path.split("/")
            with _typed_errors(f"sweep {path}"), self._directory(parents) as directory, suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        return len(stale)

    def check(self) -> None:
        """See ByteStore."""
        probe(self, str(self.root))

    def _holds(self, stored: Stored) -> bool:
        """Say whether the same bytes are there; refuse others, unless the key tells that those are damaged."""
        present = self._open(stored.key)
        if present is None:
            return False
        with present:
            digest = hashlib.file_digest(present, "sha256").hexdigest()
        if digest != stored.sha256 and named_sha256(stored.key) != stored.sha256:
            raise taken(stored, digest)
        return digest == stored.sha256

    def _open(self, key: str) -> FileIO | None:
        """Open the file of a key for reading, or return None where there is no such file."""
        *parents, name = check_key(key).split("/")
        try:
            with self._directory(parents) as directory:
                file = FileIO(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory), "r")
        except IsADirectoryError:  # FileIO refuses directories
            return None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        return None

    @contextmanager
    def _directory(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """Lend the descriptor of a directory below the root, reached step by step without following a link."""
        current = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for depth, part in enumerate(parts, 1):
                if create:
                    self._make(current, "/".join(parts[:depth]))
                parent, current = current, os.open(part, _DIRECTORY, dir_fd=current)
                os.close(parent)
            yield current
        finally:
            os.close(current)

    def _make(self, parent: int, path: str) -> None:
        """Make a directory whose name outlives a power cut; once per path, whoever made it."""
        name = path.rpartition("/")[2]
        if path in self._durable and _exists(name, parent):
            return
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)
        self._durable.add(path)

    def _files(self, below: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
        """Yield every regular file below a directory, as path relative to the root, without following a link."""
        found: list[tuple[str, os.stat_result]] = []
        try:
            with self._directory(below) as directory, os.scandir(directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # removed meanwhile
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        except OSError as error:
            if error.errno in _ABSENT:
                return
            with _typed_errors(f"list {'/'.join(below)}"):
                raise
        for name, about in found:
            if stat.S_ISDIR(about.st_mode):
                yield from self._files([*below, name])
            elif stat.S_ISREG(about.st_mode):
                yield "/".join([*below, name]), about


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY)


def _exists(name: str, directory: int) -> bool:
    return os.access(name, os.F_OK, dir_fd=directory, follow_symlinks=False)


def _sync(path: Path | str, directory: int | None = None) -> None:
    """Wait until a file or directory is on the disk."""
    file = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write(directory: int, temporary: str, key: str, data: Data, wanted: str | None) -> Stored:
    """Write the data to a new temporary file, hashing on the way."""
    digest = hashlib.sha256()
    size = 0
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    with os.fdopen(file, "wb", buffering=0) as out:
        for piece in pieces(data):
            digest.update(piece)
            size += len(piece)
            view = memoryview(piece)
            while view:
                view = view[out.write(view) :]
    check_content(key, digest.hexdigest(), wanted)
    return Stored(key=key, sha256=digest.hexdigest(), size=size)
