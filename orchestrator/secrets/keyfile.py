"""Secret keys from the environment, or from a file that only its owner may read and that one machine makes itself."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from orchestrator.errors import SettingsError
from orchestrator.settings import Settings


def secrets(settings: Settings, setting: str, default: str, fresh: bytes, how: str) -> list[str]:
    """Return the keys of one setting: its variable, else its file, else `keys/<default>` in the state directory.

    Args:
        setting: name of the setting that holds keys; `<setting>_file` (or the singular of it) holds a path.
        fresh: what a new file gets, on a machine that shares its database with no other.
        how: the sentence that tells how to make a key.

    Raises:
        SettingsError: there is none where several machines share a database, or the file cannot be read or may be
            read by others.
    """
    given: SecretStr | None = getattr(settings, setting)
    file_setting = f"{setting.removesuffix('s')}_file"
    named: Path | None = getattr(settings, file_setting)
    if given is not None:
        return [key for key in given.get_secret_value().replace(",", " ").split() if key]
    path = named or settings.state_dir / "keys" / default
    if not path.exists():
        if named or not settings.database_url.startswith("sqlite"):
            raise SettingsError(
                f"set FPGA_{setting.upper()} or FPGA_{file_setting.upper()} to the same key on every machine; {how}",
                code="key_missing",
            )
        make(path, fresh)
    return read_closed(path).split()


def read_closed(path: Path) -> str:
    """Return the text of a file that only its owner may read.

    Raises:
        SettingsError: `key_exposed`, others may read it; `key_missing`, it cannot be read.
    """
    try:
        if _open_to_others(path.stat()):
            raise SettingsError(f"{path} may be read by others; chmod 600 it", code="key_exposed")
        return path.read_text()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", code="key_missing") from error


def _open_to_others(about: os.stat_result) -> bool:
    """Whether somebody else may read a file; root's file for one of our groups is how Kubernetes mounts a Secret."""
    mounted = about.st_uid == 0 != os.geteuid() and about.st_gid in os.getgroups() and not about.st_mode & 0o020
    return bool(about.st_mode & (0o007 if mounted else 0o077))


def make(path: Path, fresh: bytes) -> None:
    """Write a new key beside and link it into place, so that of two processes at once one wins and none reads half."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent) as draft:  # mode 0600
        draft.write(fresh + b"\n")
        draft.flush()
        os.fsync(draft.fileno())
        with suppress(FileExistsError):
            os.link(draft.name, path)
