"""Receipts of erases, signed with Ed25519: whoever holds the library's public key can check one without the library.

The signature is a JWS (RFC 7515, EdDSA of RFC 8037) whose payload is the JSON of everything else in the receipt: any
JOSE library checks it and shows what was signed. Receipts from before carry the bare signature over that JSON and still
verify. Several keys may be given, so that receipts of a former key verify after a new one was put in front.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from orchestrator.contracts.base import canonical_json
from orchestrator.errors import InputError, SettingsError
from orchestrator.secrets.keyfile import secrets
from orchestrator.settings import Settings

ALGORITHM = "EdDSA"
BEFORE = "Ed25519"
"""What receipts of the older form name."""
HOW = "`fpga identity receipt newkey` makes one"


def new_key() -> str:
    """Return a new private key: 32 bytes in URL-safe base64."""
    return base64.urlsafe_b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Signs with the first key and knows them all."""

    keys: tuple[Ed25519PrivateKey, ...]

    @classmethod
    def of(cls, settings: Settings) -> Signer:
        """Return the signer of this deployment. On one machine the first call makes the key file.

        Raises:
            SettingsError: no key is given where several machines share a database, or a key has the wrong form.
        """
        found = secrets(settings, "signing_keys", "signing.keys", new_key().encode(), HOW)
        try:
            keys = tuple(Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(key)) for key in found)
        except (ValueError, binascii.Error) as error:
            raise SettingsError(
                f"a signing key is 32 bytes in URL-safe base64; {HOW}; got something else", code="signing_key_invalid"
            ) from error
        if not keys:
            raise SettingsError(f"there is no signing key; {HOW}", code="key_missing")
        return cls(keys=keys)

    @property
    def public_keys(self) -> list[str]:
        """The public keys, the one that signs now first."""
        return [_text(key.public_key()) for key in self.keys]

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK set (RFC 7517), which is what other tools read."""
        raw = [key.public_key().public_bytes_raw() for key in self.keys]
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": ALGORITHM, "x": _url(key)} for key in raw]}

    def sign(self, receipt: dict[str, Any]) -> dict[str, Any]:
        """Return the receipt with its signature."""
        signed = f"{_url(_canonical({'alg': ALGORITHM}))}.{_url(_canonical(receipt))}"
        jws = f"{signed}.{_url(self.keys[0].sign(signed.encode()))}"
        return {**receipt, "signature": {"algorithm": ALGORITHM, "public_key": self.public_keys[0], "jws": jws}}


def verify(receipt: dict[str, Any], public_keys: list[str]) -> str:
    """Check that one of these keys signed exactly this receipt, and return that key.

    Raises:
        InputError: `receipt_unsigned`, `receipt_foreign` (by another key) or `receipt_altered`.
    """
    signature = receipt.get("signature")
    if not isinstance(signature, dict) or signature.get("algorithm") not in (ALGORITHM, BEFORE):
        raise InputError(f"this receipt has no {ALGORITHM} signature", code="receipt_unsigned")
    said = {name: value for name, value in receipt.items() if name != "signature"}
    signed_by = str(signature.get("public_key"))
    if signed_by not in public_keys:
        raise InputError(
            f"this receipt was signed by {signed_by[:44]}, which is none of {len(public_keys)} trusted keys",
            code="receipt_foreign",
        )
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed_by, validate=True))
        if signature["algorithm"] == BEFORE:
            key.verify(base64.b64decode(str(signature.get("value")), validate=True), _canonical(said))
        else:
            header, payload, value = str(signature.get("jws")).split(".")
            key.verify(_bytes(value), f"{header}.{payload}".encode())
            if json.loads(_bytes(header)) != {"alg": ALGORITHM} or _bytes(payload) != _canonical(said):
                raise ValueError("something else was signed")
    except (InvalidSignature, ValueError) as error:
        raise InputError("this receipt is not what was signed: it was altered", code="receipt_altered") from error
    return signed_by


def _canonical(receipt: dict[str, Any]) -> bytes:
    return canonical_json(receipt).encode()


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()
