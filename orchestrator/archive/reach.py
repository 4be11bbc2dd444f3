"""Which buckets a source or a target may be in, and with whose credentials they are opened.

A command is run by whoever set its AWS_* variables, so it reaches what those reach. A client of the HTTP API reaches
only what FPGA_BUCKETS_FILE grants its owner, each prefix with credentials of its own: those of the deployment are
never lent. The bucket of our own store is nobody's source or target; finished uploads in it are named `artifact:ID`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, model_validator

from orchestrator.archive.base import Limits
from orchestrator.archive.source import Source, open_source
from orchestrator.errors import ForbiddenError, NotFoundError, SettingsError, UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

if TYPE_CHECKING:
    from orchestrator.archive.bucket import Place

KEPT = "artifact:"
"""Begins the name of a source that lies in our own store."""
May = Literal["read", "write"]


class Grant(BaseModel):
    """One `[[grant]]` of FPGA_BUCKETS_FILE: what one owner's requests may do below one prefix of one bucket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    url: Annotated[str, StringConstraints(pattern=r"^s3://[a-zA-Z0-9._-]{1,255}(/[^\x00-\x1f]*)?$")]
    may: Annotated[tuple[May, ...], Field(min_length=1)] = ("read",)
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None

    @model_validator(mode="after")
    def _own_credentials(self) -> Grant:
        if bool(self.profile) == bool(self.access_key_id and self.secret_access_key):
            raise ValueError("a grant has a profile, or access_key_id and secret_access_key, of its own")
        return self

    @property
    def below(self) -> str:
        """The prefix as a folder: what begins with it is granted."""
        url = self.url.rstrip("/")
        return f"{url}/"


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What may be opened in the name of one owner.

    Attributes:
        operator: whether whoever set the AWS_* variables asks, by a command or a schedule of theirs.
    """

    settings: Settings
    owner: str
    operator: bool = False

    def place(self, url: str, may: May) -> Place:
        """Return a place in a bucket that may be read from, or written to.

        Raises:
            ForbiddenError: `bucket_not_granted`.
            UsageError: the URL names no bucket, or the bucket is that of our own store.
            SettingsError: FPGA_BUCKETS_FILE is wrong.
        """
        # Here, not at the top: importing boto3 takes longer than `fpga --help` may.
        from orchestrator.archive.bucket import Place  # noqa: PLC0415

        place = Place.of(url)
        store = urlsplit(self.settings.store_url)
        if store.scheme == "s3" and place.bucket == store.netloc:
            raise UsageError("the bucket of the system itself is no source and no target", code="bucket_of_the_system")
        if self.operator:
            return place
        for grant in grants(self.settings):
            if grant.owner == self.owner and may in grant.may and _covers(grant.below, url):
                named = f"{url.rstrip('/')}/" if f"{url.rstrip('/')}/" == grant.below else url
                return Place.of(named, grant)
        raise ForbiddenError(
            f"your requests may not {may} {url}; the operator grants prefixes of buckets in FPGA_BUCKETS_FILE",
            code="bucket_not_granted",
        )


def grants(settings: Settings) -> Sequence[Grant]:
    """Return what FPGA_BUCKETS_FILE grants; without one nothing.

    Raises:
        SettingsError: it cannot be read, may be read by others, or says what no grant says.
    """
    path = settings.buckets_file
    if path is None:
        return ()
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"{path} may be read by others; chmod 600 it", code="key_exposed")
        found = tomllib.loads(path.read_text("utf-8"))
        return [Grant.model_validate(one) for one in found.get("grant", ())]
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", code="buckets_file_invalid") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {where}: {first['msg']}", code="buckets_file_invalid") from error
    except ValueError as error:
        raise SettingsError(f"{path} is no TOML: {error}", code="buckets_file_invalid") from error


def opened(ledger: Ledger, store: ByteStore | None, reach: Reach, source: str, limits: Limits | None = None) -> Source:
    """Open a source that somebody named, or one that lies in our store.

    Args:
        store: where `artifact:ID` lies; None opens the store of the settings for one.

    Raises:
        as `open_source` and `Reach.place`.
    """
    if not source.startswith(KEPT):
        return open_source(source, limits, reach)
    # Here, not at the top: see the import of boto3 above.
    from orchestrator.archive.bucket import Place  # noqa: PLC0415
    from orchestrator.storage import open_store  # noqa: PLC0415

    with ledger.read() as session:
        artifact = session.get(Artifact, source.removeprefix(KEPT))
    if artifact is None or artifact.owner != reach.owner or artifact.state not in ("live", "pending"):
        raise NotFoundError("the upload is not kept any more; send it again", code="source_missing")
    where = (store or open_store(reach.settings)).place(artifact.key)
    return open_source(Place.of(where) if where.startswith("s3://") else str(Path(where)), limits)


def _covers(below: str, url: str) -> bool:
    segments = url.removeprefix("s3://").split("/")
    return f"{url}/".startswith(below) and not {".", ".."} & set(segments)
