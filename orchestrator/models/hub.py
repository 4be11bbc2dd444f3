"""Files of a Hugging Face hub onto this machine, by huggingface_hub's own download; its errors in our words.

HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and the proxies mean what they always mean. A connection that is cut goes
on where it was; a file that is whole is not fetched again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from tqdm.auto import tqdm

from orchestrator.errors import FpgaError, ModelError, TransientError

CHUNK = 1 << 20
GIT_SHA1, SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")

Report = Callable[[str, int, int], None]
"""Told the file, the bytes that are here and the bytes in all (0 when unknown)."""


def download(repo: str, path: str, revision: str, folder: Path, report: Report) -> Path:
    """Return a file of a repository at a revision: the one in the hub's own cache, or fetched into `folder`.

    Raises:
        TransientError: `offline`, `hub_unreachable` or `hub_busy`; what came whole stays for the next try.
        ModelError: `gated`, `hub_refused` (no such repository, or not for this account), `not_on_the_hub` (no such
            revision or file), `no_hub` (something else answers there).
    """
    cached = try_to_load_from_cache(repo, path, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    with _in_our_words(repo, path, revision):
        return Path(hf_hub_download(repo, path, revision=revision, local_dir=folder, tqdm_class=_bar(path, report)))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at one commit: its files, and the licence that its card states ("" for none)."""

    revision: str
    paths: tuple[str, ...]
    licence: str


def listing(repo: str, revision: str) -> Listing:
    """Ask what a repository holds at a branch, tag or commit.

    Raises:
        TransientError, ModelError: as `download`.
    """
    with _in_our_words(repo, "its list of files", revision):
        found = HfApi().model_info(repo, revision=revision)
    card: Any = found.card_data or {}
    stated = [card.get(name) for name in ("license", "license_name", "license_link")]
    return Listing(
        revision=found.sha or "",
        paths=tuple(sorted(file.rfilename for file in found.siblings or ())),
        licence=" ".join(str(one) for one in stated if one),
    )


def is_what_the_hub_has(repo: str, path: str, revision: str, here: Path) -> bool:
    """Whether a fetched file has the hash that the hub tells: sha256 of large files, git's own of small ones.

    Raises:
        TransientError, ModelError: as `download`.
    """
    with _in_our_words(repo, path, revision):
        etag = get_hf_file_metadata(hf_hub_url(repo, path, revision=revision)).etag or ""
    if SHA256.fullmatch(etag):
        return file_hash(here, hashlib.sha256()) == etag
    if GIT_SHA1.fullmatch(etag):
        return file_hash(here, hashlib.sha1(b"blob %d\0" % here.stat().st_size, usedforsecurity=False)) == etag
    return True


def file_hash(path: Path, digest: Any) -> str:
    """The hash of a file, by an object of hashlib."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    value: str = digest.hexdigest()
    return value


@contextmanager
def _in_our_words(repo: str, path: str, revision: str) -> Iterator[None]:
    try:
        yield
    except (
        HfHubHTTPError,
        EntryNotFoundError,
        FileMetadataError,
        XetDownloadError,
        httpx2.HTTPError,
        OSError,
    ) as error:
        raise _said(error, f"{repo}/{path} at {revision[:7]}", repo) from error


def _said(error: BaseException, what: str, repo: str) -> FpgaError:
    """The sentence for what huggingface_hub raised; where it looked in vain for a local file, for the cause of that."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return TransientError(f"offline (HF_HUB_OFFLINE), and {what} is not in the cache", code="offline")
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{repo} is gated: accept its terms at {constants.ENDPOINT}/{repo} with your account, then set HF_TOKEN "
            "to a token of that account",
            code="gated",
        )
    if isinstance(error, RevisionNotFoundError | EntryNotFoundError):
        return ModelError(f"{constants.ENDPOINT} has no {what}", code="not_on_the_hub")
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403, 404):
        return ModelError(
            f"{constants.ENDPOINT} does not give out {what} ({status}): there is no such repository, or it is private "
            "or gated; see its page, and set HF_TOKEN to a token of an account that may read it",
            code="hub_refused",
        )
    if isinstance(error, FileMetadataError):
        return ModelError(
            f"{constants.ENDPOINT} does not answer as a hub does; look at HF_ENDPOINT and the proxy", code="no_hub"
        )
    if status is not None:
        return TransientError(f"the hub is busy ({status}), {what} did not come; try again later", code="hub_busy")
    first = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return TransientError(f"{what} could not be fetched: {first}", code="hub_unreachable")


def _bar(path: str, report: Report) -> type[tqdm[Any]]:
    """huggingface_hub tells its progress to a class of bars: this one draws nothing and passes the bytes on."""

    class Bar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # tqdm has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})
            self.here, self.all = int(kwargs.get("initial") or 0), int(kwargs.get("total") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self.here += int(n or 0)
            report(path, self.here, self.all)
            return None

    return Bar
