"""Cuts a source into chunks that stay the same when pictures are added: the units that workers build and reuse.

A chunk ends after a picture whose hash says so, so that an added picture changes only the chunk it falls into
(content-defined chunking, as rsync and backup programs do). The bytes of a chunk go to the store as one tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from orchestrator.contracts.base import digest
from orchestrator.contracts.datasets import ChunkInput, DependsOn, RenderSpan, TarRef
from orchestrator.datasets.source import SourcePicture
from orchestrator.errors import InputError, UsageError
from orchestrator.ledger import artifacts
from orchestrator.ledger.engine.session import Ledger
from orchestrator.pictures import check_picture
from orchestrator.storage import ByteStore, content_key

MEAN_PICTURES = 256
LONGEST = 4
"""A chunk holds at most so many times the mean."""
MAX_BYTES = 256 * 2**20
RENDER = "render:"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Where the pictures of a chunk are, as small JSON, and how many; `artifact_id` is that of their tar."""

    input: ChunkInput
    pictures: int
    artifact_id: str | None = None
    people: tuple[str, ...] = ()
    """Pseudonyms of those whom the source names in it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`render:SEED:COUNT`: the first `count` pictures of the mini world with this seed."""

    seed: int
    count: int


def read_recipe(source: str) -> Recipe | None:
    """Return the recipe that a source is, or None if it names files.

    Raises:
        UsageError: it begins like one and is none.
    """
    if not source.startswith(RENDER):
        return None
    seed, _, count = source.removeprefix(RENDER).partition(":")
    if not (seed.isdigit() and count.isdigit() and int(count)):
        raise UsageError(f"a recipe of the renderer is render:SEED:COUNT, got {source!r}", code="bad_source")
    return Recipe(seed=int(seed), count=int(count))


def rendered_chunks(recipe: Recipe, mean: int = MEAN_PICTURES) -> Iterator[Chunk]:
    """Yield the chunks of a recipe; a longer recipe of the same seed begins with the same ones."""
    for start in range(0, recipe.count, mean):
        stop = min(start + mean, recipe.count)
        yield Chunk(
            input=ChunkInput(render=RenderSpan(seed=recipe.seed, start=start, stop=stop)), pictures=stop - start
        )


def stored_chunks(
    pictures: Iterable[SourcePicture],
    name_of: Callable[[str], str],
    ledger: Ledger,
    store: ByteStore,
    *,
    owner: str,
    max_pixels: int,
    mean: int = MEAN_PICTURES,
) -> Iterator[Chunk]:
    """Put the pictures into the store chunk by chunk and yield what was put; one chunk is on disk at a time.

    Args:
        name_of: the pseudonym under which a person goes on.

    Raises:
        StoreUnavailableError: the store is full or cannot be reached.
    """
    open_: _Open | None = None
    for picture in pictures:
        open_ = open_ or _Open()
        ends = open_.add(picture, name_of, max_pixels, mean)
        if ends:
            yield open_.put(ledger, store, owner)
            open_ = None
    if open_ is not None:
        yield open_.put(ledger, store, owner)


class _Open:
    """A chunk that still grows, in a temporary file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 put closes both
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 likewise
        self._pictures = 0
        self._bytes = 0
        self._people: dict[str, None] = {}

    def add(self, picture: SourcePicture, name_of: Callable[[str], str], max_pixels: int, mean: int) -> bool:
        """Append a picture; return whether the chunk ends after it."""
        said: dict[str, Any] = {"name": picture.name, "caption": picture.caption}
        said["people"] = [name_of(person) for person in picture.people]
        self._people |= dict.fromkeys(said["people"])
        data, error = picture.data, picture.error
        if data is not None:
            try:
                check_picture(data, max_pixels=max_pixels)
            except InputError as wrong:
                data, error = None, wrong
        if error is not None:
            said["error"] = {"code": error.code, "message": error.message}
        sha256 = hashlib.sha256(data or picture.name.encode()).hexdigest()
        self._write("json", json.dumps(said | {"sha256": sha256}, sort_keys=True, ensure_ascii=False).encode())
        if data is not None:
            self._write("bin", data)
        self._pictures += 1
        at_mark = int(sha256[:8], 16) % mean == 0
        return at_mark or self._pictures >= LONGEST * mean or self._bytes >= MAX_BYTES

    def put(self, ledger: Ledger, store: ByteStore, owner: str) -> Chunk:
        """Store the tar under its hash and close it."""
        self._tar.close()
        with self._file as file:
            file.seek(0)
            sha256, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()  # type: ignore[arg-type]  # a real file
            key = content_key(owner, sha256, ".tar")
            artifact_id = artifacts.reserve(
                ledger, owner=owner, sha256=sha256, key=key, size=size, media_type="application/x-tar"
            )
            file.seek(0)
            store.put(key, file, media_type="application/x-tar", sha256=sha256)  # type: ignore[arg-type]  # IO is a BinaryIO
        return Chunk(
            input=ChunkInput(tar=TarRef(key=key, sha256=sha256)),
            pictures=self._pictures,
            artifact_id=artifact_id,
            people=tuple(self._people),
        )

    def _write(self, suffix: str, data: bytes) -> None:
        info = tarfile.TarInfo(f"{self._pictures:06d}.{suffix}")
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))
        self._bytes += len(data)


def chunk_sha256(chunk: Chunk, depends_on: DependsOn) -> str:
    """Return the hash of everything that the result of a chunk depends on."""
    return digest({**depends_on.dump(), "input": chunk.input.model_dump(exclude_none=True)})
