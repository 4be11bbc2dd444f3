"""botocore's errors become ours here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from urllib3.exceptions import HTTPError

from orchestrator.errors import FpgaError, NotFoundError, SettingsError, StoreUnavailableError

_MISSING = {"NoSuchKey", "404", "NotFound"}
_DENIED = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_FULL = {"InsufficientStorage", "507", "QuotaExceeded", "XMinioStorageFull", "StorageFull", "EntityTooLarge"}


def code_of(error: ClientError) -> str:
    """Return the error code of an answer, such as `NoSuchKey`; a HEAD has no body and gives its status."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def status_of(error: ClientError) -> int:
    """Return the HTTP status of an answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def typed_errors(action: str, where: str) -> Iterator[None]:
    """Turn whatever boto3 raises inside into one of our errors.

    Args:
        action: what was tried, for the message.
        where: the bucket and its endpoint, for the message.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, action, where) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise SettingsError(
            f"no complete credentials for {where}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            code="store_credentials_missing",
        ) from error
    except (BotoCoreError, Boto3Error, HTTPError, OSError) as error:
        # no better name for them: the endpoint was not reached, or the connection broke on the way
        raise StoreUnavailableError(f"{action}: {where} cannot be reached: {type(error).__name__}: {error}") from error


def _from_answer(error: ClientError, action: str, where: str) -> FpgaError:
    code = code_of(error)
    said = f"{action}: {where} answered {status_of(error)} {code}"
    if code == "NoSuchBucket":
        return StoreUnavailableError(f"{said}: the bucket does not exist; create it first")
    if code in _MISSING:
        return NotFoundError(said, code="object_missing")
    if code == "NoSuchUpload":
        return NotFoundError(said, code="parts_missing")
    if code in _FULL:
        return StoreUnavailableError(f"{said}: the store is full", code="store_full")
    if code in _DENIED:
        return StoreUnavailableError(f"{said}: these credentials may not do that", code="store_denied")
    return StoreUnavailableError(f"{said}: {error.response.get('Error', {}).get('Message', 'no reason given')}")
