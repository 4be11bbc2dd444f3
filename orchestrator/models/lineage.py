"""Where versions come from and what follows when a person withdraws: lineage, differences, the taint report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.ledger import datasets, models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.ledger.tables.rows_datasets import DataSetVersion
from orchestrator.models.registry import find_version, show_version, version_object


def diff(ledger: Ledger, left: str, right: str, owner: str | None = None) -> dict[str, Any]:
    """Return in what two versions differ: facts, configuration by dotted name, and files by tensor hash.

    Raises:
        NotFoundError: there is none of one of these names.
    """
    one, other = show_version(ledger, left, owner), show_version(ledger, right, owner)
    facts = ("preset", "number", "licence", "tensor_sha256", "dataset_id", "code_version", "seed", "parent_id")
    configs = [flatten(_config(version["made"] or {})) for version in (one, other)]
    tensors = [{n: f["tensor_sha256"] for n, f in (version["files"] or {}).items()} for version in (one, other)]
    return {
        "object": "model.diff",
        "left": one["id"],
        "right": other["id"],
        "facts": _differing({k: one[k] for k in facts}, {k: other[k] for k in facts}),
        "config": _differing(*configs),
        "files": _differing(*tensors),
    }


def lineage(ledger: Ledger, wanted: str, owner: str | None = None) -> list[dict[str, Any]]:
    """Return how a version came to be: itself, then its parent and so on, each with data set, code and command.

    Raises:
        NotFoundError: there is none.
    """
    found: list[dict[str, Any]] = []
    with ledger.read() as session:
        version: ModelVersion | None = find_version(session, wanted, owner)[0]
        while version is not None and version.id not in {entry["id"] for entry in found}:
            found.append(_origin(session, version, owner))
            version = session.get(ModelVersion, version.parent_id) if version.parent_id else None
    return found


def _origin(session: Session, version: ModelVersion, owner: str | None) -> dict[str, Any]:
    made = version.manifest.get("made") or {}
    dataset = session.get(DataSetVersion, version.dataset_id) if version.dataset_id else None
    return {
        "id": version.id,
        "preset": version.preset,
        "number": version.number,
        "tensor_sha256": version.tensor_sha256,
        "code_version": version.code_version or made.get("code"),
        "seed": version.seed,
        "command": made.get("command"),
        "config": _config(made),
        "steps": made.get("steps"),
        "start": (made.get("start") or {}).get("model_sha256"),
        "tainted": version.tainted_at is not None,
        "dataset": {
            "id": dataset.id,
            "content_sha256": dataset.content_sha256,
            "source": dataset.source if owner in (None, dataset.owner) else None,  # a path, or a bucket of theirs
            "tainted": dataset.tainted_at is not None,
        }
        if dataset
        else made.get("data"),
    }


def _config(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that weights were made with: a training plan, or that of the first recipe."""
    return dict(made.get("plan") or made.get("config") or {})


def taint_report(ledger: Ledger) -> dict[str, Any]:
    """Return which data sets and versions hold somebody who withdrew, and what must be retrained first.

    A version that is live under an alias comes first: it makes pictures until a clean one takes its place.
    """
    with ledger.read() as session:
        sets = datasets.tainted(session)
        versions = [(v, names) for v, names in models.listing(session) if v.tainted_at is not None]
        ordered = sorted(versions, key=lambda found: not found[1])
        return {
            "object": "model.taint_report",
            "datasets": [
                {"id": d.id, "preset": d.preset, "tainted_at": d.tainted_at.isoformat() if d.tainted_at else None}
                for d in sets
            ],
            "models": [version_object(version, names) for version, names in ordered],
            "retrain": [
                {
                    "model_version_id": version.id,
                    "live_as": [f"{version.preset}@{name}" for name in names],
                    "dataset_id": version.dataset_id,
                    "start_from": _clean_parent(session, version),
                }
                for version, names in ordered
            ],
        }


def _clean_parent(session: Session, version: ModelVersion) -> str | None:
    """Return the nearest ancestor whose weights a retraining may begin from."""
    parent_id = version.parent_id
    while parent_id is not None:
        parent = session.get_one(ModelVersion, parent_id)
        if parent.tainted_at is None:
            return parent.id
        parent_id = parent.parent_id
    return None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, its names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = sorted(left.keys() | right.keys())
    return {name: [left.get(name), right.get(name)] for name in names if left.get(name) != right.get(name)}
