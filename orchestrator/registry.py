"""Which weights exist and which of them a batch uses: the shipped preset folders, entered once into the ledger.

Reads `<models_dir>/<preset>/{preset.json,weights.json}`; never opens a weight file.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import ModelError, NotFoundError
from orchestrator.ledger import models
from orchestrator.ledger.rows import ModelAliasMove, ModelVersion
from orchestrator.ledger.session import Ledger
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
        ModelError: its files of facts are missing or wrong.
    """
    try:
        with ledger.read() as session:
            return models.resolve(session, preset).id
    except NotFoundError:
        ensure_registered(ledger, settings, preset)
    with ledger.read() as session:
        return models.resolve(session, preset).id


def version_object(
    version: ModelVersion, aliases: list[str], moves: list[ModelAliasMove] | None = None
) -> dict[str, Any]:
    """Return the JSON object of a model version; with `moves` also its files and the history of its aliases."""
    light = {
        "id": version.id,
        "object": "model",
        "preset": version.preset,
        "number": version.number,
        "aliases": aliases,
        "tensor_sha256": version.tensor_sha256,
        "licence": version.licence,
        "location": version.location,
        "parent_id": version.parent_id,
        "tainted_at": version.tainted_at.isoformat() if version.tainted_at else None,
        "created_at": version.created_at.isoformat(),
    }
    if moves is None:
        return light
    history = [
        {
            "alias": move.alias,
            "from": move.from_id,
            "to": move.to_id,
            "actor": move.actor,
            "reason": move.reason,
            "moved_at": move.moved_at.isoformat(),
        }
        for move in moves
        if version.id in (move.from_id, move.to_id)
    ]
    return {**light, "made": version.manifest.get("made"), "files": version.manifest.get("files"), "history": history}


def list_versions(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the JSON objects of all versions, newest first within a preset."""
    with ledger.read() as session:
        return [version_object(version, aliases) for version, aliases in models.listing(session)]


def show_version(ledger: Ledger, wanted: str) -> dict[str, Any]:
    """Return one version with its files and history; `wanted` is an id or a unique beginning of it, or `preset@alias`.

    Raises:
        NotFoundError: there is none.
    """
    preset, at, alias = wanted.partition("@")
    with ledger.read() as session:
        chosen = models.resolve(session, preset, alias).id if at else wanted
        fitting = [(v, names) for v, names in models.listing(session) if v.id == chosen or v.id.startswith(chosen)]
        if len(fitting) != 1:
            raise NotFoundError(f"there is no one model version {wanted!r}", code="model_not_found")
        version, names = fitting[0]
        return version_object(version, names, list(models.history(session, version.preset)))


def promote(ledger: Ledger, settings: Settings, wanted: str, *, alias: str, reason: str) -> dict[str, Any]:
    """Make an alias mean this version and return the version.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is tainted by withdrawn data.
    """
    version = show_version(ledger, wanted)
    models.promote(ledger, settings.owner, version["id"], alias=alias, reason=reason)
    return show_version(ledger, version["id"])
