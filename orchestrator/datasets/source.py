"""Pictures of a source with what is said of them beside them: captions and people, for building data sets.

Said by a side file of the same name (`a.txt` is the caption, `a.json` an object), or by a table of the imagefolder
convention (`metadata.jsonl` or `.csv`, column `file_name`). Fields: `caption` or `text`; `person`, a name, or
`people`, names from left to right.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.archive import Limits, Photo, Refused, Skipped, Source, open_source
from orchestrator.archive.reach import KEPT
from orchestrator.errors import InputError, ManifestError

PeopleFrom = Literal["metadata", "folder", "faces"]
"""Where people come from: what is said beside the picture, the folder it lies in, or only their faces."""
SIDE_FILES = (".txt", ".json")
TABLES = ("metadata.jsonl", "metadata.csv")
MAX_PICTURE_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class SourcePicture:
    """One picture file, `data` None where it cannot be read (then `error` says why)."""

    name: str
    data: bytes | None
    caption: str | None = None
    people: tuple[str, ...] = ()
    error: InputError | None = None


def read_pictures(
    source: str,
    *,
    people: PeopleFrom,
    metadata: Path | None = None,
    opened: Callable[[str, Limits], Source] = open_source,
) -> Iterator[SourcePicture]:
    """Yield the pictures of a folder, zip, tar or `s3://` prefix one at a time, in an order that stays the same.

    `opened` opens the source; by default no bucket can be named. A side file counts when it stands beside its picture
    in that order, as sorted folders and WebDataset tars have it.

    Raises:
        InputError, NotFoundError, StoreUnavailableError: the source as a whole cannot be read.
        ManifestError: the table of metadata is wrong.
    """
    table = _table(source, metadata)
    with opened(source, Limits(member_bytes=MAX_PICTURE_BYTES)) as found:
        found.side_files = SIDE_FILES
        held: list[SourcePicture] = []
        stem = ""
        said: dict[str, Any] = {}
        for member in found.members():
            here = member.path.rpartition(".")[0]
            if here != stem:
                yield from _told(held, said, table, people)
                stem, held, said = here, [], {}
            if isinstance(member, Skipped):
                said |= _side(member)
            else:
                held.append(_picture(member))
        yield from _told(held, said, table, people)


def _picture(member: Photo | Refused) -> SourcePicture:
    if isinstance(member, Refused):
        return SourcePicture(name=member.path, data=None, error=member.error)
    try:
        return SourcePicture(name=member.path, data=member.stream.read())
    except InputError as error:
        return SourcePicture(name=member.path, data=None, error=error)


def _told(
    held: list[SourcePicture], said: Mapping[str, Any], table: Mapping[str, dict[str, Any]], people: PeopleFrom
) -> Iterator[SourcePicture]:
    for picture in held:
        facts = {**table.get(picture.name, {}), **said}
        caption = facts.get("caption") or facts.get("text")
        if _turned_down(facts):
            error = InputError("a person rejected this picture in its review", code="rejected_in_review")
            yield SourcePicture(name=picture.name, data=None, error=error)
            continue
        yield SourcePicture(
            name=picture.name,
            data=picture.data,
            caption=str(caption).strip() or None if caption else None,
            people=_people(picture.name, facts, people),
            error=picture.error,
        )


def _turned_down(facts: Mapping[str, Any]) -> bool:
    """Say whether the side file of a result tells that somebody rejected the picture: it teaches no network then."""
    review = facts.get("review")
    return isinstance(review, dict) and review.get("decision") == "rejected"


def _people(name: str, facts: Mapping[str, Any], people: PeopleFrom) -> tuple[str, ...]:
    if people == "folder":
        folder = name.rpartition("/")[0].rpartition("/")[2]
        return (folder,) if folder else ()
    if people == "faces":
        return ()
    named = facts.get("people") or facts.get("person") or ()
    return (named,) if isinstance(named, str) else tuple(str(one) for one in named)


def _side(member: Skipped) -> dict[str, object]:
    if member.text is None:
        return {}
    if member.path.lower().endswith(".txt"):
        return {"caption": member.text.decode("utf-8", "replace").strip()}
    try:
        found = json.loads(member.text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _table(source: str, metadata: Path | None) -> dict[str, dict[str, object]]:
    """Rows by file name; about 300 bytes of memory each."""
    path = metadata
    if path is None:
        if source.startswith(("s3://", KEPT)):
            return {}
        path = next((Path(source) / name for name in TABLES if (Path(source) / name).is_file()), None)
    if path is None:
        return {}
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read as a table of pictures: {error}") from error
    rows = _csv(text) if path.suffix == ".csv" else _jsonl(text, path)
    return {str(row["file_name"]): row for row in rows if row.get("file_name")}


def _jsonl(text: str, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{path.name} line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise ManifestError(f"{path.name} line {number} must be an object with file_name")
        yield row


def _csv(text: str) -> Iterator[dict[str, Any]]:
    for row in csv.DictReader(io.StringIO(text, newline="")):
        many = row.get("people")
        yield {**row, "people": [one.strip() for one in many.split(";") if one.strip()] if many else None}
