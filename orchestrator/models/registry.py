"""Which weights exist and which of them a batch uses: the shipped preset folders, entered once into the ledger.

Reads `<models_dir>/<preset>/{preset.json,weights.json}`; never opens a weight file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.errors import ModelError, NotFoundError, UsageError
from orchestrator.ledger import datasets, evaluations, models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import ModelAliasMove, ModelVersion
from orchestrator.models.retraining import decision_object
from orchestrator.planning.presets import load_preset
from orchestrator.settings import Settings

MANIFEST = "weights.json"


def weights_manifest(settings: Settings, preset: str) -> dict[str, Any]:
    """Return what `weights.json` of a preset says: `model_sha256`, `files` with their hashes, how they were `made`.

    Raises:
        ModelError: it is missing or not one of ours.
    """
    path = settings.models_dir / preset / MANIFEST
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", code="weights_missing") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("model_sha256"), str) or "files" not in found:
        raise ModelError(f"{path} must hold model_sha256 and files")
    return found


def ensure_registered(ledger: Ledger, settings: Settings, preset: str | None = None) -> str:
    """Enter the weights that this installation has for a preset, if they are new, and return the version's id.

    The first version of a preset becomes its champion; later ones wait to be promoted.

    Raises:
        NotFoundError: no such preset.
        ModelError: its files of facts are missing or wrong.
    """
    name = preset or settings.preset
    facts = load_preset(settings.models_dir, name)
    # thresholds are measured for these very weights, so they are kept with the version
    manifest = {**weights_manifest(settings, name), "verdict": facts.verdict}
    location = str(settings.models_dir / name)
    with ledger.read() as session:
        for version, _ in models.listing(session):
            known = version.preset, version.tensor_sha256, version.location, version.manifest
            if known == (name, manifest["model_sha256"], location, manifest):
                return version.id
    return models.register(
        ledger,
        settings.owner,
        preset=name,
        tensor_sha256=manifest["model_sha256"],
        location=location,
        licence=facts.licence,
        manifest=manifest,
    )


def champion(ledger: Ledger, settings: Settings, preset: str) -> str:
    """Return the version id that new batches of a preset use; a preset seen for the first time is registered.

    Raises:
        NotFoundError: no such preset.
        UsageError: a licence of it forbids this deployment's use.
        ModelError: its files of facts are missing or wrong.
    """
    check_licences(settings, preset)
    try:
        with ledger.read() as session:
            return models.resolve(session, preset).id
    except NotFoundError:
        ensure_registered(ledger, settings, preset)
    with ledger.read() as session:
        return models.resolve(session, preset).id


def check_licences(settings: Settings, preset: str) -> None:
    """Refuse a preset that this deployment may not use, before anything is queued.

    Raises:
        NotFoundError: no such preset.
        UsageError: `licence_forbids`, naming each part and its licence.
    """
    if settings.use == "any":
        return
    parts = load_preset(settings.models_dir, preset).components
    forbidden = {f"{part['name']} ({part['licence']})": None for part in parts if part.get("commercial") is False}
    if forbidden:
        raise UsageError(
            f"preset {preset!r} is not for commercial use, which FPGA_USE asks for: {', '.join(forbidden)}",
            code="licence_forbids",
        )


def version_object(version: ModelVersion, aliases: list[str]) -> dict[str, Any]:
    """Return the light JSON object of a model version."""
    return {
        "id": version.id,
        "object": "model",
        "preset": version.preset,
        "number": version.number,
        "aliases": aliases,
        "tensor_sha256": version.tensor_sha256,
        "licence": version.licence,
        "location": version.location,
        "parent_id": version.parent_id,
        "dataset_id": version.dataset_id,
        "code_version": version.code_version,
        "seed": version.seed,
        "tainted_at": version.tainted_at.isoformat() if version.tainted_at else None,
        "created_at": version.created_at.isoformat(),
    }


def move_object(move: ModelAliasMove) -> dict[str, Any]:
    """Return the JSON object of one line of an alias's history."""
    return {
        "alias": move.alias,
        "from": move.from_id,
        "to": move.to_id,
        "actor": move.actor,
        "reason": move.reason,
        "rollback": bool(move.rollback),
        "moved_at": move.moved_at.isoformat(),
    }


def list_versions(ledger: Ledger, owner: str | None = None) -> list[dict[str, Any]]:
    """Return the JSON objects of the versions that an owner sees (None: of all), newest first within a preset."""
    with ledger.read() as session:
        return [version_object(version, aliases) for version, aliases in models.listing(session, owner)]


def show_version(ledger: Ledger, wanted: str, owner: str | None = None) -> dict[str, Any]:
    """Return a version with its files, people, figures, decisions of the gate, and the history of its aliases.

    `wanted` is an id or a unique beginning of it, or `preset@alias`.

    Raises:
        NotFoundError: there is none, or none that this owner sees.
    """
    with ledger.read() as session:
        version, names = find_version(session, wanted, owner)
        moves = models.history(session, version.preset)
        return {
            **version_object(version, names),
            "made": version.manifest.get("made"),
            "files": version.manifest.get("files"),
            "thresholds": asdict(evaluations.thresholds(session, version)) if version.manifest.get("verdict") else None,
            "identities": _people(session, version),
            "evaluations": [evaluations.as_object(row) for row in evaluations.listing(session, [version.id])],
            "decisions": [decision_object(row) for row in evaluations.decisions(session, version.id)],
            "history": [move_object(move) for move in moves if version.id in (move.from_id, move.to_id)],
        }


def _people(session: Session, version: ModelVersion) -> list[str]:
    return [one.identity_id for one in datasets.identities(session, version.dataset_id)] if version.dataset_id else []


def alias_history(ledger: Ledger, preset: str, alias: str = models.CHAMPION) -> list[dict[str, Any]]:
    """Return every move of an alias, oldest first."""
    with ledger.read() as session:
        return [move_object(move) for move in models.history(session, preset) if move.alias == alias]


def promote(
    ledger: Ledger,
    settings: Settings,
    wanted: str,
    *,
    alias: str,
    reason: str,
    override: bool = False,
    viewer: str | None = None,
) -> dict[str, Any]:
    """Make an alias mean this version and return the version; open batches that follow the champion go on with it.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is tainted by withdrawn data, or the gate refused it and `override` is false.
    """
    version = show_version(ledger, wanted, viewer)
    models.promote(ledger, settings.owner, version["id"], alias=alias, reason=reason, override=override)
    return show_version(ledger, version["id"])


def rollback(ledger: Ledger, settings: Settings, preset: str, *, alias: str, reason: str) -> dict[str, Any]:
    """Make an alias mean again what it meant before, and return that version.

    Raises:
        NotFoundError: the preset has no such alias.
        ConflictError: there is no earlier version that is not tainted.
    """
    return show_version(ledger, models.rollback(ledger, settings.owner, preset, alias=alias, reason=reason))


def find_version(session: Session, wanted: str, owner: str | None = None) -> tuple[ModelVersion, list[str]]:
    """Return a version with its aliases by id, a unique beginning of it, or `preset@alias`.

    Raises:
        NotFoundError: there is no one such version that this owner sees (None: the operator).
    """
    preset, at, alias = wanted.partition("@")
    chosen = models.resolve(session, preset, alias).id if at else wanted
    fitting = [(v, names) for v, names in models.listing(session, owner) if v.id == chosen or v.id.startswith(chosen)]
    if len(fitting) != 1:
        raise NotFoundError(f"there is no one model version {wanted!r}", code="model_not_found")
    return fitting[0]
