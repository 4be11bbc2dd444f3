"""Reads a manifest, JSONL or CSV, into checked rows and numbered errors. Any bytes give an answer, never a traceback.

JSONL: one object in each line. CSV: with a header; `people` is `ada@left;bruno` or the JSON of the other form, and an
empty cell is a value not given. Both are UTF-8, with or without a byte order mark. What spreadsheets write is read too,
and noted: UTF-16, semicolons or tabs between columns, a line `sep=;`, capitals in the header, columns without name and
value.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.contracts.portraits import MAX_ROWS
from orchestrator.errors import ManifestError, NotFoundError, UsageError
from orchestrator.planning.rows import COLUMNS, ManifestRow, RowError, check_row, unknown_column

MAX_BYTES = 200_000_000
MAX_ROW_BYTES = 131_072
UTF8_MARK, UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")

Format = Literal["jsonl", "csv"]
FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
Checked = ManifestRow | list[RowError]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The good rows in file order, and what is wrong with the others."""

    rows: tuple[ManifestRow, ...]
    errors: tuple[RowError, ...]
    notes: tuple[str, ...] = ()
    """What was read in another way than written, one sentence each."""


def read_manifest_file(path: Path) -> Manifest:
    """Read the manifest in a file named `.jsonl`, `.ndjson` or `.csv`.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the name ends otherwise, or the file cannot be read.
        ManifestError: it is too large.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"{path.name}: a manifest is named .jsonl, .ndjson or .csv, got {path.suffix or 'no ending'!r}"
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"no manifest {path}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return read_manifest(data, form)


def read_manifest(data: bytes, form: Format) -> Manifest:
    """Check every row and return the good ones and all errors.

    Raises:
        ManifestError: over 200 MB or 50 000 rows; wrong rows raise nothing here.
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(f"a manifest holds at most {MAX_BYTES // 10**6} MB", code="manifest_too_large")
    notes: list[str] = []
    data = as_utf8(data, notes)
    rows: list[ManifestRow] = []
    errors: list[RowError] = []
    for count, checked in enumerate(_json_rows(data) if form == "jsonl" else _csv_rows(data, notes), start=1):
        if count > MAX_ROWS:
            raise ManifestError(f"a manifest holds at most {MAX_ROWS} rows", code="manifest_too_large")
        if isinstance(checked, ManifestRow):
            rows.append(checked)
        else:
            errors.extend(checked)
    if not rows and not errors:
        errors.append(_error(1, "manifest_empty", "the manifest has no rows"))
    return Manifest(rows=tuple(rows), errors=tuple(errors), notes=tuple(notes))


def as_utf8(data: bytes, notes: list[str]) -> bytes:
    """Return the bytes of a manifest as UTF-8 without a mark; those of UTF-16 that is broken stay as they are."""
    if data.startswith(UTF16_MARKS):
        with suppress(UnicodeDecodeError):
            data = data.decode("utf-16").encode()
            notes.append("the file is UTF-16 and was read as such")
    return data.removeprefix(UTF8_MARK)


def separator_of(text: str) -> tuple[str, bool]:
    """Return what separates the columns of a CSV file, and whether its first line is there to say so (`sep=;`)."""
    first = text.partition("\n")[0].rstrip("\r")
    if first.lower().startswith("sep=") and len(first) == 5:
        return first[4], True
    header = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    return ("," if "," in header else ";" if ";" in header else "\t" if "\t" in header else ","), False


def _error(row: int, code: str, message: str) -> RowError:
    return RowError(row=row, field=None, code=code, message=message)


def _json_rows(data: bytes) -> Iterator[Checked]:
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        if len(line) > MAX_ROW_BYTES:
            yield [_error(number, "row_too_long", f"a row holds at most {MAX_ROW_BYTES} bytes, got {len(line)}")]
            continue
        try:
            value = _loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield [_error(number, "not_utf8", f"byte {error.start + 1} of the line is not UTF-8")]
        except (ValueError, RecursionError) as error:
            yield [_error(number, "not_json", f"the line is not JSON: {_reason(error)}")]
        else:
            if isinstance(value, dict):
                yield check_row(number, value)
            else:
                yield [_error(number, "not_an_object", "each line holds one JSON object")]


def _csv_rows(data: bytes, notes: list[str]) -> Iterator[Checked]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield [_error(line, "not_utf8", "the line is not UTF-8; save the file as CSV UTF-8")]
        return
    separator, told = separator_of(text)
    if separator != ",":
        notes.append(f"columns are separated by {separator!r}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if (told and number == 1) or not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, notes)
                wrong = _header_errors(number, header)
                if wrong:
                    yield wrong
                    return
            else:
                yield _csv_row(number, header, cells)
    except csv.Error as error:
        yield [_error(number + 1, "not_csv", f"the row is not CSV: {error}; nothing after it was read")]


def _header(cells: list[str], notes: list[str]) -> list[str]:
    """Return the names of the columns; names of ours that are written with capitals are meant."""
    header = [cell.strip() for cell in cells]
    plain = [name.lower() if name.lower() in COLUMNS else name for name in header]
    if plain != header:
        notes.append("capitals in the header were read as small letters")
    if "" in plain:
        notes.append("columns without a name were passed over")
    return plain


def _header_errors(row: int, header: list[str]) -> list[RowError]:
    if len(header) == 1 and "|" in header[0]:
        return [_error(row, "not_csv", "columns are separated by commas; this header has another separator")]
    errors = [
        _error(row, "duplicate_column", f"column {name!r} appears twice")
        for name in dict.fromkeys(header)
        if name and header.count(name) > 1
    ]
    unknown = [name for name in header if name and name not in COLUMNS and not name.startswith("x_")]
    errors += [unknown_column(row, unknown)] if unknown else []
    missing = [name for name in ("custom_id", "people") if name not in header]
    errors += [_error(row, "missing_field", f"the header lacks column {name!r}") for name in missing]
    return errors


def _csv_row(number: int, header: list[str], cells: list[str]) -> Checked:
    cells = cells[: len(header)] if not any(cell.strip() for cell in cells[len(header) :]) else cells
    cells += [""] * (len(header) - len(cells)) if len(cells) < len(header) and "" in header[len(cells) :] else []
    if len(cells) != len(header):
        return [_error(number, "not_csv", f"the header has {len(header)} columns, this row has {len(cells)}")]
    nameless = [cell for name, cell in zip(header, cells, strict=True) if not name and cell.strip()]
    if nameless and not _is_index(header):
        return [_error(number, "unknown_column", f"a column without a name holds {nameless[0][:40]!r}")]
    values: dict[str, Any] = {
        name: cell for name, cell in zip(header, cells, strict=True) if name and (cell.strip() or name.startswith("x_"))
    }
    people = values.get("people", "")
    if people.lstrip().startswith("["):
        try:
            values["people"] = _loads(people)
        except (ValueError, RecursionError) as error:
            message = f"people is not JSON: {_reason(error)}"
            return [RowError(row=number, field="people", code="not_json", message=message)]
    return check_row(number, values)


def _is_index(header: list[str]) -> bool:
    """Whether the one column without a name is the first, as pandas writes the numbers of its rows."""
    return header[0] == "" and header.count("") == 1


def _loads(text: str) -> Any:
    """Parse strict JSON: no NaN, no key twice."""
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return str(error)
