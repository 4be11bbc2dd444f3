"""From a URL in the settings to a byte store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import SettingsError, UsageError
from orchestrator.settings import Settings
from orchestrator.storage.base import ByteStore
from orchestrator.storage.keys import check_prefix
from orchestrator.storage.local import LocalStore


def open_store(settings: Settings) -> ByteStore:
    """Open the byte store that `settings.store_url` names: `s3://bucket/prefix` or `file:///directory`.

    No request is made for S3; ask the store's `check` whether it works.

    Raises:
        SettingsError: the URL is neither.
        StoreUnavailableError: the local directory cannot be made.
    """
    url = urlsplit(settings.store_url)
    if url.scheme == "file" and url.netloc in ("", "localhost") and url.path not in ("", "/"):
        return LocalStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc and "@" not in url.netloc and not url.query:
        # Here, not at the top: importing boto3 takes longer than `fpga --help` may.
        from orchestrator.storage.s3 import S3Store  # noqa: PLC0415

        prefix = url.path.strip("/")
        try:
            check_prefix(prefix)
        except UsageError as error:
            raise SettingsError(f"FPGA_STORE_URL has a bad prefix: {error}", code="store_url_invalid") from error
        return S3Store(
            bucket=url.netloc,
            prefix=prefix,
            addressing_style=settings.s3_addressing_style,
            public_endpoint_url=settings.s3_public_endpoint_url,
        )
    raise SettingsError(
        # what stands before an @ may be a password
        f"FPGA_STORE_URL is of the form {url.scheme or 'none'!r} to {url.netloc.rpartition('@')[2]!r}; "
        "wanted s3://bucket/prefix or file:///absolute/directory",
        code="store_url_invalid",
    )
