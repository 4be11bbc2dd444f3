"""Who becomes whom: the mapping file of a swap, or many people over many photos. Pure.

A file is CSV with the columns `photo`, `face`, `from`, `to`, or JSONL with the same names. `photo` is a path in the
source or a pattern (default `*`), `face` counts from the left from 0, `from` and `to` are people of the library.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Literal

from orchestrator.contracts.photos import Pairs, Rule, SwapRule
from orchestrator.errors import ManifestError, UsageError

COLUMNS = ("photo", "face", "from", "to")


def read_map(data: bytes, form: Literal["csv", "jsonl"]) -> list[Rule]:
    """Read a mapping file.

    Raises:
        ManifestError: rows are wrong; `details["errors"]` has each with its number.
    """
    text = data.decode("utf-8-sig", "replace")
    errors: list[dict[str, Any]] = []
    rules: list[Rule] = []
    for number, row in _rows(text, form):
        wrong = _wrong(row)
        if wrong:
            errors.append({"row": number, "field": wrong[0], "code": "bad_rule", "message": wrong[1]})
            continue
        face = row.get("face")
        rules.append(
            Rule(
                to=str(row["to"]).strip(),
                photo=str(row.get("photo") or "*").strip(),
                face=None if face in (None, "") else int(face),
                of=str(row["from"]).strip() if row.get("from") else None,
            )
        )
    if errors or not rules:
        first = errors[0]["message"] if errors else "it holds no row"
        raise ManifestError(f"the map cannot be used: {first}", errors=errors)
    return rules


def _rows(text: str, form: Literal["csv", "jsonl"]) -> Iterator[tuple[int, dict[str, Any]]]:
    if form == "csv":
        yield from enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else {"": "not an object"}


def _wrong(row: dict[str, Any]) -> tuple[str, str] | None:
    unknown = [str(name) for name in row if name not in COLUMNS]
    if unknown:
        return unknown[0], f"there is no column {unknown[0]!r}; there is {', '.join(COLUMNS)}"
    if not row.get("to"):
        return "to", "a row says who the face becomes in `to`"
    face = row.get("face")
    if face not in (None, "") and not (str(face).isdigit() and int(str(face)) < 1000):
        return "face", f"a face is counted from the left from 0, got {face!r}"
    if face not in (None, "") and row.get("from"):
        return "face", "a row says `face` or `from`, not both"
    return None


def rules_for(path: str, rules: Iterable[Rule]) -> list[SwapRule]:
    """Return the rules that apply to a photo, without their pattern; the first for each face or person counts."""
    chosen: dict[tuple[int | None, str | None], SwapRule] = {}
    for rule in rules:
        if rule.photo == path or fnmatchcase(path, rule.photo):
            chosen.setdefault((rule.face, rule.of), SwapRule(face=rule.face, of=rule.of, to=rule.to))
    return list(chosen.values())


def paired(path: str, number: int, targets: Sequence[tuple[str, str]], pairs: Pairs, of: str | None) -> list[Made]:
    """Return what is made of photo `number`: under `zip` one picture with the person of the same number, under
    `product` one for each person, with their handle before the name's ending.

    Args:
        targets: (identity id, handle).

    Raises:
        UsageError: `no_partner`, there are more photos than people under `zip`.
    """
    if pairs == "zip":
        if number >= len(targets):
            raise UsageError(f"{len(targets)} people are given for more photos than that", code="no_partner")
        return [Made(path=path, rules=(SwapRule(of=of, to=targets[number][0]),))]
    pure = PurePosixPath(path)
    return [
        Made(
            path=str(pure.with_name(f"{pure.stem}.{handle}{pure.suffix}")) if len(targets) > 1 else path,
            rules=(SwapRule(of=of, to=identity),),
        )
        for identity, handle in targets
    ]


@dataclass(frozen=True, kw_only=True)
class Made:
    """One picture to make: its path in the output, and who becomes whom in it."""

    path: str
    rules: tuple[SwapRule, ...]
