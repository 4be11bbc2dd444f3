"""Any S3 endpoint as byte store, through boto3; endpoint, region and credentials are the standard AWS_* variables.

Endpoints differ, so only what all have is relied upon: our sha256 travels as metadata, in the signature of the payload,
and as a checksum header (Content-MD5, on AWS itself x-amz-checksum-sha256), and is verified on the way out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import IO, TYPE_CHECKING, BinaryIO, Literal
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from orchestrator.errors import NotFoundError, SettingsError, TransientError
from orchestrator.storage.base import Data, Listed, Part, Stored
from orchestrator.storage.keys import check_key, check_prefix, check_sha256, named_sha256
from orchestrator.storage.links import check_expiry, content_disposition
from orchestrator.storage.probe import probe
from orchestrator.storage.s3_errors import code_of, status_of, typed_errors
from orchestrator.storage.streams import check_content, spooled, taken, verified

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MULTIPART_THRESHOLD = 64 << 20
"""Larger objects go up in parts; below, one request is atomic and leaves nothing behind when it is cut off."""
READ_TRIES = 3
"""botocore repeats a request that fails, but not a body that breaks off while it is read."""


class S3Store:
    """Byte store in one bucket, below a prefix.

    Args:
        bucket: name of a bucket that exists.
        prefix: put before every key with a slash, or empty.
        addressing_style: `path` for stores without a host name per bucket; `auto` lets botocore choose.
        public_endpoint_url: the endpoint as browsers reach it; links are signed for its host.
        connect_timeout: seconds.
        read_timeout: seconds between two pieces of an answer.
        tries: how often botocore sends a request at most, in its standard mode with growing pauses.
        multipart_threshold: bytes; parts have half that size, at least the 5 MiB that S3 asks for.

    Raises:
        SettingsError: the AWS_* variables make no client: malformed endpoint, unknown profile.
    """

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        addressing_style: Literal["auto", "path", "virtual"] = "auto",
        public_endpoint_url: str | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        tries: int = 3,
        multipart_threshold: int = MULTIPART_THRESHOLD,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        session = _session()
        host = urlsplit(_client(session, Config()).meta.endpoint_url).hostname or ""
        self._on_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        # Newer checksum headers are refused by some stores, so that only AWS gets them (boto/botocore#3352).
        checksums: Literal["when_required", "when_supported"] = "when_supported" if self._on_aws else "when_required"
        config = Config(
            signature_version="s3v4",
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": tries},
            max_pool_connections=16,
            tcp_keepalive=True,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            s3={"addressing_style": addressing_style, "payload_signing_enabled": True},
        )
        self._client = _client(session, config)
        self._signer = _client(session, config, public_endpoint_url) if public_endpoint_url else self._client
        self._conditional = True  # until the store says that it does not know If-None-Match
        self._transfer = TransferConfig(
            multipart_threshold=multipart_threshold,
            multipart_chunksize=max(multipart_threshold // 2, 5 << 20),
            max_concurrency=4,
        )

    def put(self, key: str, data: Data, *, media_type: str, sha256: str | None = None) -> Stored:
        """See ByteStore."""
        name = self._name(key)
        wanted = check_sha256(sha256) if sha256 is not None else None
        with spooled(data) as (body, digest, size):
            check_content(key, digest, wanted)
            stored = Stored(key=key, sha256=digest, size=size)
            with self._typed_errors(f"put {key}"):
                if size > self._transfer.multipart_threshold:
                    self._put_in_parts(stored, name, body, media_type)
                elif self._conditional and self._put_if_absent(stored, name, body, media_type):
                    return stored
                elif not self._holds(stored):
                    body.seek(0)
                    self._put_whole(stored, name, body, media_type)
        return stored

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        """See ByteStore; a body that breaks off is asked for again."""
        tries_left = READ_TRIES
        while True:
            with self.open(key, sha256=sha256) as stream:
                try:
                    return stream.read()
                except TransientError:
                    tries_left -= 1
                    if not tries_left:
                        raise

    def open(self, key: str, *, sha256: str | None = None) -> BinaryIO:
        """See ByteStore."""
        name = self._name(key)
        with self._typed_errors(f"get {key}"):
            answer = self._client.get_object(Bucket=self._bucket, Key=name)
        wanted = check_sha256(sha256) if sha256 is not None else named_sha256(key) or answer["Metadata"].get("sha256")
        return verified(answer["Body"], key, wanted, partial(self._typed_errors, f"read {key}"))

    def head(self, key: str) -> Stored | None:
        """See ByteStore; the hash is the one sent along with the object, else the one in the key, else empty."""
        try:
            with self._typed_errors(f"head {key}"):
                answer = self._client.head_object(Bucket=self._bucket, Key=self._name(key))
        except NotFoundError:
            return None
        sha256 = answer["Metadata"].get("sha256") or named_sha256(key) or ""
        return Stored(key=key, sha256=sha256, size=answer["ContentLength"])

    def delete(self, key: str) -> None:
        """See ByteStore."""
        try:
            with self._typed_errors(f"delete {key}"):
                self._client.delete_object(Bucket=self._bucket, Key=self._name(key))
        except NotFoundError:  # some stores say so; AWS does not
            return

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """See ByteStore."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + check_prefix(prefix)
        )
        with self._typed_errors(f"list {prefix}"):
            for page in pages:
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._prefix)
                    yield Listed(key=key, size=item["Size"], modified=item["LastModified"].astimezone(UTC))

    def url(self, key: str, *, expires_seconds: int, filename: str | None = None, media_type: str | None = None) -> str:
        """See ByteStore; a presigned GET for the public endpoint."""
        params = {
            "Bucket": self._bucket,
            "Key": self._name(key),
            "ResponseContentDisposition": content_disposition(filename),
            "ResponseContentType": media_type or "application/octet-stream",
        }
        with self._typed_errors(f"sign a link to {key}"):
            return self._signer.generate_presigned_url(
                "get_object", Params=params, ExpiresIn=check_expiry(expires_seconds), HttpMethod="GET"
            )

    def place(self, key: str) -> str:
        """See ByteStore."""
        return f"s3://{self._bucket}/{self._name(key)}"

    def sweep_stale(self, older_than_seconds: float, *, spare: str = "") -> int:
        """See ByteStore; the pieces are multipart uploads that nobody will complete."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        swept = 0
        with self._typed_errors("sweep uploads"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for upload in [upload for page in pages for upload in page.get("Uploads", [])]:
                spared = bool(spare) and upload["Key"].startswith(self._prefix + spare)
                if upload["Initiated"] <= before and not spared:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    swept += 1
        return swept

    def begin_parts(self, key: str, *, media_type: str) -> str:
        """See PartStore."""
        with self._typed_errors(f"begin {key}"):
            begun = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=self._name(key), ContentType=media_type
            )
        return begun["UploadId"]

    def part_url(self, key: str, parts_id: str, number: int, *, size: int, expires_seconds: int) -> str:
        """See PartStore; a presigned PUT for the public endpoint, its length signed too."""
        params = {
            "Bucket": self._bucket,
            "Key": self._name(key),
            "UploadId": parts_id,
            "PartNumber": number,
            "ContentLength": size,
        }
        with self._typed_errors(f"sign part {number} of {key}"):
            return self._signer.generate_presigned_url(
                "upload_part", Params=params, ExpiresIn=check_expiry(expires_seconds), HttpMethod="PUT"
            )

    def parts(self, key: str, parts_id: str) -> dict[int, Part]:
        """See PartStore."""
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=self._name(key), UploadId=parts_id
        )
        with self._typed_errors(f"list the parts of {key}"):
            found = [part for page in pages for part in page.get("Parts", [])]
        return {part["PartNumber"]: Part(size=part["Size"], etag=part["ETag"]) for part in found}

    def finish_parts(self, key: str, parts_id: str, parts: Mapping[int, Part]) -> None:
        """See PartStore."""
        listed = [{"PartNumber": number, "ETag": part.etag} for number, part in sorted(parts.items())]
        with self._typed_errors(f"finish {key}"):
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._name(key),
                UploadId=parts_id,
                MultipartUpload={"Parts": listed},  # type: ignore[typeddict-item]  # the stub wants all optional names
            )

    def give_up_parts(self, key: str, parts_id: str) -> None:
        """See PartStore."""
        try:
            with self._typed_errors(f"give {key} up"):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._name(key), UploadId=parts_id)
        except NotFoundError:
            return

    def check(self) -> None:
        """See ByteStore."""
        probe(self, f"s3://{self._bucket}/{self._prefix}")

    def _put_if_absent(self, stored: Stored, name: str, body: IO[bytes], media_type: str) -> bool:
        """Put unless there is an object already; False means that there is one, or that the store cannot tell."""
        try:
            self._put_whole(stored, name, body, media_type, IfNoneMatch="*")
        except ClientError as error:
            if code_of(error) == "NotImplemented" or status_of(error) == 501:
                self._conditional = False
            elif status_of(error) not in (409, 412):  # another writer is at it, or was here before
                raise
            return False
        return True

    def _put_whole(self, stored: Stored, name: str, body: IO[bytes], media_type: str, **condition: str) -> None:
        """Send the object in one request."""
        content = body.read()
        checksum = (
            {"ChecksumSHA256": base64.b64encode(bytes.fromhex(stored.sha256)).decode()}
            if self._on_aws
            else {"ContentMD5": base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()}
        )
        self._client.put_object(
            Bucket=self._bucket,
            Key=name,
            Body=content,
            ContentType=media_type,
            Metadata={"sha256": stored.sha256},
            **checksum,  # type: ignore[arg-type]  # names and values are right, the stub wants literals
            **condition,  # type: ignore[arg-type]  # likewise
        )

    def _put_in_parts(self, stored: Stored, name: str, body: IO[bytes], media_type: str) -> None:
        """Send the object in parts; a failure aborts the upload, what a kill leaves is for sweep_stale."""
        if self._holds(stored):
            return
        extra = {"ContentType": media_type, "Metadata": {"sha256": stored.sha256}}
        self._client.upload_fileobj(body, self._bucket, name, ExtraArgs=extra, Config=self._transfer)

    def _holds(self, stored: Stored) -> bool:
        """Say whether the same bytes are there; refuse others, unless the key tells that those are damaged."""
        present = self.head(stored.key)
        if present is not None and present != stored and named_sha256(stored.key) != stored.sha256:
            raise taken(stored, present.sha256)
        return present == stored

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _typed_errors(self, action: str) -> AbstractContextManager[None]:
        return typed_errors(action, f"bucket {self._bucket} at {self._client.meta.endpoint_url}")


def _session() -> boto3.Session:
    """Return a session of our own: the default one may not be shared between threads."""
    try:
        return boto3.Session()
    except BotoCoreError as error:
        raise SettingsError(f"AWS_* variables are wrong: {error}", code="store_settings_invalid") from error


def _client(session: boto3.Session, config: Config, endpoint_url: str | None = None) -> S3Client:
    try:
        return session.client("s3", config=config, endpoint_url=endpoint_url)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"no S3 client can be made: {error}", code="store_settings_invalid") from error
