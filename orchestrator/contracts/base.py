"""How a model becomes a JSON column and comes back: one form, one version, one place that knows earlier ones.

A column holds the model's fields and, from its second version on, `v`. A field that is added with a default needs no
new version: rows without it read as before. A field that changes its meaning does; then `migrate` says how an older
column is brought forward, and a stage that older workers would misunderstand takes a new name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints, ValidationError

from orchestrator.errors import ContractError, UsageError

Json = JsonValue
JsonObject = dict[str, JsonValue]
"""A small JSON object, as columns, manifests and answers hold them."""
Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line of text."""
VERSION_KEY = "v"


class Contract(BaseModel):
    """A frozen model with a JSON column behind it."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    VERSION: ClassVar[int] = 1
    SPARSE: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later, and stay out of columns that say nothing of them: hashes of before stay the same."""

    @classmethod
    def migrate(cls, version: int, column: JsonObject) -> JsonObject:
        """Return a column of `version` as the next one has it.

        Raises:
            ContractError: no model says how that version is read; a model with a second version overrides this.
        """
        raise ContractError(f"{cls.__name__}: nobody says how version {version} is read")

    @classmethod
    def load(cls, column: Mapping[str, object]) -> Self:
        """Return what a column holds, whichever version wrote it.

        Raises:
            ContractError: a newer version of this software wrote it, or it is none of ours.
        """
        if not isinstance(column, Mapping):
            raise ContractError(f"{cls.__name__} cannot be read: an object is wanted, got {type(column).__name__}")
        known = dict(column)
        version = known.pop(VERSION_KEY, 1)
        if not isinstance(version, int) or version > cls.VERSION:
            raise ContractError(
                f"{cls.__name__} of version {version} was written by a newer fpga; this one reads up to {cls.VERSION}",
                code="contract_newer",
            )
        for earlier in range(version, cls.VERSION):
            known = dict(cls.migrate(earlier, known))  # type: ignore[arg-type]  # a column is JSON
        try:
            return cls.model_validate(known)
        except ValidationError as error:
            raise ContractError(f"{cls.__name__} cannot be read: {sentence(error)}") from error

    def dump(self) -> JsonObject:
        """Return what the column shall hold: plain JSON."""
        silent = {name for name in self.SPARSE if getattr(self, name) == type(self).model_fields[name].default}
        written: JsonObject = self.model_dump(mode="json", by_alias=True, exclude=silent)
        return written if self.VERSION == 1 else {**written, VERSION_KEY: self.VERSION}

    @classmethod
    def column_key(cls, name: str) -> str:
        """Return the name of a field as a column spells it, for queries that look into one."""
        return cls.model_fields[name].alias or name


class Asked(Contract):
    """Options that somebody gives: a name that is not one is an error."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def asked(cls, **given: object) -> Self:
        """Return checked options; those that are None or left out keep their default.

        Raises:
            UsageError: one is not known or not allowed; the code is `bad_` and its name.
        """
        try:
            return cls.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "option"
            code = "bad_option" if first["type"] == "extra_forbidden" else f"bad_{name}"
            raise UsageError(sentence(error), code=code) from error

    def changed(self, **given: object) -> Self:
        """Return them with some more of them given, checked again; what is None stays as it is.

        Raises:
            UsageError: as `asked`.
        """
        said = {name: value for name, value in given.items() if value is not None}
        return type(self).asked(**{name: getattr(self, name) for name in self.model_fields_set}, **said)


class StageResult(Contract):
    """What every stage says of itself; `artifacts` are bytes that it stored beside its item's outputs."""

    artifacts: tuple[str, ...] = ()


class StoredRef(Contract):
    """Where bytes are kept, as a later stage needs it to read them."""

    artifact_id: str
    key: str
    sha256: str


def sentence(error: ValidationError) -> str:
    """Say in plain words what is wrong first."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"there is no option {where!r}"
    limits = first.get("ctx", {})
    wanted = {
        "less_than_equal": f"at most {limits.get('le')}",
        "greater_than_equal": f"at least {limits.get('ge')}",
        "literal_error": limits.get("expected", ""),
    }.get(first["type"], first["msg"][0].lower() + first["msg"][1:])
    return f"{where}: wanted {wanted}, got {str(first.get('input'))[:80]!r}"


def canonical_json(value: object, *, ascii: bool = False) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN, UTF-8 kept.

    Args:
        ascii: escape what is not ASCII; only the audit chain does, whose hashes have always been made so.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii, allow_nan=False)


def digest(value: object, *, ascii: bool = False) -> str:
    """Return the sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value, ascii=ascii).encode()).hexdigest()
