"""Keeps reference pictures and embeddings unreadable to whoever holds only the database, the store or a backup.

An envelope of the `cryptography` library's Fernet: every reference has a data key of its own, wrapped by the master
key, which lives outside both (FPGA_DATA_KEYS, or a file that only its owner may read). Erasing a reference destroys its
data key, so copies of its bytes that survive somewhere are noise.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from orchestrator.errors import SettingsError
from orchestrator.settings import Settings


class Vault:
    """Seals and opens bytes under data keys that the master key wraps."""

    def __init__(self, master: MultiFernet) -> None:
        self._master = master

    @classmethod
    def of(cls, settings: Settings) -> Vault:
        """Return the vault of this deployment. On one machine the first call makes the key file.

        Raises:
            SettingsError: no key is given where several machines share a database, or a key has the wrong form.
        """
        keys = _keys(settings)
        try:
            return cls(MultiFernet([Fernet(key) for key in keys]))
        except ValueError as error:
            raise SettingsError(
                "a data key is 32 bytes in URL-safe base64, such as `fpga identity newkey` prints; got something else",
                code="data_key_invalid",
            ) from error

    def new_key(self) -> str:
        """Make a data key and return it wrapped."""
        return self._master.encrypt(Fernet.generate_key()).decode()

    def seal(self, key: str, data: bytes) -> bytes:
        """Encrypt bytes under a wrapped data key; two calls give different bytes."""
        return self._unwrap(key).encrypt(data)

    def open(self, key: str | None, sealed: bytes) -> bytes:
        """Return the bytes that were sealed; without a key, which is how they were kept before, they come as they are.

        Raises:
            SettingsError: the data key was wrapped by a master key that this process does not have, or the bytes were
                altered.
        """
        if key is None:
            return sealed
        try:
            return self._unwrap(key).decrypt(sealed)
        except InvalidToken as error:
            raise SettingsError("sealed bytes were altered, or belong to another key", code="seal_broken") from error

    def rewrap(self, key: str) -> str:
        """Wrap a data key by the first master key; the bytes under it stay as they are."""
        try:
            return self._master.rotate(key.encode()).decode()
        except InvalidToken as error:
            raise SettingsError(MISSING, code="data_key_missing") from error

    def _unwrap(self, key: str) -> Fernet:
        try:
            return Fernet(self._master.decrypt(key.encode()))
        except InvalidToken as error:
            raise SettingsError(MISSING, code="data_key_missing") from error


MISSING = (
    "a reference was sealed by a master key that this process does not have; "
    "add the former key to FPGA_DATA_KEYS, after the new one"
)


def _keys(settings: Settings) -> Sequence[str]:
    if settings.data_keys is not None:
        return [key for key in settings.data_keys.get_secret_value().replace(",", " ").split() if key]
    path = settings.data_key_file or settings.state_dir / "keys" / "data.keys"
    if not path.exists():
        if settings.data_key_file or not settings.database_url.startswith("sqlite"):
            raise SettingsError(
                "set FPGA_DATA_KEYS or FPGA_DATA_KEY_FILE to the same key on every machine; "
                "`fpga identity newkey` makes one",
                code="data_key_missing",
            )
        _make(path)
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"{path} may be read by others; chmod 600 it", code="data_key_exposed")
        return path.read_text().split()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", code="data_key_missing") from error


def _make(path: Path) -> None:
    """Write a new key beside and link it into place, so that of two processes at once one wins and none reads half."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent) as draft:  # mode 0600
        draft.write(Fernet.generate_key() + b"\n")
        draft.flush()
        os.fsync(draft.fileno())
        with suppress(FileExistsError):
            os.link(draft.name, path)
