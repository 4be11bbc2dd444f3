"""Damaged copies of good input, drawn from a seed: what a careless sender, a broken disk or an attacker may hand in."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

NASTY = (
    b"\x00",
    b"\xff" * 8,
    b"../" * 20,
    b"\r",
    b'"',
    b"{",
    b"[" * 2000,
    b"=1+1",
    b"-1",
    b"1e999",
    b"NaN",
    b"\xe2\x80\xae",
)


def damaged(originals: Sequence[bytes], *, seed: int, count: int) -> Iterator[bytes]:
    """`count` inputs, each one original with one to four wounds."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 4)):
            chance.choice(WOUNDS)(data, chance)
        yield bytes(data)


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _drop(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) + 1)
    del data[start : start + chance.randint(1, 64)]


def _insert(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) + 1)
    data[start:start] = chance.choice(NASTY)


def _overwrite(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) + 1)
    data[start : start + 8] = chance.randbytes(8)


def _repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) + 1)
    data[start:start] = data[start : start + chance.randint(1, 256)] * chance.randint(1, 20)


WOUNDS: tuple[Callable[[bytearray, random.Random], None], ...] = (_flip, _cut, _drop, _insert, _overwrite, _repeat)
