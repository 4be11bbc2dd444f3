"""Names that strangers gave to files: shown as text, and kept from leading anywhere.

A name is bytes. As text it is UTF-8, or what the archive's own rules say; bytes that are neither, control characters
and marks that turn the direction of writing are shown as `%XX` of their UTF-8. That text is also the name written out.
"""

from __future__ import annotations

import re
import unicodedata

from orchestrator.errors import InputError

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 1024
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_TURNING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def as_text(raw: bytes) -> str:
    """Return a name as printable text, whatever its bytes are."""
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(_escaped(sign) if _hidden(sign) else sign for sign in text)


def safe_path(raw: bytes) -> str:
    """Return the relative path of a member, fit to be written below a folder.

    Raises:
        InputError: `path_unsafe` where it is absolute or leads upwards, `path_too_long`.
    """
    text = as_text(raw)
    if text.startswith(("/", "\\")) or _DRIVE.match(text):
        raise InputError(f"the path {text[:200]!r} is absolute; a relative one is wanted", code="path_unsafe")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or ".." in re.split(r"[/\\]", text):
        raise InputError(f"the path {text[:200]!r} leads out of its archive", code="path_unsafe")
    sizes = [len(part.encode()) for part in parts]
    if max(sizes) > MAX_PART_BYTES or sum(sizes) + len(sizes) > MAX_PATH_BYTES:
        raise InputError(
            f"a path has at most {MAX_PATH_BYTES} bytes and {MAX_PART_BYTES} in each part; "
            f"this one begins with {text[:80]!r}",
            code="path_too_long",
        )
    return "/".join(parts)


def _hidden(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or sign in _TURNING


def _escaped(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "surrogateescape"))
