"""The one register of where a person can be: every column that can hold words of or about them, and what an erase does.

A column that is in no table here fails a test, so none can be added without a decision. `Words` finds what still tells
of somebody in the columns that hold other things too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, LargeBinary, Table, Text, cast, or_, select, update
from sqlalchemy.orm import Session

from orchestrator.ledger.engine.base import Row

GONE = "row deleted"
EMPTIED = "emptied"
SCRUBBED = "handle and name replaced where they stand"
EXPIRES = "unreadable when its bytes are deleted or their time is over"

REGISTER: Mapping[str, str] = {
    "identity.handle": EMPTIED,
    "identity.name": EMPTIED,
    "reference.embedding": GONE,
    "reference.crop": GONE,
    "reference.face": GONE,
    "consent.granted_by": EMPTIED,
    "batch.name": SCRUBBED,
    "batch.options": SCRUBBED,
    "batch.reason": SCRUBBED,
    "batch.rejected_rows": SCRUBBED,
    "item.custom_id": SCRUBBED,
    "item.params": SCRUBBED,
    "item.error_message": SCRUBBED,
    "attempt.error_message": SCRUBBED,
    "stage.result": EMPTIED,
    "output.scores": GONE,
    "output.record": GONE,
    "stage_result.facts": GONE,
    "stage_result.data": GONE,
    "archive_person.faces": GONE,
    "archive_person.data": GONE,
    "found_person.name": GONE,
    "found_person.handle": GONE,
    "found_face.refused": "ids only",
    "found_face.face": GONE,
    "found_face.embedding": GONE,
    "found_face.crop": GONE,
    "scanned_photo.archive": SCRUBBED,
    "scanned_photo.path": SCRUBBED,
    "kept_answer.body": GONE,
    "review.note": EMPTIED,
    "schedule.name": SCRUBBED,
    "schedule.task": SCRUBBED,
    "schedule_run.message": SCRUBBED,
    "upload.name": GONE,
    "data_set_chunk.facts": GONE,
    "data_set_version.facts": "marked tainted; counts only",
    "training_run.plan": "options only",
    "delivery.body": "ids only",
    "outbox.body": "ids only",
    "audit.detail": "ids and counts only",
}
"""`table.column` of what can tell of a person, and what becomes of it when they are erased."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """How rows name a person: the handle as a whole string or in quotes, the full name wherever it stands."""

    identity_id: str
    handle: str | None
    name: str | None

    def patterns(self) -> list[str]:
        """Return what a text or a JSON column holds where it names the person."""
        found: list[str] = []
        if self.handle:
            found += [f'"{_escaped(self.handle)}"', f"'{_escaped(self.handle)}'", f"'{self.handle}'"]
            found += [_escaped(f'"{self.handle}"')]  # a document kept as text in JSON
            found += [f".{_escaped(self.handle)}."]  # names that a swap gave to files
        if self.name:
            found += [self.name, _escaped(self.name)]
        return list(dict.fromkeys(found))

    def scrubbed(self, value: Any) -> Any:
        """Return JSON or text without the person's handle and name."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._text(key): self.scrubbed(one) for key, one in value.items()}
        if isinstance(value, Sequence):
            return [self.scrubbed(one) for one in value]
        return value

    def _text(self, text: str) -> str:
        if self.handle and text == self.handle:
            return self.identity_id
        if self.handle:
            text = text.replace(f"'{self.handle}'", f"'{self.identity_id}'")
            text = text.replace(f".{self.handle}.", f".{self.identity_id}.")
            text = text.replace(f'"{self.handle}"', f'"{self.identity_id}"')
        return text.replace(self.name, self.identity_id) if self.name else text


def scrub(session: Session, owner: str, words: Words) -> int:
    """Take a person's handle and name out of every column that holds other things too; return how many rows changed."""
    changed = 0
    for table, columns in _columns(SCRUBBED).items():
        keys = list(table.primary_key)
        named = _named(columns, words)
        if named is None:
            continue
        for row in session.execute(select(*keys, *columns).where(_of(table, owner), named)).mappings().all():
            fresh = {column.name: words.scrubbed(row[column.name]) for column in columns}
            differs = {name: value for name, value in fresh.items() if value != row[name]}
            if differs:
                place = [key == row[key.name] for key in keys]
                session.execute(update(table).where(*place).values(**differs))
                changed += 1
    session.expire_all()
    return changed


def remaining(session: Session, owner: str, words: Words) -> dict[str, int]:
    """Count rows of this owner that still name a person, by table; zero after an erase. Every text column is read."""
    found: dict[str, int] = {}
    for table in Row.metadata.sorted_tables:
        columns = [column for column in table.columns if _speaks(column) and f"{table.name}.{column.name}" in REGISTER]
        named = _named(columns, words)
        if named is None:
            continue
        count = len(session.execute(select(*table.primary_key).where(_of(table, owner), named)).all())
        if count:
            found[table.name] = count
    return found


def undecided() -> list[str]:
    """Return the columns of free text, JSON and bytes about which nobody has decided."""
    known = REGISTER.keys() | HOLDS_NOBODY
    return [
        f"{table.name}.{column.name}"
        for table in Row.metadata.sorted_tables
        for column in table.columns
        if _speaks(column) and f"{table.name}.{column.name}" not in known
    ]


HOLDS_NOBODY = frozenset(
    {
        "api_key.name",
        "api_key.scopes",
        "artifact.key",
        "audit_head.name",
        "data_set.name",
        "delivery.error",
        "leader.name",
        "model_version.location",
        "model_version.manifest",
        "outbox.error",
        "upload.parts_id",
        "upload_part.key",
        "webhook.url",
        "webhook.events",
        "webhook.secret",
        "worker.queues",
        "model_alias_move.reason",
        "data_set_version.source",
        "data_set_version.attestation",
        "evaluation.figures",
        "gate_decision.rules",
        "gate_decision.checks",
        "gate_decision.alias",
        "item.stages",
        "training_run.name",
        "training_run.options",
        "stage.name",
        "train_record.facts",
    }
)
"""Columns of text that name keys, settings, addresses and measurements; nothing of a person is ever put there."""


def _columns(treatment: str) -> dict[Table, list[Column[Any]]]:
    found: dict[Table, list[Column[Any]]] = {}
    for place, said in REGISTER.items():
        if said == treatment:
            table, _, name = place.partition(".")
            found.setdefault(Row.metadata.tables[table], []).append(Row.metadata.tables[table].columns[name])
    return found


def _speaks(column: Column[Any]) -> bool:
    return isinstance(column.type, JSON | Text | LargeBinary) or column.name in ("name", "custom_id", "handle")


def _of(table: Table, owner: str) -> Any:
    return table.columns["owner"] == owner if "owner" in table.columns else True


def _named(columns: Sequence[Column[Any]], words: Words) -> Any:
    patterns = words.patterns()
    texts = [cast(column, Text) for column in columns if not isinstance(column.type, LargeBinary)]
    tests = [text.contains(pattern, autoescape=True) for text in texts for pattern in patterns]
    tests += [
        column == words.handle for column in columns if words.handle and not isinstance(column.type, JSON | LargeBinary)
    ]
    return or_(*tests) if tests else None


def _escaped(text: str) -> str:
    """Return text as it stands inside of a JSON string."""
    return json.dumps(text)[1:-1]
