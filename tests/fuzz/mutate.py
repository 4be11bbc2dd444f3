"""Damaged copies of good input, drawn from a seed: what a careless sender, a broken disk or an attacker may hand in."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
"""Inputs that once escaped, by the name of the test that tries them again."""
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


def try_all(
    originals: Sequence[bytes], count: int, read: Callable[[bytes], object], *refusals: type[Exception]
) -> None:
    """Feed what once escaped, then damaged copies, to a reader; an escape that is not one of `refusals` fails."""
    test = sys._getframe(1).f_code.co_name
    kept = [(path.name, path.read_bytes()) for path in sorted(CORPUS.glob(f"{test}/*"))]
    fresh = ((f"{number} of seed 1", data) for number, data in enumerate(damaged(originals, seed=1, count=count)))
    tried = 0
    for name, data in (*kept, *fresh):
        tried += 1
        try:
            read(data)
        except refusals:
            pass
        except Exception as error:  # whatever escapes is the finding
            raise AssertionError(f"input {name} ({len(data)} bytes) escaped: {error!r}") from error
    sys.stdout.write(f"{test}: {tried} inputs tried, 0 escapes\n")


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
