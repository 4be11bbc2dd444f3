"""Keys: how they are built, and the one function that says which are allowed.

Keys carry ids and hashes, never the name of a person.
"""

from __future__ import annotations

import re

from orchestrator.errors import UsageError

MAX_KEY_LENGTH = 512

# No leading dot: that keeps out `.` and `..`, and leaves dotted names to the local store's temporary files.
_PART = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_NAME = re.compile(rf"({_SHA256.pattern})(?:\.[A-Za-z0-9.]*)?")
_SUFFIX = re.compile(r"(?:\.[a-z0-9]{1,16}){0,2}")


def check_key(key: str) -> str:
    """Return the key itself if it is allowed: parts of `A-Z a-z 0-9 . _ = -` joined by single slashes.

    Raises:
        UsageError: `key_invalid`; it is empty, too long, absolute, leads upwards, or has other characters.
    """
    if len(key) > MAX_KEY_LENGTH:
        raise UsageError(f"key has {len(key)} characters, at most {MAX_KEY_LENGTH} are allowed", code="key_invalid")
    for part in key.split("/"):
        if not _PART.fullmatch(part):
            raise UsageError(
                f"key {key!r} has the part {part!r}; wanted 1 to 128 of A-Z a-z 0-9 . _ = - without a leading dot",
                code="key_invalid",
            )
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix itself if some key may start with it: a key, cut off anywhere.

    Raises:
        UsageError: `key_invalid`.
    """
    if prefix:
        check_key(prefix + "x" if prefix.endswith("/") else prefix)
    return prefix


def check_sha256(sha256: str) -> str:
    """Return the hash itself if it is 64 lower-case hexadecimal digits.

    Raises:
        UsageError: `sha256_invalid`.
    """
    if not _SHA256.fullmatch(sha256):
        raise UsageError(f"sha256 is {sha256[:80]!r}; wanted 64 lower-case hexadecimal digits", code="sha256_invalid")
    return sha256


def content_key(owner: str, sha256: str, suffix: str) -> str:
    """Return the key of bytes by their content: `o/<owner>/<first two digits>/<sha256><suffix>`.

    Owners do not share objects: that would tell one what another has, and make erasure impossible to prove.

    Args:
        owner: an id of one key part, such as `local`.
        sha256: of the bytes, in hex.
        suffix: such as `.png` or `.tar.gz`, or nothing.

    Raises:
        UsageError: `key_invalid` or `sha256_invalid`.
    """
    if "/" in owner or not _SUFFIX.fullmatch(suffix):
        raise UsageError(f"owner {owner!r} and suffix {suffix!r} do not make a key", code="key_invalid")
    return check_key(f"o/{owner}/{check_sha256(sha256)[:2]}/{sha256}{suffix}")


def named_sha256(key: str) -> str | None:
    """Return the hash that the last part of the key promises for its content, if it names one."""
    match = _CONTENT_NAME.fullmatch(key.rpartition("/")[2])
    return match.group(1) if match else None
