"""Keeps reference pictures and embeddings unreadable to whoever holds only the database, the store or a backup.

An envelope is a data key of its own for each thing that is sealed, wrapped by the master key, which lives outside both
(FPGA_DATA_KEYS, or a file that only its owner may read). It is bound to where it belongs: wrapped with AES-GCM, with
the name of its place as associated data, so that whoever writes the database can put it nowhere else. Bytes are sealed
under it with the `cryptography` library's Fernet. Erasing a reference destroys its data key, so copies of its bytes
that survive somewhere are noise.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.errors import SettingsError
from orchestrator.secrets.keyfile import secrets
from orchestrator.settings import Settings

BOUND = "b1."
"""How a wrapped key begins that is bound to its place; one without is of before, and opens anywhere until `rekey`."""
NONCE, KEY_ID = 12, 4


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A wrapped data key and the name of the place that it belongs to; `key` is None for what was never sealed."""

    key: str | None
    place: str


@dataclass(frozen=True, kw_only=True)
class Master:
    """One master key: 32 bytes in URL-safe base64."""

    key: str = field(repr=False)

    @classmethod
    def of(cls, key: str) -> Master:
        """Return a key whose form is checked.

        Raises:
            ValueError: it is of another form.
        """
        Fernet(key)
        return cls(key=key)

    @cached_property
    def former(self) -> Fernet:
        """What wrapped data keys before they were bound."""
        return Fernet(self.key)

    @cached_property
    def wrapping(self) -> AESGCM:
        """What wraps them now."""
        derived = HKDF(SHA256(), 32, salt=None, info=b"fpga vault, bound envelopes, 1")
        return AESGCM(derived.derive(base64.urlsafe_b64decode(self.key)))

    @cached_property
    def id(self) -> bytes:
        """Tells a key that is not here from an envelope that lies in the wrong place; it tells nothing of the key."""
        return hashlib.sha256(b"fpga vault key id" + self.key.encode()).digest()[:KEY_ID]


class Vault:
    """Seals and opens bytes under data keys that the master key wraps."""

    def __init__(self, masters: Sequence[Master]) -> None:
        self._masters = tuple(masters)

    @classmethod
    def of(cls, settings: Settings) -> Vault:
        """Return the vault of this deployment. On one machine the first call makes the key file.

        Raises:
            SettingsError: no key is given where several machines share a database, or a key has the wrong form.
        """
        keys = secrets(settings, "data_keys", "data.keys", Fernet.generate_key(), "`fpga identity newkey` makes one")
        try:
            return cls([Master.of(key) for key in keys])
        except ValueError as error:
            raise SettingsError(
                "a data key is 32 bytes in URL-safe base64, such as `fpga identity newkey` prints; got something else",
                code="data_key_invalid",
            ) from error

    def new(self, place: str) -> Envelope:
        """Make a data key that belongs to this place."""
        return Envelope(key=self._wrap(Fernet.generate_key(), place), place=place)

    def seal(self, envelope: Envelope, data: bytes) -> bytes:
        """Encrypt bytes; two calls give different bytes. Without a key, which is how it was before, they stay."""
        return data if envelope.key is None else Fernet(self._unwrap(envelope)).encrypt(data)

    def open(self, envelope: Envelope, sealed: bytes) -> bytes:
        """Return the bytes that were sealed; without a key, which is how they were kept before, they come as they are.

        Raises:
            SettingsError: `data_key_missing`, the data key was wrapped by a master key that this process does not
                have; `seal_broken`, bytes or key were altered, or belong to another place.
        """
        if envelope.key is None:
            return sealed
        try:
            return Fernet(self._unwrap(envelope)).decrypt(sealed)
        except InvalidToken as error:
            raise SettingsError("sealed bytes were altered, or belong to another key", code="seal_broken") from error

    def alone(self) -> Vault:
        """Return a vault that has the first master key and no other: what it opens needs no former key."""
        return Vault(self._masters[:1])

    def rewrap(self, envelope: Envelope, place: str | None = None) -> str:
        """Return the data key wrapped by the first master key, for its place or another; the bytes under it stay."""
        return self._wrap(self._unwrap(envelope), envelope.place if place is None else place)

    def check(self, envelope: Envelope) -> None:
        """Check that a data key can be unwrapped where it lies.

        Raises:
            SettingsError: `data_key_missing`, `seal_broken`.
        """
        self._unwrap(envelope)

    def _wrap(self, key: bytes, place: str) -> str:
        first, nonce = self._masters[0], os.urandom(NONCE)
        wrapped = first.id + nonce + first.wrapping.encrypt(nonce, key, place.encode())
        return BOUND + base64.urlsafe_b64encode(wrapped).decode()

    def _unwrap(self, envelope: Envelope) -> bytes:
        if envelope.key is None:
            raise SettingsError("nothing was sealed here", code="seal_broken")
        if envelope.key.startswith(BOUND):
            return self._bound(envelope.key, envelope.place)
        for master in self._masters:
            try:
                return master.former.decrypt(envelope.key.encode())
            except InvalidToken:
                continue
        raise SettingsError(MISSING, code="data_key_missing")

    def _bound(self, key: str, place: str) -> bytes:
        try:
            raw = base64.urlsafe_b64decode(key.removeprefix(BOUND))
        except binascii.Error as error:
            raise SettingsError(MISPLACED, code="seal_broken") from error
        master = next((one for one in self._masters if one.id == raw[:KEY_ID]), None)
        if master is None:
            raise SettingsError(MISSING, code="data_key_missing")
        try:
            nonce, wrapped = raw[KEY_ID : KEY_ID + NONCE], raw[KEY_ID + NONCE :]
            return master.wrapping.decrypt(nonce, wrapped, place.encode())
        except (InvalidTag, ValueError) as error:
            raise SettingsError(MISPLACED, code="seal_broken") from error


MISSING = (
    "something was sealed by a master key that this process does not have; "
    "add the former key to FPGA_DATA_KEYS, after the new one"
)
MISPLACED = "a wrapped key was altered, or taken from another place in the database"
