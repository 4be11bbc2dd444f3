"""File names of outputs from a template, such as `{identity}/{custom_id}.{ext}`: one rule for every door.

A name must be one on every file system that people unpack to. Two that some system takes for one (they differ only in
case, in Unicode form, or by dots and spaces at an end) are a collision. A name that some system keeps for itself
(`NUL`, `com1.png`) or cuts at its end gets a `_`, one that is too long is cut and gets a hash [ours].
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from string import Formatter
from typing import TypeVar

from orchestrator.errors import ConflictError, UsageError

K = TypeVar("K")
DEFAULT_TEMPLATE = "{custom_id}.{ext}"
FIELDS = ("custom_id", "index", "identity", "seed", "layout", "ext")
PART = re.compile(r"[A-Za-z0-9_+@=-][A-Za-z0-9._+@= -]*")
MAX_PART, MAX_ENDING = 200, 10
"""Bytes of a part of a path; file systems know 255, or 143 signs where they encrypt."""
RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"}
RESERVED |= {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789\u00b9\u00b2\u00b3"}
"""Devices of Windows, whatever ending they have."""
WIDTH = re.compile(r"0?\d?\d?d?")
"""Format of a field, such as `{index:04}`."""


@dataclass(frozen=True, kw_only=True)
class NameFacts:
    """What a template may say of one output; several identities are joined with `+`."""

    custom_id: str
    index: int
    identity: str
    seed: int
    layout: str
    ext: str = "png"


def folded(name: str) -> str:
    """Return what is the same for two names that some file system takes for one."""
    parts = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).split("/")
    return "/".join(part.rstrip(". ") or part for part in parts)


def usable(path: str) -> str:
    """Return a path whose every part is a name on every file system; one that is already stays as it is."""
    return "/".join(_usable(part) for part in path.split("/"))


def distinct(names: Mapping[K, str]) -> dict[K, str]:
    """Return usable names by key, in their order; one that is taken gets a number: `a.png`, `A.2.png`."""
    taken: set[str] = set()
    found = {}
    for key, name in names.items():
        wanted, number = usable(name), 2
        pure = PurePosixPath(wanted)
        while folded(wanted) in taken:
            wanted, number = str(pure.with_name(f"{pure.stem}.{number}{pure.suffix}")), number + 1
        taken.add(folded(wanted))
        found[key] = wanted
    return found


def output_names(template: str, outputs: Iterable[NameFacts]) -> list[str]:
    """Return one relative path for each output, all different, none leaving its directory.

    By the default template a name that is taken gets a number, as in a zip; who writes a template is told.

    Raises:
        UsageError: the template names an unknown field, or gives a name that is no plain file name.
        ConflictError: two outputs get names that some file system takes for one.
    """
    _check_template(template)
    taken: dict[str, str] = {}
    names = []
    for facts in outputs:
        try:
            name = template.format(**asdict(facts))
        except ValueError as error:
            raise UsageError(f"template {template!r} cannot be filled in: {error}", code="bad_template") from error
        _check_name(name)
        if template == DEFAULT_TEMPLATE:
            names.append(name)
            continue
        name = usable(name)
        other = taken.get(folded(name))
        taken[folded(name)] = facts.custom_id
        if other is not None:
            message = (
                f"template {template!r} gives {other!r} and {facts.custom_id!r} names that some systems take for one, "
                f"{name!r}; put {{index:04}} into it"
            )
            raise ConflictError(message, code="name_collision", name=name)
        names.append(name)
    return list(distinct(dict(enumerate(names))).values())


def _usable(part: str) -> str:
    if len(part.encode()) > MAX_PART:
        mark = "~" + hashlib.sha256(part.encode()).hexdigest()[:8]
        stem, dot, ending = part.rpartition(".")
        ending = dot + ending if stem and len(ending) <= MAX_ENDING else ""
        room = MAX_PART - len((mark + ending).encode())
        part = part.encode()[:room].decode(errors="ignore") + mark + ending
    stem, dot, rest = part.partition(".")
    if stem.rstrip(" ").casefold() in RESERVED:
        part = f"{stem.rstrip(' ')}_{dot}{rest}"
    return part if part.rstrip(". ") in (part, "") else part + "_"


def _check_template(template: str) -> None:
    try:
        fields = [(field, spec or "") for _, field, spec, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise UsageError(f"template {template!r}: {error}", code="bad_template") from error
    for field, spec in fields:
        if field not in FIELDS or not WIDTH.fullmatch(spec):
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UsageError(f"template {template!r} has {{{field}}}; known are {known}", code="bad_template")


def _check_name(name: str) -> None:
    for part in name.split("/"):
        if not PART.fullmatch(part):
            raise UsageError(f"{part[:60]!r} in {name[:120]!r} is not a plain file name", code="bad_template")
