"""Tables of scans: photos of archives, the faces in them, and the people that these faces were grouped into."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from orchestrator.ledger.engine.base import Row
from orchestrator.secrets.vault import Envelope


class ScannedPhoto(Row):
    """A file of an archive that was looked at once; it is looked at again when its size or time has changed.

    Faces belong to the picture, by `pixels_sha256`: a file that is there twice shows its people once.
    """

    __tablename__ = "scanned_photo"
    __table_args__ = (UniqueConstraint("owner", "place_sha256"), Index(None, "owner", "pixels_sha256"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    place_sha256: Mapped[str]
    """Of archive and path, which are too long for an index."""
    archive: Mapped[str] = mapped_column(Text)
    """The source as the scan was given it: a folder, zip, tar or bucket."""
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    modified: Mapped[datetime | None]
    file_sha256: Mapped[str]
    pixels_sha256: Mapped[str]
    phash: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    """Upright, px."""
    orientation: Mapped[int]
    """1 to 8, as EXIF counts: how the stored picture is turned to stand upright."""
    faces_key: Mapped[str]
    """The kept result of looking at the picture, which a restoration uses again."""
    batch_id: Mapped[str] = mapped_column(ForeignKey("batch.id"))
    """The last scan that saw the file."""
    created_at: Mapped[datetime]


class FoundPerson(Row):
    """A group of faces that one recogniser takes for one person, or that a person said belong together.

    Groups that were merged stay as they are below the one they are `of`, so that faces of later scans still find each.
    """

    __tablename__ = "found_person"
    __table_args__ = (Index(None, "owner", "handle"), Index(None, "of"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    encoder: Mapped[str]
    number: Mapped[int]
    """What people call a group that has no name; counts for each owner."""
    of: Mapped[str | None] = mapped_column(ForeignKey("found_person.id"))
    handle: Mapped[str | None]
    """That of a person of the library, or the one they are to get."""
    name: Mapped[str | None]
    created_at: Mapped[datetime]


def found_face_place(owner: str, pixels_sha256: str, encoder: str, number: int) -> str:
    """Return the name of the place that the key of one face of a picture belongs to."""
    return f"found face {owner} {pixels_sha256} {encoder} {number}"


class FoundFace(Row):
    """One face of one picture; what tells of whom it is lies under a data key of its own."""

    __tablename__ = "found_face"
    __table_args__ = (UniqueConstraint("owner", "pixels_sha256", "encoder", "number"), Index(None, "person_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    pixels_sha256: Mapped[str]
    encoder: Mapped[str]
    number: Mapped[int]
    """From the left, from 0."""
    person_id: Mapped[str | None] = mapped_column(ForeignKey("found_person.id"))
    decided: Mapped[bool] = mapped_column(default=False)
    """Whether a person said whose it is."""
    refused: Mapped[list[str]] = mapped_column(default=list)
    """Groups that a person said it does not belong to."""
    quality: Mapped[float]
    face: Mapped[dict[str, Any]]
    data_key: Mapped[str]
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    crop: Mapped[bytes] = mapped_column(LargeBinary)
    """The head as a small JPEG: what pages show, and what a person of the library is made from."""
    created_at: Mapped[datetime]

    @property
    def envelope(self) -> Envelope:
        """The key, bound to this face of its picture."""
        place = found_face_place(self.owner, self.pixels_sha256, self.encoder, self.number)
        return Envelope(key=self.data_key, place=place)
