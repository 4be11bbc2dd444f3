"""One row of a manifest, checked by itself: types, words and ranges that need no preset and no library of people."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from orchestrator.contracts.portraits import MAX_SEED, Control, SmallFaces, read_size

MAX_COUNT = 1000
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True, slots=True)
class RowError:
    """What is wrong with one row; `row` counts lines of the file from 1 (the header of a CSV file is row 1)."""

    row: int
    field: str | None
    code: str
    message: str

    def as_json(self) -> dict[str, object]:
        """Return the error as the object that the command line and HTTP answers share."""
        return asdict(self)


def _plain_number(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("bad_value", "a number is wanted, not true or false")
    return value


def _plain_text(value: object) -> object:
    if isinstance(value, str) and CONTROL_CHARACTERS.search(value):
        raise PydanticCustomError("bad_text", "control characters are not allowed")
    return value


def _scalar(value: object) -> object:
    """Let a value of the client's own pass unchanged if it is a short scalar that JSON and any database can hold."""
    if isinstance(value, str):
        _plain_text(value)
        if len(value) > 1000 or (not value.isascii() and value != value.encode("utf-8", "replace").decode()):
            raise PydanticCustomError("bad_text", "at most 1000 characters of valid Unicode are allowed")
    elif isinstance(value, int):
        if abs(value) >= 2**53:
            raise PydanticCustomError("out_of_range", "a number beyond 2**53 does not survive JSON; write it as text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise PydanticCustomError("bad_value", "a finite number is wanted")
    elif value is not None:
        raise PydanticCustomError("bad_value", "text, a number, true, false or null is wanted")
    return value


def _coordinates(value: object) -> object:
    """Refuse a box or a point list that is not a list before its members are read one by one."""
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("bad_value", "a list of numbers is wanted")
    return value


Number = Annotated[float, BeforeValidator(_plain_number)]
Whole = Annotated[int, BeforeValidator(_plain_number)]
Text = Annotated[str, BeforeValidator(_plain_text), StringConstraints(strip_whitespace=True, max_length=2000)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=NAME, max_length=64)]
Pixels = Annotated[int, BeforeValidator(_plain_number), Field(ge=1, le=16384)]
Coordinate = Annotated[float, BeforeValidator(_plain_number), Field(ge=-100_000, le=100_000)]
Extra = Annotated[Any, AfterValidator(_scalar)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Person(_Strict):
    """Who, and where: a slot of the layout, or a face box, five landmarks or a skeleton; nothing means the next slot.

    Also written `ada` or `ada@left` in one string.
    """

    identity: Name
    slot: Name | None = None
    box: Annotated[tuple[Coordinate, Coordinate, Coordinate, Coordinate], BeforeValidator(_coordinates)] | None = None
    kps5: (
        Annotated[
            tuple[tuple[Coordinate, Coordinate], ...], BeforeValidator(_coordinates), Field(min_length=5, max_length=5)
        ]
        | None
    ) = None
    skeleton: (
        Annotated[
            tuple[tuple[Coordinate, Coordinate, Coordinate], ...],
            BeforeValidator(_coordinates),
            Field(min_length=18, max_length=18),
        ]
        | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        identity, at, slot = value.partition("@")
        return {"identity": identity, "slot": slot} if at else {"identity": identity}

    @model_validator(mode="after")
    def _one_place(self) -> Person:
        if self.slot and (self.box or self.kps5 or self.skeleton):
            raise PydanticCustomError("two_places", "give a slot, or box, kps5 and skeleton, not both")
        return self


def _people(value: object) -> object:
    if isinstance(value, str):
        return [part for part in value.split(";") if part.strip()]
    return value


class ManifestRow(_Strict):
    """One row as the client wrote it; what it leaves out is None and filled in by the plan."""

    row: int
    custom_id: Annotated[str, StringConstraints(strip_whitespace=True, pattern=NAME, max_length=120)]
    people: Annotated[tuple[Person, ...], BeforeValidator(_people), Field(min_length=1, max_length=16)]
    prompt: Text | None = None
    negative_prompt: Text | None = None
    layout: Name | None = None
    size: Annotated[tuple[Pixels, Pixels], BeforeValidator(read_size)] | None = None
    style: Name | None = None
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] | None = None
    count: Annotated[Whole, Field(ge=1, le=MAX_COUNT)] = 1
    preset: Name | None = None
    steps: Whole | None = None
    guidance: Number | None = None
    id_scale: Number | None = None
    control: Control | None = None
    control_scale: Number | None = None
    masked: bool | None = None
    small_faces: SmallFaces | None = None
    extra: dict[Name, Extra] = {}
    """Columns whose name starts with `x_`: ours to carry, not to read."""


COLUMNS: tuple[str, ...] = tuple(name for name in ManifestRow.model_fields if name not in ("row", "extra"))


def unknown_column(row: int, names: list[str]) -> RowError:
    """Name columns that we do not know, with the nearest one that we do."""
    shown = ", ".join(repr(name[:40]) for name in names[:5])  # repr escapes what cannot be printed
    near = difflib.get_close_matches(names[0][:40], COLUMNS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; columns of your own start with x_"
    plural = "s" if len(names) > 1 else ""
    return RowError(
        row=row, field=repr(names[0][:40])[1:-1], code="unknown_column", message=f"unknown column{plural} {shown}{hint}"
    )


def check_row(number: int, values: dict[str, Any]) -> ManifestRow | list[RowError]:
    """Check the values of one row; keys are column names, absent means not given."""
    unknown = [name for name in values if name not in COLUMNS and not name.startswith("x_")]
    errors = [unknown_column(number, unknown)] if unknown else []
    fields = {name: value for name, value in values.items() if name in COLUMNS}
    extra = {name: value for name, value in values.items() if name.startswith("x_")}
    try:
        row = ManifestRow.model_validate({**fields, "row": number, "extra": extra})
    except ValidationError as error:
        return errors + [_row_error(number, detail) for detail in error.errors(include_url=False)]
    return errors or row


def _row_error(row: int, detail: ErrorDetails) -> RowError:
    parts = [part for part in detail["loc"] if part not in ("extra", "[key]")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{repr(part[:64])[1:-1]}" for part in parts).lstrip(".")
    match detail["type"]:
        case "missing":
            return RowError(row=row, field=field, code="missing_field", message=f"{field} is missing")
        case "extra_forbidden":
            message = f"{field} is not a field; a person has {', '.join(Person.model_fields)}"
            return RowError(row=row, field=field, code="unknown_field", message=message)
        case "string_pattern_mismatch":
            wanted = "letters, digits, '.', '_' and '-', the first a letter or digit"
        case "too_short" if field == "people":
            return RowError(
                row=row,
                field=field,
                code="out_of_range",
                message="people: nobody is named, at least one person is wanted",
            )
        case kind:
            message = f"{_lower(detail['msg'])}, got {_shown(detail['input'])}"
            return RowError(row=row, field=field, code=_code(kind), message=f"{field}: {message}")
    message = f"{field}: {wanted} are wanted, got {_shown(detail['input'])}"
    return RowError(row=row, field=field, code="bad_name", message=message)


def _code(kind: str) -> str:
    if kind in ("bad_text", "bad_size", "two_places", "out_of_range"):
        return kind
    if kind.startswith(("greater_than", "less_than", "too_", "string_too_")):
        return "out_of_range"
    return "bad_value"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _shown(value: object) -> str:
    """Return the value as the message shows it: escaped and short, however large it is."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 100:
        return "a huge number"
    text = ascii(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
