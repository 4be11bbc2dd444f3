"""A data set version on this machine as the folder that training reads: fetched, verified, unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fpga_models.core.presets import read_preset
from fpga_models.errors import ModelError as NetworkError
from fpga_models.idzoom.materialise import ShardFile
from fpga_models.idzoom.materialise import materialise as unpack
from fpga_models.lab.rendered import materialise_recipe
from orchestrator.errors import ConflictError, InputError, NotFoundError, TransientError
from orchestrator.ledger import datasets
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.ledger.tables.rows_datasets import DataSetVersion
from workers.runtime.files import fetch_folder, full_disk_is_transient
from workers.runtime.stage import StageContext

FETCHED = 0.5
"""Share of the work that is fetching; the rest is unpacking."""
LOST = ("object_missing", "object_damaged")


def materialise(
    context: StageContext, version_id: str, preset: Path, cache: Path, report: Callable[[float], None]
) -> Path:
    """Return the training folder of a version, which is made once per machine.

    Args:
        preset: folder of the preset whose autoencoder makes the latents, and at whose side the pictures are cut.
        report: called with the share that is done, in [0, 1].

    Raises:
        ConflictError: `dataset_tainted`, it holds a person who has withdrawn.
        InputError: an object of it is missing or damaged (`shard_corrupt`), or what is in them does not fit.
        TransientError: the store cannot be reached, or the disk is full.
    """
    version, files = _files(context, version_id)
    folder = cache / version.content_sha256
    if not files:
        return _drawn(context, version, folder, report)
    fetched = cache / "shards" / version.content_sha256
    if not fetched.is_dir():
        _fetch(context, version, files, fetched, report)
    shards = [ShardFile(path=fetched / name, sha256=a.sha256) for name, a in files.items() if name != "index.parquet"]

    def unpacked(done: int, total: int) -> None:
        report(FETCHED + (1 - FETCHED) * done / max(1, total))

    try:
        with full_disk_is_transient(cache):
            index, side = fetched / "index.parquet", read_preset(preset).sizes[0][0]
            return unpack(index, shards, preset / "vae", side, folder, cache=cache / "chunks", report=unpacked)
    except NetworkError as error:
        raise InputError(f"data set version {version.id}: {error}", code=error.code) from error


def _files(context: StageContext, version_id: str) -> tuple[DataSetVersion, dict[str, Artifact]]:
    with context.ledger.read() as session:
        version = session.get(DataSetVersion, version_id)
        if version is None:
            raise NotFoundError(f"there is no data set version {version_id}", code="data_set_not_found")
        if version.tainted_at is not None:
            raise ConflictError(
                f"data set version {version.id} holds a person who has withdrawn", code="dataset_tainted"
            )
        if version.index_artifact_id is None:
            return version, {}
        files = {"index.parquet": session.get_one(Artifact, version.index_artifact_id)}
        for shard, artifact in datasets.shards(session, version.id):
            files[f"{shard.position:05d}.tar"] = artifact
        return version, files


def _drawn(context: StageContext, version: DataSetVersion, folder: Path, report: Callable[[float], None]) -> Path:
    """Draw a version that is a recipe of the renderer."""
    recipe, preset = version.facts["recipe"], context.settings.models_dir / version.preset
    try:
        with full_disk_is_transient(folder):
            return materialise_recipe(recipe["seed"], recipe["count"], preset, folder, report=report)
    except NetworkError as error:
        raise InputError(f"data set version {version.id}: {error}", code=error.code) from error


def _fetch(
    context: StageContext,
    version: DataSetVersion,
    files: dict[str, Artifact],
    folder: Path,
    report: Callable[[float], None],
) -> None:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        report(FETCHED * done / len(files))

    try:
        fetch_folder(context.store, files, folder, advance)
    except (NotFoundError, TransientError) as error:
        if error.code not in LOST:
            raise
        raise InputError(
            f"an object of data set version {version.id} is missing or damaged: {error.message}", code="shard_corrupt"
        ) from error
