"""Numbers as people read them."""

import pytest

from orchestrator.api.pages.rendering import templates
from orchestrator.results.reports import environment
from orchestrator.wording import duration


@pytest.mark.parametrize(
    ("seconds", "read"),
    [
        (None, "–"),
        (0.04, "0 s"),
        (4.2, "4.2 s"),
        (9.96, "10 s"),
        (75, "75 s"),
        (3700, "62 min"),
        (11_100, "3 h 5 min"),
        (4e5, "4 days 15 h"),
    ],
)
def test_a_duration_is_as_exact_as_its_length_deserves(seconds: float | None, read: str) -> None:
    assert duration(seconds) == read


def test_pages_and_sheets_write_a_duration_alike() -> None:
    assert templates().filters["duration"] is environment().filters["duration"] is duration
