"""Keeps reference pictures and embeddings unreadable to whoever holds only the database, the store or a backup.

An envelope of the `cryptography` library's Fernet: every reference has a data key of its own, wrapped by the master
key, which lives outside both (FPGA_DATA_KEYS, or a file that only its owner may read). Erasing a reference destroys its
data key, so copies of its bytes that survive somewhere are noise.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from orchestrator.errors import SettingsError
from orchestrator.secrets.keyfile import secrets
from orchestrator.settings import Settings


class Vault:
    """Seals and opens bytes under data keys that the master key wraps."""

    def __init__(self, master: MultiFernet, first: Fernet) -> None:
        self._master = master
        self._first = first

    @classmethod
    def of(cls, settings: Settings) -> Vault:
        """Return the vault of this deployment. On one machine the first call makes the key file.

        Raises:
            SettingsError: no key is given where several machines share a database, or a key has the wrong form.
        """
        keys = secrets(settings, "data_keys", "data.keys", Fernet.generate_key(), "`fpga identity newkey` makes one")
        try:
            masters = [Fernet(key) for key in keys]
            return cls(MultiFernet(masters), masters[0])
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

    def alone(self) -> Vault:
        """Return a vault that has the first master key and no other: what it opens needs no former key."""
        return Vault(MultiFernet([self._first]), self._first)

    def rewrap(self, key: str) -> str:
        """Wrap a data key by the first master key; the bytes under it stay as they are."""
        try:
            return self._master.rotate(key.encode()).decode()
        except InvalidToken as error:
            raise SettingsError(MISSING, code="data_key_missing") from error

    def check(self, key: str) -> None:
        """Check that a data key can be unwrapped.

        Raises:
            SettingsError: `data_key_missing`.
        """
        self._unwrap(key)

    def _unwrap(self, key: str) -> Fernet:
        try:
            return Fernet(self._master.decrypt(key.encode()))
        except InvalidToken as error:
            raise SettingsError(MISSING, code="data_key_missing") from error


MISSING = (
    "something was sealed by a master key that this process does not have; "
    "add the former key to FPGA_DATA_KEYS, after the new one"
)
