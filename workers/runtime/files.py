"""Folders of files to the byte store and back: every file under its hash, verified in both directions."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from orchestrator.errors import TransientError
from orchestrator.ledger import artifacts
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.storage import ByteStore, content_key

MEDIA_TYPES = {".json": "application/json", ".png": "image/png"}
FULL = (errno.ENOSPC, errno.EDQUOT)
Advance = Callable[[], None]


def store_file(ledger: Ledger, store: ByteStore, owner: str, path: Path) -> str:
    """Store one file under its hash and return its artifact, not yet confirmed.

    Raises:
        StoreUnavailableError: the store cannot be reached, or is full.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    key = content_key(owner, sha256, path.suffix)
    artifact_id = artifacts.reserve(
        ledger, owner=owner, sha256=sha256, key=key, size=path.stat().st_size, media_type=media_type
    )
    store.put(key, path, media_type=media_type, sha256=sha256)
    return artifact_id


def store_folder(ledger: Ledger, store: ByteStore, owner: str, folder: Path, advance: Advance) -> dict[str, str]:
    """Store every file below a folder and return artifact ids by relative path; `advance` is called after each.

    Raises:
        StoreUnavailableError: the store cannot be reached, or is full.
    """
    found: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found[path.relative_to(folder).as_posix()] = store_file(ledger, store, owner, path)
        advance()
    return found


def fetch_folder(store: ByteStore, files: Mapping[str, Artifact], folder: Path, advance: Advance) -> Path:
    """Write files from the store below a folder that appears only when all are whole, and return it.

    Raises:
        NotFoundError, TransientError: a file is missing, damaged (`object_damaged`), or the store cannot be reached.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    with full_disk_is_transient(folder):
        for name, artifact in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.open(artifact.key, sha256=artifact.sha256) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            advance()
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(folder)
    return folder


@contextmanager
def full_disk_is_transient(folder: Path) -> Iterator[None]:
    """Turn a full disk into an error that is worth another try.

    Raises:
        TransientError: `disk_full`.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors writes from Rust and gives the system's error as text
        full = (
            error.errno in FULL if isinstance(error, OSError) else any(f"code: {code}," in str(error) for code in FULL)
        )
        if not full:
            raise
        raise TransientError(f"the disk under {folder} is full", code="disk_full") from error
