"""Writes restored photos where they were asked for: the tree of the source, its names and times, nothing overwritten.

May run while the batch does, again after a crash, and for a later batch of the same source: what is there already with
the same bytes, or made of the same source by the same settings, is left as it is. A file that cannot be written is an
error of that file alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol

from botocore.exceptions import ClientError
from sqlalchemy.orm import Session

from orchestrator.archive import Limits, Refused, Skipped
from orchestrator.archive.reach import Reach, opened
from orchestrator.contracts.photos import PhotoOptions, PhotoParams
from orchestrator.errors import (
    ConflictError,
    ForbiddenError,
    FpgaError,
    InputError,
    NotFoundError,
    StoreUnavailableError,
    TransientError,
    UsageError,
)
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, outputs
from orchestrator.ledger.tables.rows import Item, Output
from orchestrator.pictures import read_record
from orchestrator.results import results
from orchestrator.results.files import files_lines
from orchestrator.results.results_folder import write_new
from orchestrator.storage import ByteStore
from orchestrator.storage.streams import spooled

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

    from orchestrator.archive.bucket import Place

LISTS = ("results.jsonl", "errors.jsonl", "files.jsonl")
SIDE = ".fpga.json"
"""Ends the name of a side file: the record of a photo that has no room for it."""
SAME = ("schema", "task", "preset", "model_sha256", "source_sha256", "seed", "params")
"""What two records share that tell of the same source and the same settings."""


class Target(Protocol):
    """Where a tree is written."""

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None, same: str) -> None:
        """Write a new file; one with the same bytes, or of the same source and settings, may be there already.

        Args:
            same: names source and settings, see `same_as`.

        Raises:
            ConflictError: `file_exists`, another file has this name.
            UsageError: the place cannot be written to, or the name is none there.
            StoreUnavailableError, TransientError: no room, or no answer.
        """

    def copy(self, path: str, stream: BinaryIO, modified: datetime | None) -> None:
        """Write a file as it comes; one of the same bytes may be there already.

        Raises:
            InputError: reading it fails.
            as `write`.
        """

    def replace(self, path: str, data: bytes) -> None:
        """Write a list, in place of an older one of ours.

        Raises:
            as `write`.
        """


class Delivery:
    """Brings the finished photos of one batch to one place, those that are new at every step.

    Args:
        out: a folder of this machine, or `s3://bucket/prefix`, which `reach` must allow to be written to.
        reach: whose source is read once more where files are to be copied as they are.

    Attributes:
        failures: what could not be written, by path.
        absent: files of the source that are not in the tree, once it is finished.
    """

    def __init__(
        self, ledger: Ledger, store: ByteStore, owner: str, batch_id: str, out: str, reach: Reach | None = None
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._owner = owner
        self._batch_id = batch_id
        self._reach = reach
        self._target: Target
        if out.startswith("s3://"):
            if reach is None:
                raise ForbiddenError(f"nobody said who may write to {out}", code="bucket_not_granted")
            self._target = Bucket(reach.place(out, "write"), owner, batch_id)
        else:
            self._target = Folder(Path(out))
        self._delivered: dict[str, str] = {}
        self._failed: set[str] = set()
        self.failures: dict[str, FpgaError] = {}
        self.absent: list[str] = []

    def step(self) -> int:
        """Write what has been finished since the last step and return how many files those are.

        Names that change with the format wait until all names of the source are known.

        Raises:
            StoreUnavailableError, TransientError: no answer; nothing is lost, try again.
        """
        written = 0
        with self._ledger.read() as session:
            batch = batches.one(session, self._batch_id)
            rows = [row for row in outputs.finished(session, self._batch_id) if row[1].id not in self._delivered]
            fresh = [row for row in rows if row[1].id not in self._failed]
            known = names(session, batch.id) if fresh and not batch.open else None
        for item, output, artifact in fresh:
            plain = path_of(item, output)
            if known is None and _renamed(item, output):
                continue
            path = known[output.id] if known is not None else plain
            data = self._store.get(artifact.key, sha256=artifact.sha256)
            try:
                self._target.write(path, data, artifact.media_type, modified(item), same_as(output.record))
                if (output.scores or {}).get("aside"):
                    side = results.json_line(output.record)
                    self._target.write(path + SIDE, side, "application/json", None, same_as(output.record))
            except (ConflictError, UsageError, TransientError) as error:
                if isinstance(error, StoreUnavailableError) and error.code != "disk_full":
                    raise
                self._failed.add(output.id)
                self.failures[path] = error
                continue
            self._delivered[output.id] = path
            written += 1
        return written

    def finish(self) -> None:
        """Write the rest, once more what failed, the files that are copied as they are, and the lists.

        Raises:
            as `step`; ConflictError, UsageError: a list cannot be written.
        """
        self._failed.clear()
        self.failures.clear()
        self.step()
        with self._ledger.read() as session:
            batch = batches.get(session, self._owner, self._batch_id)
            failed = [str(line.get("path")) for line in results.errors_lines(session, batch)]
        options = PhotoOptions.load(batch.options) if batch.kind == photos.KIND else PhotoOptions()
        copied = self._mirror(options, set(failed)) if options.mirror else {}
        with self._ledger.read() as session:
            batch = batches.get(session, self._owner, self._batch_id)
            by_item = {
                item.id: self._delivered[output.id]
                for item, output, _ in outputs.finished(session, batch.id)
                if output.id == item.output_id and output.id in self._delivered
            }
            unwritten = [
                {"custom_id": None, "path": path, "status": "not_written", "error": {"stage": "deliver", **e.as_json()}}
                for path, e in self.failures.items()
            ]
            lines = {
                "results.jsonl": list(results.results_lines(session, batch)),
                "errors.jsonl": [*results.errors_lines(session, batch), *unwritten],
                "files.jsonl": list(files_lines(session, self._store, batch, by_item, copied)),
            }
        self.absent = [str(line["path"]) for line in lines["files.jsonl"] if line["output"] is None]
        for name, values in lines.items():
            self._target.replace(name, b"".join(results.json_line(value) for value in values))

    def _mirror(self, options: PhotoOptions, failed: set[str]) -> dict[str, str | None]:
        """Copy what is no photo and what was refused from the source, and return their paths with what went wrong."""
        if options.source is None or self._reach is None:
            return {}
        copied: dict[str, str | None] = {}
        limits = Limits(member_bytes=self._reach.settings.max_photo_bytes, names=options.names)
        with opened(self._ledger, self._store, self._reach, options.source, limits) as found:
            for member in found.members():
                wanted = isinstance(member, Refused) or member.path in failed
                if isinstance(member, Skipped):
                    wanted = not member.left_behind
                if not wanted or member.stream is None:
                    continue
                try:
                    if member.path in LISTS:
                        raise ConflictError(f"{member.path} is the name of a list of ours", code="file_exists")
                    self._target.copy(member.path, member.stream, member.modified)
                    copied[member.path] = None
                except (ConflictError, UsageError, InputError, TransientError) as error:
                    copied[member.path] = error.message
                    self.failures[member.path] = error
        return copied


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None, same: str) -> None:
        """See Target; the file gets the time that the source's had."""
        place = self._root / path
        if place.is_file():
            there = place.read_bytes()
            if there == data or self._is_same(place, there, same):
                return
        write_new(place, data)
        self._dated(place, modified)

    def copy(self, path: str, stream: BinaryIO, modified: datetime | None) -> None:
        """See Target."""
        place = self._root / path
        if not place.is_file():
            write_new(place, stream)
            self._dated(place, modified)
            return
        with place.open("rb") as there:
            while piece := stream.read(1 << 20):
                if there.read(len(piece)) != piece:
                    raise ConflictError(f"{place} exists and is not overwritten", code="file_exists")
            if there.read(1):
                raise ConflictError(f"{place} exists and is not overwritten", code="file_exists")

    def replace(self, path: str, data: bytes) -> None:
        """See Target."""
        place = self._root / path
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        write_new(fresh, data)
        try:
            fresh.replace(place)
        except OSError as error:
            raise UsageError(f"{place} cannot be written: {error.strerror}", code="file_unwritable") from error

    def _is_same(self, place: Path, there: bytes, same: str) -> bool:
        """Whether a file says, in itself or beside it, that it was made of the same source by the same settings."""
        side = place.with_name(place.name + SIDE)
        try:
            record = json.loads(side.read_bytes()) if side.is_file() else read_record(there)
        except (ValueError, OSError, FpgaError):
            return False
        return isinstance(record, dict) and same_as(record) == same

    def _dated(self, place: Path, modified: datetime | None) -> None:
        if modified is not None:
            with suppress(OSError, OverflowError):  # a disk that knows no such year keeps the time of now
                os.utime(place, (modified.timestamp(), modified.timestamp()))


class Bucket:
    """A prefix of an S3 bucket; nothing in it is written over but lists that a batch of the same owner wrote."""

    def __init__(self, place: Place, owner: str, batch_id: str) -> None:
        # Here, not at the top: importing boto3 takes longer than `fpga --help` may.
        from orchestrator.storage import s3_errors  # noqa: PLC0415

        self._name, self._prefix = place.bucket, place.prefix.rstrip("/")
        self._owner, self._batch_id = hashlib.sha256(owner.encode()).hexdigest(), batch_id
        self._client = place.client()
        self._errors = s3_errors

    def write(self, path: str, data: bytes, media_type: str, modified: datetime | None, same: str) -> None:
        """See Target; the time of the source is kept as metadata."""
        stamps = {"modified": modified.isoformat()} if modified else {}
        self._put(path, data, media_type, {**stamps, "same": same}, again=False)

    def copy(self, path: str, stream: BinaryIO, modified: datetime | None) -> None:
        """See Target."""
        with spooled(stream) as (data, sha256, _):
            stamps = {"modified": modified.isoformat()} if modified else {}
            self._put(path, data, "application/octet-stream", stamps, again=False, sha256=sha256)

    def replace(self, path: str, data: bytes) -> None:
        """See Target."""
        self._put(path, data, "application/jsonl", {}, again=True)

    def _put(
        self,
        path: str,
        data: bytes | IO[bytes],
        media_type: str,
        stamps: dict[str, str],
        *,
        again: bool,
        sha256: str | None = None,
    ) -> None:
        """Write what is not there, and what is ours only where it may be written again."""
        key = self._key(path)
        sha256 = sha256 or hashlib.sha256(data if isinstance(data, bytes) else b"").hexdigest()
        there = self._head(key)
        said = there["Metadata"] if there is not None else {}
        same = "same" in stamps and said.get("same") == stamps["same"]
        if there is not None and (same or said.get("sha256") == sha256):
            return
        if there is not None and not (again and said.get("owner") == self._owner):
            raise self._taken(key)
        # the store compares too: somebody may have written between the look and now
        condition = {"IfMatch": there["ETag"]} if there is not None else {"IfNoneMatch": "*"}
        stamps = {**stamps, "sha256": sha256, "batch": self._batch_id, "owner": self._owner}
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


def names(session: Session, batch_id: str) -> dict[str, str]:
    """Return the name of each result by output id; those that change with the format keep off all others [ours].

    `a.gif` becomes `a.gif.png`, or `a.gif.2.png` where the source has an `a.gif.png` of its own.
    """
    rows = list(outputs.finished(session, batch_id))
    taken = {PhotoParams.load(item.params).path for item in batches.items(session, batch_id)}
    found = {o.id: path_of(item, o) for item, o, _ in rows if path_of(item, o) in taken and not _renamed(item, o)}
    for item, output, _ in rows:
        if output.id in found:
            continue
        path, number = path_of(item, output), 2
        pure = PurePosixPath(path)
        while path in taken:
            path, number = str(pure.with_name(f"{pure.stem}.{number}{pure.suffix}")), number + 1
        taken.add(path)
        found[output.id] = path
    return found


def _renamed(item: Item, output: Output) -> bool:
    return path_of(item, output) != PhotoParams.load(item.params).path


def same_as(record: Mapping[str, Any] | None) -> str:
    """Name the source, the settings and the people of a result: equal for equal ones, in whatever batch."""
    said = record or {}
    people = [face.get("person") for face in said.get("faces", ()) if isinstance(face, dict)]
    kept = json.dumps([[said.get(name) for name in SAME], people], sort_keys=True, default=str)
    return hashlib.sha256(kept.encode()).hexdigest()


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
