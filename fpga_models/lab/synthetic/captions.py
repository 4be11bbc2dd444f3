"""The small English that prompts of the mini world are written in: framing, clothes, place, light, expression.

It never describes who a person is. The same grammar writes training captions; `VOCABULARY` is every word it knows.
"""

from collections.abc import Sequence

import numpy as np

from fpga_models.lab.synthetic import scene as world

COUNTS = {1: "a person", 2: "two people", 3: "three people", 4: "four people"}
LIGHT_PHRASES = {
    "neutral": ("",),
    "warm": ("warm light",),
    "cool": ("cool light",),
    "evening": ("evening light", "evening"),
    "bright": ("bright light",),
}
FRAMINGS = {
    "portrait": ("portrait of", "close-up portrait of", "a portrait of", "close-up of"),
    "half_body": ("half body portrait of", "half body photo of"),
    "full_body": ("full body photo of", "full body portrait of"),
    "group": ("group photo of", "photo of", "portrait of", ""),
}
_EXTRA_WORDS = "and with the on in front of wearing side by standing rows left to right from picture people person"


def describe(
    rng: np.random.Generator,
    kind: str,
    clothes: Sequence[tuple[str, str]],
    background: str,
    light: str,
    expression: str | None,
    rows: int = 1,
    waving: bool = False,
) -> str:
    """Write a caption, dropping some of what could be said, as people do.

    Args:
        rng: decides wording and omissions.
        kind: one of scene.KINDS.
        clothes: (colour, garment) of each person from left to right.
        background: one of PLAIN_BACKGROUNDS or PLACES.
        light: one of LIGHTS.
        expression: shared expression, or None to say nothing.
        rows: 2 when people stand in two rows.
        waving: whether a single person waves.
    """
    group = kind.startswith("group_")
    parts = [_subject(rng, kind, group, clothes, expression, rows, waving)]
    if rng.random() < 0.92:
        parts.append(f"{background} background")
    light_words = str(rng.choice(LIGHT_PHRASES[light]))
    if light_words:
        parts.append(light_words)
    return ", ".join(parts)


def _subject(
    rng: np.random.Generator,
    kind: str,
    group: bool,
    clothes: Sequence[tuple[str, str]],
    expression: str | None,
    rows: int,
    waving: bool,
) -> str:
    framing = str(rng.choice(FRAMINGS["group" if group else kind]))
    who = COUNTS[len(clothes)]
    if expression and rng.random() < 0.9:
        who = f"a {expression} person" if not group else f"{who.split()[0]} {expression} people"
    words = [framing, who] if framing else [who]
    if waving and rng.random() < 0.8:
        words.append("waving")
    if group and rows == 2:
        words.append("in two rows")
    elif group and rng.random() < 0.6:
        words.append("side by side")
    if rng.random() < 0.92:
        words.append(_clothes(rng, clothes))
    return " ".join(words)


def _clothes(rng: np.random.Generator, clothes: Sequence[tuple[str, str]]) -> str:
    garments = rng.random() < 0.75 or len(clothes) == 1
    named = [f"{_article(colour)} {colour} {garment}" if garments else colour for colour, garment in clothes]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    verb = "in" if garments and rng.random() < 0.6 else "wearing"
    return f"{verb} {listed}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def words(text: str) -> list[str]:
    """Split a prompt as the vocabulary does: lower-case words (hyphens kept) and commas."""
    return text.lower().replace(",", " , ").replace(".", " ").split()


def _vocabulary() -> tuple[str, ...]:
    phrases = [_EXTRA_WORDS, "a an , background waving standing person", *COUNTS.values()]
    phrases += [phrase for options in (*LIGHT_PHRASES.values(), *FRAMINGS.values()) for phrase in options]
    phrases += [*world.CLOTHES, *world.GARMENTS, *world.PLAIN_BACKGROUNDS, *world.PLACES, *world.EXPRESSIONS, "light"]
    return tuple(sorted({word for phrase in phrases for word in words(phrase)}))


VOCABULARY: tuple[str, ...] = _vocabulary()
