"""Writes a version to a folder: WebDataset shards of each side with everything decided, the index, and what it is.

    train-00000.tar ...  val-00000.tar ...  index.parquet  version.json

Any WebDataset reader takes these shards. With `raw`, the shards as they are stored, which
`python -m fpga_models.idzoom.materialise` reads.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.datasets import datasets
from orchestrator.datasets.dataset_views import show
from orchestrator.datasets.index import index_rows
from orchestrator.errors import ConflictError, InputError, UsageError
from orchestrator.ledger import datasets as rows
from orchestrator.ledger.engine.session import Ledger
from orchestrator.storage import ByteStore

SIDES = ("train", "val")
Decided = dict[str, tuple[str, list[str]]]
"""Side and people, from left to right, of each kept record by key."""


def export(
    ledger: Ledger,
    store: ByteStore,
    owner: str,
    wanted: str,
    folder: Path,
    *,
    raw: bool = False,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write a version below a new folder, which appears only when all of it is there; return the version's object.

    Raises:
        NotFoundError: no such version.
        ConflictError: the folder exists, or the version holds somebody who was erased.
        InputError: `shard_corrupt`; a shard is not what was written.
        TransientError: `object_damaged`, or the store cannot be reached.
        UsageError: the version is a recipe, or the folder cannot be written.
    """
    version = show(ledger, owner, wanted)
    if version["tainted_at"] is not None:
        raise ConflictError(
            f"data set version {version['id']} holds somebody who was erased; build a new one", code="dataset_tainted"
        )
    if folder.exists():
        raise ConflictError(f"{folder} exists; an export is never written over anything", code="folder_exists")
    with ledger.read() as session:
        index = datasets.read_index(session, store, rows.resolve(session, owner, version["id"]))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True, mode=0o700)
        (partial / "index.parquet").write_bytes(index)
        names = (_raw if raw else _by_side)(store, version, index, partial, tick)
        (partial / "version.json").write_text(json.dumps({**version, "shards": names}, indent=1) + "\n")
        partial.replace(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}", code="folder_unwritable") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def _raw(
    store: ByteStore, version: dict[str, Any], _: bytes, folder: Path, tick: Callable[[int, int], None]
) -> list[str]:
    names = []
    for number, shard in enumerate(version["shards"]):
        names.append(f"{shard['sha256']}.tar")
        with store.open(shard["key"], sha256=shard["sha256"]) as source, (folder / names[-1]).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        tick(number + 1, len(version["shards"]))
    return names


def _by_side(
    store: ByteStore, version: dict[str, Any], index: bytes, folder: Path, tick: Callable[[int, int], None]
) -> list[str]:
    decided = _decided(index, len(version["shards"]))
    names: list[str] = []
    for number, (shard, kept) in enumerate(zip(version["shards"], decided, strict=True)):
        sides = sorted({side for side, _ in kept.values()})
        made = {side: folder / f"{side}-{number:05d}.tar" for side in sides}
        with ExitStack() as stack:
            tars = {
                side: stack.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
                for side, path in made.items()
            }
            source = stack.enter_context(store.open(shard["key"], sha256=shard["sha256"]))
            for name, data in _members(source):
                key, _, suffix = name.partition(".")
                if key in kept:
                    side, people = kept[key]
                    _add(tars[side], name, _named(data, side, people) if suffix == "json" else data)
        names += [path.name for path in made.values()]
        tick(number + 1, len(version["shards"]))
    return names


def _decided(index: bytes, shards: int) -> list[Decided]:
    found: list[Decided] = [{} for _ in range(shards)]
    for key, shard, person, split in index_rows(index, ("key", "shard", "person", "split")):
        if split is not None:
            found[shard].setdefault(key, (split, []))[1].append(person)
    return found


def _members(source: BinaryIO) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for info in tar:
                member = tar.extractfile(info)
                if member is not None:
                    yield info.name, member.read()
        while source.read(1 << 16):
            pass  # the hash is checked at the end of the stream, behind the tar's padding
    except tarfile.TarError as error:
        raise InputError(f"a shard cannot be read to its end: {error}", code="shard_corrupt") from error


def _named(data: bytes, side: str, people: list[str]) -> bytes:
    """The record with what was decided of it: each person's id, and the side."""
    record = json.loads(data)
    for entry, person in zip(record["people"], people, strict=True):
        entry["person"] = person
        del entry["label"]
    return json.dumps({**record, "split": side}, sort_keys=True, ensure_ascii=False).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))
