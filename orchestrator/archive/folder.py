"""A folder, a glob or a single file as a source; links are named and never followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.archive.base import Found, Refused, moment
from orchestrator.archive.names import MAX_PATH_BYTES, as_text
from orchestrator.errors import InputError, UsageError

_WILD = re.compile(r"[*?\[]")


class Folder:
    """Files below a folder, those whose relative path matches a pattern, or one file."""

    def __init__(self, root: Path, pattern: re.Pattern[str] | None = None) -> None:
        self._root = root
        self._pattern = pattern

    def found(self) -> Iterator[Found | Refused]:
        """See Opened; in each folder by the bytes of the names."""
        if not self._root.is_dir():
            yield _file(self._root, os.fsencode(self._root.name))
            return
        for member in self._below(self._root, b""):
            if self._pattern is None or self._pattern.fullmatch(os.fsdecode(member.raw_path)):
                yield member

    def close(self) -> None:
        """See Opened; nothing stays open."""

    def _below(self, folder: Path, raw_path: bytes) -> Iterator[Found | Refused]:
        if len(raw_path) > MAX_PATH_BYTES:
            yield _refused(raw_path, f"folders are nested over {MAX_PATH_BYTES} bytes deep", "path_too_long")
            return
        try:
            with os.scandir(folder) as entries:
                names = sorted((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            yield _refused(raw_path, f"the folder cannot be read: {error.strerror}", "member_unreadable")
            return
        for name, is_folder in names:
            path, relative = folder / os.fsdecode(name), b"/".join(filter(None, (raw_path, name)))
            if is_folder:
                yield from self._below(path, relative)
            else:
                yield _file(path, relative)


def glob_source(pattern: str) -> Folder | None:
    """Return the files that a pattern with `*`, `?`, `[]` or `**` names, or None if it has no such sign.

    Raises:
        UsageError: `bad_pattern`.
    """
    if not _WILD.search(pattern):
        return None
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _WILD.search(part))
    root = Path("/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else "."))
    try:
        wanted = re.compile(_expression(parts[fixed:]), re.DOTALL)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no pattern of file names: {error}", code="bad_pattern") from error
    return Folder(root, wanted) if root.is_dir() else None


def _expression(parts: list[str]) -> str:
    pieces = []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "**":
            pieces.append(".*" if last else "(?:[^/]+/)*")
        else:
            signs = re.sub(r"\\\[(!?)(.+?)\\\]", _one_of, re.escape(part))
            pieces.append(signs.replace(r"\*", "[^/]*").replace(r"\?", "[^/]") + ("" if last else "/"))
    return "".join(pieces)


def _one_of(match: re.Match[str]) -> str:
    signs = match[2].replace(r"\-", "-")
    return f"[{'^' if match[1] else ''}{signs}]"


def _file(path: Path, relative: bytes) -> Found | Refused:
    try:
        about = path.lstat()
    except OSError as error:
        return _refused(relative, f"the file cannot be looked at: {error.strerror}", "member_unreadable")
    if stat.S_ISLNK(about.st_mode):
        return _refused(relative, "the member is a link; links are not followed", "member_is_link")
    if not stat.S_ISREG(about.st_mode):
        return _refused(relative, "the member is neither a file nor a folder", "member_is_no_file")
    return Found(raw_path=relative, size=about.st_size, modified=moment(about.st_mtime), open=lambda: _opened(path))


def _opened(path: Path) -> BinaryIO:
    # what was a file a moment ago may be a link or a pipe by now
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")  # noqa: PTH123 a descriptor


def _refused(relative: bytes, message: str, code: str) -> Refused:
    return Refused(path=as_text(relative), raw_path=relative, error=InputError(message, code=code))
