"""How the worker and its guarded child talk: one line of JSON, then the bytes it announces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def pack(head: Mapping[str, Any], *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """Return what to write: the head with the lengths of the parts, then the parts."""
    line = json.dumps({**head, "lengths": [len(part) for part in parts]}).encode() + b"\n"
    return [line, *parts]


def unpack(data: bytes) -> tuple[dict[str, Any], list[memoryview]]:
    """Return head and parts of what `pack` made, without copying the parts."""
    end = data.index(b"\n") + 1
    head: dict[str, Any] = json.loads(data[:end])
    return head, cut(memoryview(data)[end:], head.pop("lengths"))


def cut(data: memoryview, lengths: Sequence[int]) -> list[memoryview]:
    """Return the pieces of these lengths from the start of the data."""
    pieces, place = [], 0
    for length in lengths:
        pieces.append(data[place : place + length])
        place += length
    return pieces
