"""Shards: tar files in the WebDataset convention, the same bytes for the same content, written and read as streams.

Files of one record follow each other and share their name up to the first dot: `KEY.json`, the picture `KEY.png`
or `KEY.jpg`, `KEY.embeddings.npy` (K, 512) float16, `KEY.masks.npy` (K, 64, 64) uint8.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from fpga_models.idzoom.errors import ShardError
from fpga_models.idzoom.records import Record, from_json

PICTURES = ("png", "jpg")
LONGEST_MEMBER = 1 << 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A record with the bytes of its picture, their suffix, and the head masks (K, 64, 64) uint8."""

    record: Record
    picture: bytes
    suffix: str
    masks: NDArray[np.uint8]


class ShardWriter:
    """Writes files into a tar stream, without times or owners, so that equal content gives equal bytes."""

    def __init__(self, target: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 closed by __exit__
        self.records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._tar.close()

    def write(self, sample: Sample) -> None:
        """Append one record."""
        embeddings = np.stack([person.embedding for person in sample.record.people]).astype(np.float16)
        self.write_files(
            sample.record.key,
            {
                "json": json.dumps(sample.record.as_json(), ensure_ascii=False, sort_keys=True).encode(),
                sample.suffix: sample.picture,
                "embeddings.npy": npy(embeddings),
                "masks.npy": npy(sample.masks),
            },
        )

    def write_files(self, key: str, files: Mapping[str, bytes]) -> None:
        """Append the files of one record by their suffixes."""
        for suffix, data in files.items():
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size = len(data)
            info.mode = 0o644
            self._tar.addfile(info, io.BytesIO(data))
        self.records += 1


def read_files(source: BinaryIO) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, files by suffix) of each record of a tar stream.

    Raises:
        ShardError: the stream is no tar, ends too early, or holds something that is not a plain file.
    """
    key = ""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for info in tar:
                if not info.isreg() or info.size > LONGEST_MEMBER:
                    raise ShardError(f"A shard holds plain files of at most 1 GiB, got {info.name!r}.")
                name, _, suffix = info.name.partition(".")
                if name != key and files:
                    yield key, files
                    files = {}
                member = tar.extractfile(info)
                assert member is not None, "a plain file can be read"
                key, files[suffix] = name, member.read()
                tar.members = []  # type: ignore[attr-defined]  # the stream forgets what it has passed: memory stays flat
        if files:
            yield key, files
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"The shard cannot be read to its end: {error}.") from error


def read_samples(source: BinaryIO) -> Iterator[Sample]:
    """Yield the samples of a shard.

    Raises:
        ShardError: it is not a shard of this schema.
    """
    for key, files in read_files(source):
        suffix = next((name for name in PICTURES if name in files), None)
        try:
            if suffix is None:
                raise ValueError("there is no picture")
            record = from_json(json.loads(files["json"]), from_npy(files["embeddings.npy"]))
            masks: NDArray[np.uint8] = from_npy(files["masks.npy"])
        except (KeyError, TypeError, ValueError) as error:
            raise ShardError(f"Record {key!r} of the shard is not one of ours: {error!r}.") from error
        yield Sample(record=record, picture=files[suffix], suffix=suffix, masks=masks)


def npy(array: NDArray[Any]) -> bytes:
    """The bytes of an array of any shape as a .npy file."""
    target = io.BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()


def from_npy(data: bytes) -> NDArray[Any]:
    """The array of a .npy file; ValueError for anything else, pickles included."""
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def content_sha256(parts: Mapping[str, Any]) -> str:
    """One hash over what a data set version is made of, as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
