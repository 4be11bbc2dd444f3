"""Bars with intervals and marks as SVG text, to stand inside a page. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, LABELS, NUMBERS, ROW = 720, 210, 60, 22


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row: a value, its interval, and marks by name such as floor and ceiling."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    marks: Mapping[str, float] = field(default_factory=dict)


def bars(rows: Sequence[Bar], *, unit: str = "") -> str:
    """Draw rows below each other on one scale that begins at 0 or below the least value.

    Args:
        rows: at least one.
        unit: what the scale counts, below it.
    """
    ends = [number for row in rows for number in (row.value, *(row.interval or ()), *row.marks.values())]
    low, high = min(0.0, *ends), max(1e-9, *ends)
    scale = (WIDTH - LABELS - NUMBERS) / (high - low)

    def x(value: float) -> float:
        return float(round(LABELS + (value - low) * scale, 1))

    parts = [_row(row, index, x) for index, row in enumerate(rows)]
    bottom = len(rows) * ROW + 4
    parts.append(f'<line class="axis" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{bottom}"/>')
    parts.append(f'<text class="unit" x="{LABELS}" y="{bottom + 12}">{escape(unit)}</text>')
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 18}" role="img">{body}</svg>'


def _row(row: Bar, index: int, x: Callable[[float], float]) -> str:
    middle = index * ROW + ROW / 2 + 2
    left, right = sorted((x(0), x(row.value)))
    parts = [
        f'<text class="label" x="{LABELS - 8}" y="{middle + 4}">{escape(row.label)}</text>',
        f'<rect class="bar" x="{left}" y="{middle - 6}" width="{max(right - left, 0.5):.1f}" height="12"/>',
    ]
    for name, value in row.marks.items():
        parts.append(
            f'<line class="mark" x1="{x(value)}" x2="{x(value)}" y1="{middle - 9}" y2="{middle + 9}">'
            f"<title>{escape(name)} {value:.3f}</title></line>"
        )
    if row.interval:
        ends = x(row.interval[0]), x(row.interval[1])
        parts.append(f'<line class="interval" x1="{ends[0]}" x2="{ends[1]}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<text class="number" x="{WIDTH - NUMBERS + 8}" y="{middle + 4}">{row.value:.3f}</text>')
    return "".join(parts)
