"""Numbers as people read them: one way to write a duration, a size, a likeness, for pages, sheets and commands."""

from __future__ import annotations

from datetime import datetime


def duration(seconds: float | None) -> str:
    """Return a time as exact as its length deserves: 4.2 s, 75 s, 14 min, 3 h 5 min, 2 days 4 h."""
    if seconds is None:
        return "–"
    if round(seconds, 1) < 10:
        return f"{f'{seconds:.1f}'.removesuffix('.0')} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def ago(then: datetime, now: datetime) -> str:
    """Return how long ago something was."""
    seconds = max(0.0, (now - then).total_seconds())
    return "just now" if seconds < 1 else f"{seconds:.0f} s ago" if seconds < 10 else f"{duration(seconds)} ago"


def cosine(value: float | None) -> str:
    """Return a similarity with two digits and a true minus sign."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def number(value: int) -> str:
    """Return a whole number in groups of three, with narrow spaces that do not break."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(count: int) -> str:
    """Return a number of bytes as people say it."""
    left = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if left < 1000:
            return f"{left:.0f} {unit}" if left >= 10 or unit == "B" else f"{left:.1f} {unit}"
        left /= 1000
    return f"{left:.1f} TB"


def capitalize_first(sentence: str) -> str:
    """Return a sentence with a capital, its other letters as they are."""
    return sentence[:1].upper() + sentence[1:]
