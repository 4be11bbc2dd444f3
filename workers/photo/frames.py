"""How the worker and its guarded child talk: one line of JSON, then the bytes it announces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

MAX_LINE = 16 * 2**20


def pack(head: Mapping[str, Any], *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """Return what to write: the head with the lengths of the parts, then the parts."""
    line = json.dumps({**head, "lengths": [len(part) for part in parts]}).encode() + b"\n"
    return [line, *parts]


def receive(stream: IO[bytes], *, most: int) -> tuple[dict[str, Any], list[bytes]]:
    """Return head and parts of the next message that `pack` made.

    Args:
        stream: read as far as the message goes.
        most: bytes that the parts may have together.

    Raises:
        EOFError: the stream ends first.
        ValueError, LookupError, TypeError: it holds something else.
    """
    line = stream.readline(MAX_LINE)
    if not line:
        raise EOFError("no message follows")
    head: dict[str, Any] = json.loads(line)
    lengths: list[int] = head.pop("lengths")
    if min(lengths, default=0) < 0 or sum(lengths) > most:
        raise ValueError(f"a message of {sum(lengths)} bytes was announced, at most {most} are taken")
    parts = [stream.read(length) for length in lengths]
    if [len(part) for part in parts] != lengths:
        raise EOFError("the message ends too early")
    return head, parts
