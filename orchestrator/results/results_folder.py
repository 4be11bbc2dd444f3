"""Writes finished pictures into a folder that `datasets.load_dataset("imagefolder", data_dir=...)` reads unchanged.

`NAME.png` with sidecar `NAME.json`, `metadata.jsonl`, `results.jsonl` and `errors.jsonl`. Nothing is overwritten, and
no name ever shows a half-written file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.errors import ConflictError, TransientError, UsageError
from orchestrator.planning.naming import DEFAULT_TEMPLATE, NameFacts, output_names

OF_AN_ITEM = {"custom_id", "file_name"}
HALF = ".part-"
"""How names of files begin that are not whole yet."""
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)
"""How disks say that they know no second name of a file."""
LISTS = ("metadata.jsonl", "results.jsonl", "errors.jsonl")


@dataclass(frozen=True, kw_only=True)
class FolderItem:
    """One finished picture: what names may say of it, its item object, flat columns, and how to get its bytes."""

    facts: NameFacts
    item: Mapping[str, Any]
    """The API's object; the sidecar and the line of results.jsonl are equal to it."""
    columns: Mapping[str, str | int | float | bool | None]
    """Columns of metadata.jsonl beside `file_name`; all items should have the same."""
    sha256: str
    load: Callable[[], bytes]


def write_results_folder(
    folder: Path,
    items: Sequence[FolderItem],
    errors: Iterable[Mapping[str, Any]] = (),
    *,
    template: str = DEFAULT_TEMPLATE,
    overwrite: bool = False,
) -> list[Path]:
    """Write everything and return the paths of the pictures; what is there and equal is kept, so a cut one goes on.

    The sidecars and lists are ours and are brought up to date; a picture with other bytes is somebody else's.

    Args:
        overwrite: put ours in the place of what differs.

    Raises:
        ConflictError: another picture has a name that is needed (`details["file"]`), or two pictures get one name.
        UsageError: the template is wrong, or the folder cannot be made.
        TransientError: the disk is full.
    """
    names = output_names(template, (item.facts for item in items))
    if not template.endswith(".{ext}"):
        raise UsageError(f"a template ends with .{{ext}}, got {template!r}", code="bad_template")
    pictures = [folder / name for name in names]
    sidecars = [picture.with_suffix(".json") for picture in pictures]
    for path in (*sidecars, *(folder / name for name in LISTS)):
        if path.exists() and not (overwrite or _ours(path)):
            raise _taken(path)
    missing = []
    for item, picture in zip(items, pictures, strict=True):
        if not picture.exists():
            missing.append((item, picture))
        elif file_sha256(picture) != item.sha256:
            if not overwrite:
                raise _taken(picture)
            missing.append((item, picture))
    _remove_halves(folder)
    for item, picture in missing:
        replace(picture, item.load()) if overwrite else write_new(picture, item.load())
    for item, sidecar in zip(items, sidecars, strict=True):
        replace(sidecar, _json(item.item, indent=2))
    rows = ({"file_name": name, **item.columns} for name, item in zip(names, items, strict=True))
    replace(folder / "metadata.jsonl", _lines(rows))
    replace(folder / "results.jsonl", _lines(item.item for item in items))
    replace(folder / "errors.jsonl", _lines(errors))
    return pictures


def file_sha256(path: Path) -> str:
    """Return the hash of a file that is there."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace(path: Path, data: bytes) -> None:
    """Write a file in place of an older one, whole or not at all; one with the same bytes is left alone.

    Raises:
        UsageError: the place cannot be written to.
        TransientError: the disk is full.
    """
    if path.exists() and path.read_bytes() == data:
        return
    fresh = path.with_name(f"{HALF}{os.getpid()}-{path.name}")
    fresh.unlink(missing_ok=True)
    write_new(fresh, data)
    fresh.replace(path)


def _ours(path: Path) -> bool:
    """Whether a list or sidecar is one that an earlier download wrote: JSON that tells of an item, or nothing."""
    try:
        text = path.read_text(encoding="utf-8")
        first = json.loads(text if path.suffix == ".json" else text.partition("\n")[0] or "{}")
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and (not first or bool(OF_AN_ITEM & first.keys()))


def _remove_halves(folder: Path) -> None:
    """Remove what a killed download left half-written."""
    for left in folder.rglob(f"{HALF}*") if folder.is_dir() else ():
        left.unlink(missing_ok=True)


def write_new(path: Path, data: bytes | BinaryIO) -> None:
    """Write a file that is not there yet, for its owner alone, whole or not at all; folders on the way are made.

    Raises:
        ConflictError: it is there already, also if it came while we wrote.
        UsageError: the place cannot be written to.
        TransientError: the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise _taken(path.parent) from error
    except OSError as error:
        raise _failed(path, error) from error
    try:
        handle, temporary = tempfile.mkstemp(prefix=HALF, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    shutil.copyfileobj(data, file)
                file.flush()
                os.fsync(file.fileno())
            _put_in_place(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise _failed(path, error) from error


def _put_in_place(temporary: str, path: Path) -> None:
    """Give a finished file its name, which must be free."""
    try:
        os.link(temporary, path)  # fails where the name is taken, unlike a rename
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        # exFAT, SMB: the name is taken by an empty file first, and that one replaced
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            Path(temporary).replace(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _failed(path: Path, error: OSError) -> TransientError | UsageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TransientError(f"no space left to write {path}", code="disk_full")
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{path.name[:80]} ... is too long a name for this disk", code="path_too_long")
    if error.errno == errno.EINVAL or (error.errno == errno.ENOENT and path.parent.is_dir()):  # as exFAT's drivers do
        return UsageError(f"{path.name!r} is no name that this disk knows", code="path_unsafe")
    return UsageError(f"{path} cannot be written: {error.strerror}", code="not_writable")


def _taken(path: Path) -> ConflictError:
    return ConflictError(f"{path} exists and is not overwritten", code="file_exists", file=str(path))


def _json(value: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent) + "\n").encode()


def _lines(values: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(_json(value) for value in values)
