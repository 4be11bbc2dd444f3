"""The list of what a source holds beside photos: made once, when it was read to its end, and kept in the byte store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.errors import NotFoundError
from orchestrator.ledger import artifacts
from orchestrator.ledger.engine.session import Ledger
from orchestrator.storage import ByteStore, content_key

MEDIA_TYPE = "application/jsonl"


class Passed(NamedTuple):
    """One file that is no photo."""

    path: str
    reason: str
    left_behind: bool


def keep_passed(ledger: Ledger, store: ByteStore, owner: str, passed: Sequence[Passed]) -> dict[str, str] | None:
    """Store the list of what is no photo and return where it is; None where there is nothing to list.

    Raises:
        StoreUnavailableError, TransientError: it cannot be stored now.
    """
    if not passed:
        return None
    data = "".join(f"{json.dumps(line._asdict())}\n" for line in passed).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    key = content_key(owner, sha256, ".jsonl")
    artifact_id = artifacts.reserve(ledger, owner=owner, sha256=sha256, key=key, size=len(data), media_type=MEDIA_TYPE)
    store.put(key, data, media_type=MEDIA_TYPE, sha256=sha256)
    with ledger.write() as session:
        artifacts.confirm(session, artifact_id)
    return {"artifact_id": artifact_id, "key": key, "sha256": sha256}


def passed_of(store: ByteStore, options: Mapping[str, Any]) -> Iterator[Passed]:
    """Yield path and reason of what is no photo, by the options of a batch; nothing before its source was read."""
    kept = (options.get("read") or {}).get("passed")
    if not kept:
        return
    try:
        data = store.get(kept["key"], sha256=kept["sha256"])
    except NotFoundError:  # cleaned away with the batch's other bytes
        return
    for line in data.splitlines():
        yield Passed(**json.loads(line))
