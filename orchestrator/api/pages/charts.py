"""Curves as data for SVG: points scaled into a box, ticks at round numbers, and the same numbers as a table.

Knows nothing of what the numbers mean; a template draws it, so that no script has to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 76.0, 12.0, 10.0, 26.0
"""Room around the plot, in units of the view box."""
MOST_POINTS = 240
"""A longer curve is drawn by the mean of neighbours: it is no wider on the screen."""
TABLE_ROWS = 24
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: what SVG's `polyline` takes, the points drawn, as (step, value), and its last value."""

    name: str
    points: str
    values: tuple[tuple[float, float], ...]
    last: float


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over the same steps; `table` has a row for some of them: step, then a value for each curve or None."""

    title: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    table: tuple[tuple[float, tuple[float | None, ...]], ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM

    @property
    def summary(self) -> str:
        """Say in words what the picture shows."""
        return f"{self.title}: " + ", ".join(f"{one.name} ends at {number(one.last)}" for one in self.curves)

    @property
    def data(self) -> str:
        """Say as JSON what a script shows under the pointer: of each curve its name and (step, value) by step."""
        return json.dumps([{"name": one.name, "values": one.values} for one in self.curves])


def chart(title: str, series: Mapping[str, Points], *, log: bool = False, smooth: float = 0.0) -> Chart | None:
    """Return curves by name, or None where no series has a point that can be drawn.

    Args:
        series: (step, value) in the order of steps; values that are not finite are left out, and with `log` those that
            are not above 0.
        log: the upright axis counts powers of ten.
        smooth: what is kept of the values before, from 0 (nothing) to below 1; the average is corrected for its start.
    """
    found = {
        name: [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log)] for name, points in series.items()
    }
    found = {name: smoothed(points, smooth) for name, points in found.items() if points}
    if not found:
        return None
    xs = [x for points in found.values() for x, _ in points]
    ys = [y for points in found.values() for _, y in points]
    x_axis, y_axis = ticks(min(xs), max(xs)), powers(min(ys), max(ys)) if log else ticks(min(ys), max(ys))
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    scale = math.log10 if log else float
    y_low, y_high = scale(min(y_axis[0], min(ys))), scale(max(y_axis[-1], max(ys)))

    def x_at(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - x_low) / (x_high - x_low), 1)

    def y_at(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scale(y) - y_low) / (y_high - y_low), 1)

    drawn = {name: tuple(thinned(points)) for name, points in found.items()}
    return Chart(
        title=title,
        curves=tuple(
            Curve(
                name=name,
                points=" ".join(f"{x_at(x)},{y_at(y)}" for x, y in points),
                values=points,
                last=points[-1][1],
            )
            for name, points in drawn.items()
        ),
        x_ticks=tuple(Tick(at=x_at(x), text=number(x)) for x in x_axis if x_low <= x <= x_high),
        y_ticks=tuple(Tick(at=y_at(y), text=number(y)) for y in y_axis),
        table=_table(found),
    )


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers that reach from `low` or below to `high` or above, about `wanted` steps apart."""
    span = (high - low) or abs(high) or 1.0
    power: float = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if span / step <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]


def powers(low: float, high: float) -> list[float]:
    """Return powers of ten around values above 0, with 2 and 5 of each where there are few."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    parts = (1, 2, 5) if last - first <= 2 else (1,)
    made = [part * 10.0**power for power in range(first, last) for part in parts] + [10.0**last]
    below = max((one for one in made if one <= low), default=made[0])
    above = min((one for one in made if one >= high), default=made[-1])
    return [one for one in made if below <= one <= above] if below < above else made


def smoothed(points: Points, kept: float) -> list[tuple[float, float]]:
    """Return the exponential average of values, `kept` of it from before, as if there were nothing before the first."""
    average, weight, made = 0.0, 0.0, []
    for x, y in points:
        average, weight = kept * average + (1 - kept) * y, kept * weight + 1 - kept
        made.append((x, average / weight))
    return made


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Return at most so many points, each the mean of its neighbours, the last one as it is."""
    if len(points) <= most:
        return list(points)
    size = math.ceil((len(points) - 1) / (most - 1))
    groups = [points[start : start + size] for start in range(0, len(points) - 1, size)]
    means = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
    return [*means, points[-1]]


def number(value: float) -> str:
    """Return a number as a person reads it."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def _table(found: Mapping[str, Points]) -> tuple[tuple[float, tuple[float | None, ...]], ...]:
    by_name = {name: dict(points) for name, points in found.items()}
    steps = sorted({x for points in by_name.values() for x in points})
    every = math.ceil(len(steps) / TABLE_ROWS)
    shown = steps[::-1][::every][::-1]  # counted from the end: the newest is always there
    return tuple((step, tuple(points.get(step) for points in by_name.values())) for step in shown)
