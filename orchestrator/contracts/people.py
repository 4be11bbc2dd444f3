"""People who are added to the library: what an enrol item carries until its person exists."""

from __future__ import annotations

from datetime import datetime

from orchestrator.contracts.base import Contract, StageResult


class GivenConsent(Contract):
    """What a person allows; of the text they saw only the sha256."""

    scopes: tuple[str, ...]
    granted_by: str
    text_sha256: str | None = None
    expires_at: datetime | None = None


def picture_place(picture_sha256: str) -> str:
    """Return the name of the place that the key of a picture on its way into the library belongs to."""
    return f"picture {picture_sha256}"


class GivenReference(Contract):
    """One sealed reference picture; rows from before pictures were sealed have no key."""

    artifact_id: str
    key: str
    sha256: str
    """Of the bytes in the store."""
    data_key: str | None = None
    picture_sha256: str | None = None
    """Of the picture itself; None where the stored bytes are the picture."""
    file_name: str = ""

    @property
    def place(self) -> str:
        """The place that `data_key` belongs to until it is known whose reference it is."""
        return picture_place(self.picture_sha256 or self.sha256)


class EnrolParams(Contract):
    """A person to add; all of it is forgotten when they are erased."""

    handle: str = ""
    name: str | None = None
    references: tuple[GivenReference, ...] = ()
    consent: GivenConsent | None = None
    same_person: bool = False
    """Whether the caller answers for all pictures showing one person, so that they are not compared."""
    identity: str | None = None
    """A person of the library whose kept pictures are embedded anew, instead of new ones."""


class Enrolled(StageResult):
    """Result of `ingest`: how many pictures were taken in, and how many were left as they are."""

    references: int
    left: int = 0
    notes: tuple[str, ...] = ()
    """Which references are poor, and why, by their numbers."""
