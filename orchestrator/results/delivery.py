"""Writes restored photos where they were asked for: the tree of the source, its names and times, nothing overwritten.

May run while the batch does, and again after a crash: what is there already with the same bytes is left as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.errors import ConflictError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, Output
from orchestrator.results import results
from orchestrator.results.results_folder import write_new
from orchestrator.storage import ByteStore

LISTS = ("results.jsonl", "errors.jsonl")
PAGE = 200


class Target(Protocol):
    """Where a tree is written."""

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None) -> None:
        """Write a new file; one with the same bytes may be there already.

        Raises:
            ConflictError: `file_exists`, another file has this name.
            StoreUnavailableError, TransientError: no room, or no answer.
        """

    def replace(self, path: str, data: bytes) -> None:
        """Write a list, in place of an older one of ours."""


class Delivery:
    """Brings the finished photos of one batch to one place, those that are new at every step."""

    def __init__(self, ledger: Ledger, store: ByteStore, owner: str, batch_id: str, out: str) -> None:
        self._ledger = ledger
        self._store = store
        self._owner = owner
        self._batch_id = batch_id
        self._target: Target = Bucket(out) if out.startswith("s3://") else Folder(Path(out))
        self._delivered: set[str] = set()

    def step(self) -> int:
        """Write what has been finished since the last step and return how many files those are.

        Raises:
            ConflictError: a file of another origin has a name that is needed.
            StoreUnavailableError, TransientError: no room, or no answer; nothing is lost, try again.
        """
        written = 0
        with self._ledger.read() as session:
            fresh = [row for row in finished(session, self._batch_id) if row[1].id not in self._delivered]
        for item, output, artifact in fresh:
            data = self._store.get(artifact.key, sha256=artifact.sha256)
            self._target.write(path_of(item, output), data, artifact.media_type, modified(item))
            self._delivered.add(output.id)
            written += 1
        return written

    def finish(self) -> None:
        """Write the rest, and the lists of results and errors as they are now."""
        self.step()
        with self._ledger.read() as session:
            batch = batches.get(session, self._owner, self._batch_id)
            lines = {
                "results.jsonl": list(results.results_lines(session, batch)),
                "errors.jsonl": list(results.errors_lines(session, batch)),
            }
        for name, values in lines.items():
            self._target.replace(name, b"".join(results.json_line(value) for value in values))


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None) -> None:
        """See Target; the file gets the time that the source's had."""
        place = self._root / path
        if place.exists() and hashlib.sha256(place.read_bytes()).digest() == hashlib.sha256(data).digest():
            return
        write_new(place, data)
        if modified is not None:
            os.utime(place, (modified.timestamp(), modified.timestamp()))

    def replace(self, path: str, data: bytes) -> None:
        """See Target."""
        place = self._root / path
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        write_new(fresh, data)
        fresh.replace(place)


class Bucket:
    """A prefix of an S3 bucket, with the endpoint and credentials of the AWS_* variables."""

    def __init__(self, url: str) -> None:
        # Here, not at the top: importing boto3 takes longer than `fpga --help` may.
        from orchestrator.archive import bucket  # noqa: PLC0415
        from orchestrator.storage.s3_errors import typed_errors  # noqa: PLC0415

        self._name, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/")
        self._client = bucket.client()
        self._guard = typed_errors

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None) -> None:
        """See Target; the time of the source is kept as metadata."""
        sha256 = hashlib.sha256(data).hexdigest()
        key = self._key(path)
        with self._typed_errors(f"look for {key}"):
            there = self._client.list_objects_v2(Bucket=self._name, Prefix=key, MaxKeys=1).get("Contents", [])
        if there and there[0]["Key"] == key:
            with self._typed_errors(f"look at {key}"):
                known = self._client.head_object(Bucket=self._name, Key=key)["Metadata"].get("sha256")
            if known != sha256:
                raise ConflictError(f"s3://{self._name}/{key} exists and is not overwritten", code="file_exists")
            return
        stamps = {"sha256": sha256, **({"modified": modified.isoformat()} if modified else {})}
        with self._typed_errors(f"write {key}"):
            self._client.put_object(Bucket=self._name, Key=key, Body=data, ContentType=media_type, Metadata=stamps)

    def replace(self, path: str, data: bytes) -> None:
        """See Target."""
        with self._typed_errors(f"write {path}"):
            self._client.put_object(Bucket=self._name, Key=self._key(path), Body=data, ContentType="application/jsonl")

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _typed_errors(self, action: str) -> AbstractContextManager[None]:
        return self._guard(action, f"bucket {self._name}")


def finished(session: Session, batch_id: str) -> Iterator[tuple[Item, Output, Artifact]]:
    """Yield every picture that can be read of the items that are completed, in manifest order."""
    query = (
        select(Item, Output, Artifact)
        .join(Output, Output.item_id == Item.id)
        .join(Artifact, Artifact.id == Output.artifact_id)
        .where(Item.batch_id == batch_id, Item.state == "completed", Artifact.state == "live")
        .order_by(Item.position, Output.round)
        .execution_options(yield_per=PAGE)
    )
    yield from session.execute(query).tuples()


def path_of(item: Item, output: Output) -> str:
    """Return the name of a result: that of the source; of further candidates with a number before the ending."""
    path: str = item.params["path"]
    if output.id != item.output_id:
        pure = PurePosixPath(path)
        path = str(pure.with_name(f"{pure.stem}.candidate-{output.round + 1}{pure.suffix}"))
    return path + str((output.scores or {}).get("suffix", ""))


def modified(item: Item) -> datetime | None:
    """Return when the source of a photo was last changed, if that is known."""
    found: Any = item.params.get("modified")
    return datetime.fromisoformat(found).astimezone(UTC) if found else None


def batch_out(session: Session, batch_id: str) -> str | None:
    """Return where the results of a batch were asked for, or None."""
    return session.get_one(Batch, batch_id).options.get("out")
