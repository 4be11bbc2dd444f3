"""A prefix of an S3 bucket as a source, or one object as a file.

It reads buckets of others: their keys may be anything, unlike those of our own store. Who may open which bucket, with
whose credentials, is said in `orchestrator.archive.reach`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from orchestrator.archive.base import Found, Refused
from orchestrator.errors import NotFoundError, SettingsError, UsageError
from orchestrator.storage.s3_errors import typed_errors
from orchestrator.storage.streams import verified

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from orchestrator.archive.reach import Grant

READ_AHEAD = 8 << 20
NAME = re.compile(r"[a-zA-Z0-9._-]{1,255}")
"""What may be a bucket, by the rules of the client library."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A prefix of a bucket, and the grant that opens it; without one the AWS_* variables do."""

    bucket: str
    prefix: str
    grant: Grant | None = None

    @classmethod
    def of(cls, url: str, grant: Grant | None = None) -> Place:
        """Return the place that a URL names.

        Raises:
            UsageError: it names no bucket.
        """
        # no URL parser: keys may hold ? and #, and one raises on brackets
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not NAME.fullmatch(bucket):
            raise UsageError(f"wanted s3://bucket/prefix, got {url!r}", code="bad_source")
        return cls(bucket=bucket, prefix=prefix.lstrip("/"), grant=grant)

    def client(self) -> S3Client:
        """Return a client with the credentials that open this place, and no others.

        Raises:
            SettingsError: they make none.
        """
        config = Config(retries={"mode": "standard", "total_max_attempts": 3})
        grant = self.grant
        try:
            if grant is None:
                return boto3.Session().client("s3", config=config)
            secret, token = grant.secret_access_key, grant.session_token
            session = boto3.Session(
                profile_name=grant.profile,
                aws_access_key_id=grant.access_key_id,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                aws_session_token=token.get_secret_value() if token else None,
                region_name=grant.region,
            )
            return session.client("s3", config=config, endpoint_url=grant.endpoint_url)
        except (BotoCoreError, ValueError) as error:
            raise SettingsError(f"no S3 client can be made: {error}", code="store_settings_invalid") from error


class Bucket:
    """The objects below a prefix, in the order of their keys' UTF-8 bytes, as S3 lists them.

    Raises:
        UsageError: this machine has no credentials for the bucket.
        NotFoundError: `source_missing`, nothing lies below the prefix.
        StoreUnavailableError: the bucket cannot be listed.
    """

    def __init__(self, place: Place) -> None:
        self._bucket, self._prefix = place.bucket, place.prefix
        try:
            self._client = place.client()
            with self._typed_errors("list the source"):
                first = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        except SettingsError as error:  # the source asks for what this machine was not set up for: no fault of a server
            raise UsageError(error.message, code=error.code) from error
        if not first.get("Contents"):
            raise NotFoundError(f"nothing in bucket {self._bucket} begins with {self._prefix!r}", code="source_missing")

    @property
    def name(self) -> str:
        """The last part of the prefix."""
        return self._prefix.rpartition("/")[2]

    def object_file(self) -> BinaryIO | None:
        """Return the object that has just this key as a file to read and seek in, or None if there is none."""
        if not self.name:
            return None
        try:
            with self._typed_errors(f"look at {self._prefix}"):
                about = self._client.head_object(Bucket=self._bucket, Key=self._prefix)
        except NotFoundError:
            return None
        raw = ObjectReader(self._ranged, about["ContentLength"], about["ETag"])
        return cast(BinaryIO, io.BufferedReader(raw, READ_AHEAD))

    def found(self) -> Iterator[Found | Refused]:
        """See Opened; keys that end in a slash are marks of folders."""
        base = self._prefix.rpartition("/")[0]
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        with self._typed_errors("list the source"):
            for page in pages:
                for item in page.get("Contents", []):
                    key = item["Key"]
                    if not key.endswith("/"):
                        yield Found(
                            raw_path=key.removeprefix(f"{base}/" if base else "").encode(),
                            size=item["Size"],
                            modified=item["LastModified"].astimezone(UTC),
                            open=partial(self._opened, key),
                        )

    def close(self) -> None:
        """See Opened."""
        self._client.close()

    def _opened(self, key: str) -> BinaryIO:
        action = f"read {key}"
        with self._typed_errors(action):
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        return verified(body, key, None, partial(self._typed_errors, action))

    def _ranged(self, start: int, end: int, tag: str) -> bytes:
        with self._typed_errors(f"read {self._prefix}"):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix, Range=f"bytes={start}-{end - 1}", IfMatch=tag
            )
            return answer["Body"].read()

    def _typed_errors(self, action: str) -> AbstractContextManager[None]:
        return typed_errors(action, f"bucket {self._bucket} at {self._client.meta.endpoint_url}")


class ObjectReader(io.RawIOBase):
    """One object, read in ranges; an object that changes meanwhile is not read on.

    Args:
        ranged: returns the bytes from a place up to another one, of the version that has this tag.
        size: of the object.
        tag: of its version.
    """

    def __init__(self, ranged: Callable[[int, int, str], bytes], size: int, tag: str) -> None:
        super().__init__()
        self._ranged = ranged
        self._size = size
        self._tag = tag
        self._place = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any place can be gone to."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place; nothing is asked for before it is read."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed names a private protocol
        """Fill the buffer by one request.

        Raises:
            StoreUnavailableError: the store does not answer, or has other bytes by now.
        """
        end = min(self._place + len(buffer), self._size)
        if end <= self._place:
            return 0
        piece = self._ranged(self._place, end, self._tag)
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)
