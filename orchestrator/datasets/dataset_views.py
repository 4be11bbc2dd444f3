"""What can be said of data set versions: lists, one in full, the difference of two. The objects of `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.datasets import datasets
from orchestrator.datasets.index import index_rows
from orchestrator.ledger import datasets as rows
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows_datasets import DataSetVersion
from orchestrator.storage import ByteStore

LISTED = 20
"""So many keys of each kind a difference names; the counts are of all."""


def version_object(version: DataSetVersion, name: str) -> dict[str, Any]:
    """Return the light JSON object of a version."""
    splits = version.facts.get("splits", {})
    return {
        "id": version.id,
        "object": "dataset",
        "name": name,
        "number": version.number,
        "content_sha256": version.content_sha256,
        "preset": version.preset,
        "source": version.source,
        "licence": version.licence,
        "pictures": {side: part["pictures"] for side, part in splits.items()},
        "people": {side: part["people"] for side, part in splits.items()},
        "tainted_at": version.tainted_at.isoformat() if version.tainted_at else None,
        "created_at": version.created_at.isoformat(),
    }


def list_versions(ledger: Ledger, owner: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return the light objects of all versions, newest first within a name."""
    with ledger.read() as session:
        return [version_object(version, named) for version, named in rows.listing(session, owner, name)]


def show(ledger: Ledger, owner: str, wanted: str) -> dict[str, Any]:
    """Return one version with its counts, shards, people of the library and what somebody attests.

    Raises:
        NotFoundError: there is none.
    """
    with ledger.read() as session:
        version = rows.resolve(session, owner, wanted)
        return {
            **version_object(version, rows.name_of(session, version)),
            "encoder_sha256": version.encoder_sha256,
            "attestation": version.attestation,
            "batch_id": version.batch_id,
            "facts": version.facts,
            "identities": [
                {"id": row.identity_id, "pictures": row.pictures} for row in rows.identities(session, version.id)
            ],
            "shards": [
                {"key": artifact.key, "sha256": artifact.sha256, "bytes": artifact.size, "records": shard.records}
                for shard, artifact in rows.shards(session, version.id)
            ],
        }


@dataclass(frozen=True, kw_only=True)
class _Held:
    """Kept pictures of a version with their side, and people with their pictures."""

    sides: dict[str, str]
    people: dict[str, set[str]]
    shards: set[str]


def diff(ledger: Ledger, store: ByteStore, owner: str, one: str, other: str) -> dict[str, Any]:
    """Return what the second version has that the first has not, and the other way round.

    Raises:
        NotFoundError: one of them does not exist.
        UsageError: one is a recipe of the renderer, whose pictures are nowhere listed.
        TransientError: an index is damaged in the store.
    """
    with ledger.read() as session:
        first, second = rows.resolve(session, owner, one), rows.resolve(session, owner, other)
        old, new = _held(session, store, first), _held(session, store, second)
    moved = [key for key, side in old.sides.items() if key in new.sides and new.sides[key] != side]
    return {
        "object": "dataset.diff",
        "from": first.id,
        "to": second.id,
        "same_content": first.content_sha256 == second.content_sha256,
        "pictures": {
            "added": _listed(new.sides.keys() - old.sides.keys()),
            "removed": _listed(old.sides.keys() - new.sides.keys()),
            "moved_side": _listed(moved),
            "same": len(old.sides.keys() & new.sides.keys()) - len(moved),
        },
        "people": {
            "added": _listed(new.people.keys() - old.people.keys()),
            "removed": _listed(old.people.keys() - new.people.keys()),
            "changed": _listed(who for who in old.people.keys() & new.people if old.people[who] != new.people[who]),
        },
        "shards": {"shared": len(old.shards & new.shards), "from": len(old.shards), "to": len(new.shards)},
        "settings": {
            name: [first_value, second_value]
            for name, first_value, second_value in _settings(first, second)
            if first_value != second_value
        },
    }


def _settings(first: DataSetVersion, second: DataSetVersion) -> list[tuple[str, Any, Any]]:
    columns = ("preset", "encoder_sha256", "licence", "source")
    compared = [(name, getattr(first, name), getattr(second, name)) for name in columns]
    return [*compared, ("arrange", first.facts.get("arrange"), second.facts.get("arrange"))]


def _held(session: Session, store: ByteStore, version: DataSetVersion) -> _Held:
    sides: dict[str, str] = {}
    people: dict[str, set[str]] = {}
    for key, person, split in index_rows(datasets.read_index(session, store, version), ("key", "person", "split")):
        if split is not None:
            sides[key] = split
            people.setdefault(person, set()).add(key)
    return _Held(sides=sides, people=people, shards={a.sha256 for _, a in rows.shards(session, version.id)})


def _listed(keys: Any) -> dict[str, object]:
    found = sorted(keys)
    return {"count": len(found), "first": found[:LISTED]}
