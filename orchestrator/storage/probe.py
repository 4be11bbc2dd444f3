"""Does the store work at this moment? Asked by `doctor` and by workers before they take work."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from orchestrator.errors import FpgaError, StoreUnavailableError
from orchestrator.storage.base import ByteStore


def probe(store: ByteStore, name: str) -> None:
    """Write, read and delete 32 random bytes under `probe/`.

    Args:
        store: the store.
        name: what people call it, for the message.

    Raises:
        StoreUnavailableError: with the code of the first step that failed.
    """
    key = f"probe/{uuid.uuid4().hex}"
    step = "written"
    try:
        stored = store.put(key, os.urandom(32), media_type="application/octet-stream")
        step = "read"
        store.get(key, sha256=stored.sha256)
        step = "deleted"
        store.delete(key)
    except FpgaError as error:
        with suppress(FpgaError):
            store.delete(key)
        raise StoreUnavailableError(
            f"byte store {name}: a probe could not be {step}: {error}", code=error.code
        ) from error
