"""Writes restored photos where they were asked for: the tree of the source, its names and times, nothing overwritten.

May run while the batch does, and again after a crash: what is there already with the same bytes is left as it is.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import ClientError
from sqlalchemy.orm import Session

from orchestrator.archive.reach import Reach
from orchestrator.contracts.photos import PhotoOptions, PhotoParams
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, outputs
from orchestrator.ledger.tables.rows import Item, Output
from orchestrator.results import results
from orchestrator.results.results_folder import write_new
from orchestrator.storage import ByteStore

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

    from orchestrator.archive.bucket import Place

LISTS = ("results.jsonl", "errors.jsonl")


class Target(Protocol):
    """Where a tree is written."""

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None) -> None:
        """Write a new file; one with the same bytes may be there already.

        Raises:
            ConflictError: `file_exists`, another file has this name.
            StoreUnavailableError, TransientError: no room, or no answer.
        """

    def replace(self, path: str, data: bytes) -> None:
        """Write a list, in place of an older one of the same batch.

        Raises:
            as `write`.
        """


class Delivery:
    """Brings the finished photos of one batch to one place, those that are new at every step.

    Args:
        out: a folder of this machine, or `s3://bucket/prefix`, which `reach` must allow to be written to.
    """

    def __init__(
        self, ledger: Ledger, store: ByteStore, owner: str, batch_id: str, out: str, reach: Reach | None = None
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._owner = owner
        self._batch_id = batch_id
        self._target: Target
        if out.startswith("s3://"):
            if reach is None:
                raise ForbiddenError(f"nobody said who may write to {out}", code="bucket_not_granted")
            self._target = Bucket(reach.place(out, "write"), batch_id)
        else:
            self._target = Folder(Path(out))
        self._delivered: set[str] = set()

    def step(self) -> int:
        """Write what has been finished since the last step and return how many files those are.

        Raises:
            ConflictError: a file of another origin has a name that is needed.
            StoreUnavailableError, TransientError: no room, or no answer; nothing is lost, try again.
        """
        written = 0
        with self._ledger.read() as session:
            fresh = [row for row in outputs.finished(session, self._batch_id) if row[1].id not in self._delivered]
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
    """A prefix of an S3 bucket; nothing in it that this batch did not write is written over."""

    def __init__(self, place: Place, batch_id: str) -> None:
        # Here, not at the top: importing boto3 takes longer than `fpga --help` may.
        from orchestrator.storage import s3_errors  # noqa: PLC0415

        self._name, self._prefix = place.bucket, place.prefix.rstrip("/")
        self._batch_id = batch_id
        self._client = place.client()
        self._errors = s3_errors

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None) -> None:
        """See Target; the time of the source is kept as metadata."""
        stamps = {"modified": modified.isoformat()} if modified else {}
        self._put(path, data, media_type, stamps, again=False)

    def replace(self, path: str, data: bytes) -> None:
        """See Target."""
        self._put(path, data, "application/jsonl", {}, again=True)

    def _put(self, path: str, data: bytes, media_type: str, stamps: dict[str, str], *, again: bool) -> None:
        """Write what is not there, and what is ours only where it may be written again."""
        key, sha256 = self._key(path), hashlib.sha256(data).hexdigest()
        there = self._head(key)
        said = there["Metadata"] if there is not None else {}
        if there is not None and said.get("sha256") == sha256:
            return
        if there is not None and not (again and said.get("batch") == self._batch_id):
            raise self._taken(key)
        # the store compares too: somebody may have written between the look and now
        condition = {"IfMatch": there["ETag"]} if there is not None else {"IfNoneMatch": "*"}
        stamps = {**stamps, "sha256": sha256, "batch": self._batch_id}
        put = partial(
            self._client.put_object, Bucket=self._name, Key=key, Body=data, ContentType=media_type, Metadata=stamps
        )
        with self._typed_errors(f"write {key}"):
            try:
                put(**condition)  # type: ignore[arg-type]  # the stub wants the names one by one
            except ClientError as error:
                if self._errors.status_of(error) in (409, 412):
                    raise self._taken(key) from error
                if self._errors.status_of(error) != 501 and self._errors.code_of(error) != "NotImplemented":
                    raise
                put()  # the store knows no conditions; the look just now is all there is

    def _head(self, key: str) -> HeadObjectOutputTypeDef | None:
        try:
            with self._typed_errors(f"look at {key}"):
                return self._client.head_object(Bucket=self._name, Key=key)
        except NotFoundError:
            return None

    def _taken(self, key: str) -> ConflictError:
        return ConflictError(f"s3://{self._name}/{key} exists and is not overwritten", code="file_exists")

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _typed_errors(self, action: str) -> AbstractContextManager[None]:
        return self._errors.typed_errors(action, f"bucket {self._name}")


def path_of(item: Item, output: Output) -> str:
    """Return the name of a result: that of the source; of further candidates with a number before the ending."""
    path = PhotoParams.load(item.params).path
    if output.id != item.output_id:
        pure = PurePosixPath(path)
        path = str(pure.with_name(f"{pure.stem}.candidate-{output.round + 1}{pure.suffix}"))
    return path + str((output.scores or {}).get("suffix", ""))


def modified(item: Item) -> datetime | None:
    """Return when the source of a photo was last changed, if that is known."""
    found = PhotoParams.load(item.params).modified
    return found.astimezone(UTC) if found else None


def batch_out(session: Session, batch_id: str) -> str | None:
    """Return where the results of a batch were asked for, or None."""
    return PhotoOptions.load(batches.one(session, batch_id).options).out
