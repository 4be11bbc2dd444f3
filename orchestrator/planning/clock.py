"""When a schedule runs: a cron line by the clock of a place, and what becomes of times that were missed. Pure.

Daylight saving is Debian's cron's way (cronsim): a run at 02:30 on the night that has none comes at 03:00 summer time,
on the night that has two it comes once. Lines with `*` in minutes or hours go by elapsed time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import islice
from typing import Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from orchestrator.errors import UsageError

CatchUp = Literal["latest", "all", "none"]
Overlap = Literal["skip", "queue", "allow"]
CATCH_UPS: tuple[CatchUp, ...] = get_args(CatchUp)
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)
FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
SHOWN = 5
ON_TIME = timedelta(minutes=10)
"""A run that comes so late is not called missed."""
TURNED_BACK = timedelta(hours=26)
"""A place in time that lies further ahead than this was written by a clock that has been set right since."""
MOST_MISSED = 1000
"""So many missed times are told apart; the oldest beyond that are passed over."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """What is to be done now, and up to when nothing more is to be looked at.

    Attributes:
        run: times to run for, oldest first.
        missed: times that are passed over.
        until: no time up to here comes again.
    """

    run: tuple[datetime, ...] = ()
    missed: tuple[datetime, ...] = ()
    until: datetime


def check(cron: str, timezone: str, moment: datetime) -> list[datetime]:
    """Return the next five times (UTC) after a moment.

    Raises:
        UsageError: `bad_cron`, it has not five fields, cannot be read, or never comes; `bad_zone`.
    """
    found = list(islice(times(cron, timezone, moment), SHOWN))
    if not found or found[0] - moment > timedelta(days=366 * 9):
        raise UsageError(f"cron {cron!r} never comes: there is no such day", code="bad_cron")
    return found


def times(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield the times of a cron line after a moment, in UTC, without an end unless it never comes.

    Raises:
        UsageError: as `check`.
    """
    zone, line = _zone(timezone), _line(cron)
    try:
        ticks = CronSim(line, after.astimezone(zone))
    except CronSimError as error:
        why = str(error).lower()
        never = " (there is no such day)" if why == "bad day-of-month" else ""
        raise UsageError(f"cron {cron!r} cannot be read: {why}{never}; {_wanted()}", code="bad_cron") from error
    for tick in ticks:
        moment = tick.astimezone(UTC)
        if moment > after:  # in an hour that comes twice, the first of the two may be behind us
            yield moment


def due(
    cron: str,
    timezone: str,
    *,
    after: datetime,
    moment: datetime,
    catch_up: CatchUp,
    done: Collection[datetime] = (),
) -> Due:
    """Say which times since `after` are to be run for now.

    A clock that was set back runs nothing twice: `after` lies ahead, and nothing is due until it is passed. One that
    lies absurdly far ahead was written by a wrong clock, and counts from now; what was dealt with meanwhile is `done`.
    """
    if after > moment + TURNED_BACK:
        return Due(until=moment)
    found: list[datetime] = []
    for tick in times(cron, timezone, max(after, moment - timedelta(days=366))):
        if tick > moment:
            break
        if tick not in done:
            found = [*found[-MOST_MISSED + 1 :], tick]
    fresh = [tick for tick in found if moment - tick <= ON_TIME]
    run = {"all": found, "latest": found[-1:], "none": fresh[-1:]}[catch_up]
    return Due(run=tuple(run), missed=tuple(t for t in found if t not in run), until=max(after, moment))


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, LookupError) as error:
        near = get_close_matches(timezone, sorted(available_timezones()), 1, 0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"there is no zone {timezone[:60]!r}; wanted one such as Europe/Berlin{hint}", code="bad_zone"
        ) from error


def _line(cron: str) -> str:
    line = " ".join(cron.split())
    if line.startswith("@"):
        if line.lower() not in WORDS:
            raise UsageError(f"there is no cron word {line[:40]!r}; there is {', '.join(WORDS)}", code="bad_cron")
        return WORDS[line.lower()]
    given = line.split(" ") if line else []
    if len(given) != len(FIELDS):
        more = "; a field of seconds or of years, as Quartz and Spring have, is not taken" if len(given) > 5 else ""
        raise UsageError(f"cron {cron[:80]!r} has {len(given)} fields; {_wanted()}{more}", code="bad_cron")
    return line


def _wanted() -> str:
    return f"wanted are five: {', '.join(FIELDS)}, such as '0 2 * * *' for every night at two"
