"""Weight files: hashes, and the manifest `weights.json` that pins every file of a preset folder.

Two hashes per file: of the whole file, and of its tensor section alone, so that editing a header's metadata does not
change which model it is (for ONNX, which has no such section, both are the whole file's).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fpga_models.errors import WeightsError

MANIFEST = "weights.json"
CHUNK = 1 << 20


def file_sha256(path: Path, *, skip: int = 0) -> str:
    """sha256 of a file after its first `skip` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(skip)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def bytes_sha256(data: bytes) -> str:
    """sha256 of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def tensor_sha256(path: Path) -> str:
    """sha256 of the tensor section: in safetensors what follows the 8-byte length and the header."""
    if path.suffix != ".safetensors":
        return file_sha256(path)
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    return file_sha256(path, skip=8 + header)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header metadata of one safetensors file. Anything else, a pickle first of all, is refused unread.

    Raises:
        WeightsError: the file is missing, cut, or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            return state, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path.name} is not a whole safetensors file: {error}.") from error


def model_sha256(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One hash for all networks of a preset: over sorted paths and tensor hashes of safetensors and ONNX files."""
    lines = [
        f"{name} {entry['tensor_sha256']}\n"
        for name, entry in sorted(files.items())
        if name.endswith((".safetensors", ".onnx"))
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(directory: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """Pin every file under `directory` in its weights.json; `made` says how they were made."""
    files = {
        path.relative_to(directory).as_posix(): {
            "sha256": file_sha256(path),
            "tensor_sha256": tensor_sha256(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = {"format": 1, "model_sha256": model_sha256(files), "made": dict(made), "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a preset folder.

    Raises:
        WeightsError: there is none, or it is not one of ours.
    """
    path = directory / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist: a preset folder with {MANIFEST} was wanted.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(manifest, dict):
        raise WeightsError(f"{path} holds {type(manifest).__name__}, an object was wanted.")
    if manifest.get("format") != 1:
        raise WeightsError(f"{path} has format {manifest.get('format')!r}, 1 was wanted.")
    return manifest


def verify(directory: Path, *, below: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """Check the files of a manifest whose path starts with one of `below`; returns the manifest.

    Raises:
        WeightsError: a file is missing or altered.
    """
    manifest = read_manifest(directory)
    for name, entry in manifest["files"].items():
        if not name.startswith(below):
            continue
        path = directory / name
        if not path.is_file():
            raise WeightsError(f"{path} is missing: {MANIFEST} lists it with {entry['bytes']} bytes.")
        if (got := file_sha256(path)) != entry["sha256"]:
            raise WeightsError(f"{path} was altered: sha256 {got[:12]}… was got, {entry['sha256'][:12]}… was wanted.")
    return manifest
