"""Cron lines by the clock of a place: what is taken, what is refused, and a simulated year with outages and jumps."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from orchestrator.errors import UsageError
from orchestrator.planning import clock
from orchestrator.planning.clock import CatchUp

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 0 2 * * *", "has 6 fields.*five.*seconds"),
        ("0 0 2 * * ? 2027", "has 7 fields"),
        ("0 2 * *", "has 4 fields"),
        ("", "has 0 fields"),
        ("0 0 30 2 *", "no such day"),
        ("0 0 31 4,6 *", "no such day"),
        ("61 * * * *", "cannot be read"),
        ("@nightly", "no cron word"),
        ("@every 1s", "no cron word"),
    ],
)
def test_a_line_that_is_not_five_fields_or_never_comes_is_refused(cron: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        clock.check(cron, "UTC", NEW_YEAR)
    assert refused.value.code == "bad_cron"


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "Europe/"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(UsageError) as refused:
        clock.check("0 2 * * *", zone, NEW_YEAR)
    assert refused.value.code == "bad_zone"


def test_the_next_five_times_are_those_of_the_place() -> None:
    assert clock.check("0 2 * * *", "Europe/Berlin", at("2027-03-26T12:00"))[:3] == [
        at("2027-03-27T01:00"),
        at("2027-03-28T01:00"),  # there is no 02:00 that night: the clock goes from 02:00 to 03:00
        at("2027-03-29T00:00"),
    ]
    assert len(clock.check("@daily", "UTC", NEW_YEAR)) == 5
    assert clock.check("0 0 29 2 *", "UTC", NEW_YEAR)[0] == at("2028-02-29T00:00")


def test_a_night_without_half_past_two_runs_once_and_one_with_two_runs_once() -> None:
    spring = list(islice(clock.times("30 2 * * *", "Europe/Berlin", at("2027-03-27T12:00")), 2))
    autumn = list(islice(clock.times("30 2 * * *", "Europe/Berlin", at("2027-10-30T12:00")), 2))

    assert spring == [at("2027-03-28T01:00"), at("2027-03-29T00:30")]
    assert [moment.date().day for moment in autumn] == [31, 1]


@pytest.mark.parametrize(("catch_up", "run", "missed"), [("latest", 1, 6), ("all", 7, 0), ("none", 0, 7)])
def test_after_a_week_away_the_rule_says_which_nights_are_run(catch_up: CatchUp, run: int, missed: int) -> None:
    found = clock.due(
        "0 2 * * *", "UTC", after=at("2027-05-01T03:00"), moment=at("2027-05-08T09:00"), catch_up=catch_up
    )

    assert (len(found.run), len(found.missed)) == (run, missed)
    assert found.until == at("2027-05-08T09:00")
    if run:
        assert found.run[-1] == at("2027-05-08T02:00")


def test_a_time_that_has_just_come_is_not_missed_whatever_the_rule() -> None:
    found = clock.due("0 2 * * *", "UTC", after=at("2027-05-01T03:00"), moment=at("2027-05-02T02:01"), catch_up="none")

    assert (found.run, found.missed) == ((at("2027-05-02T02:00"),), ())


def test_a_clock_that_is_set_back_runs_nothing_twice_and_an_absurd_one_counts_from_now() -> None:
    hour = clock.due("0 * * * *", "UTC", after=at("2027-05-01T12:00"), moment=at("2027-05-01T11:00"), catch_up="all")
    year = clock.due("0 * * * *", "UTC", after=at("2028-05-01T12:00"), moment=at("2027-05-01T11:00"), catch_up="all")

    assert (hour.run, hour.until) == ((), at("2027-05-01T12:00"))
    assert (year.run, year.until) == ((), at("2027-05-01T11:00"))


OUTAGES = (
    ("2027-02-10T20:00", "2027-02-13T09:00"),
    ("2027-03-27T22:00", "2027-03-28T04:00"),
    ("2027-08-01T00:00", "2027-08-08T00:00"),
)
"""The system was down: three nights, the night that summer time began, a week."""
JUMPS = (
    ("2027-06-01T12:00", timedelta(days=2)),
    ("2027-06-01T15:00", timedelta()),
    ("2027-10-31T00:30", -timedelta(minutes=40)),
    ("2027-10-31T06:00", timedelta()),
)
"""From then on the clock showed so much more than the truth."""
YEAR = """
zone              rule    ran  missed
Europe/Berlin     latest  356       9
Europe/Berlin     all     365       0
Europe/Berlin     none    352      13
America/New_York  latest  356       9
America/New_York  all     365       0
America/New_York  none    353      12
"""


@pytest.mark.slow
def test_a_simulated_year_over_two_zones_with_outages_and_jumps_of_the_clock() -> None:
    lines = ["", f"{'zone':<16}  {'rule':<6}  {'ran':>3}  {'missed':>6}"]
    for zone in ("Europe/Berlin", "America/New_York"):
        for rule in clock.CATCH_UPS:
            ran, missed = year_of(zone, rule)
            assert max(ran.values()) == 1, "no night is run twice"
            assert not set(ran) & set(missed), "what was run was not missed"
            lines.append(f"{zone:<16}  {rule:<6}  {len(ran):>3}  {len(missed):>6}")
    sys.stdout.write("\n".join(lines))
    assert "\n".join([*lines, ""]) == YEAR


def year_of(zone: str, rule: CatchUp) -> tuple[Counter[datetime], Counter[datetime]]:
    """Look every ten minutes of a year, as a sweeper does where it runs, and count what was run and missed."""
    ran: Counter[datetime] = Counter()
    missed: Counter[datetime] = Counter()
    looked, truth = NEW_YEAR, NEW_YEAR
    while truth < NEW_YEAR + timedelta(days=365):
        truth += timedelta(minutes=10)
        if any(at(begin) <= truth < at(end) for begin, end in OUTAGES):
            continue
        shown = truth + next((by for since, by in reversed(JUMPS) if truth >= at(since)), timedelta())
        found = clock.due("30 2 * * *", zone, after=looked, moment=shown, catch_up=rule, done={*ran, *missed})
        ran.update(found.run)
        missed.update(found.missed)
        looked = found.until
    return ran, missed
