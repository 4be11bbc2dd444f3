"""Download names are safe in a header, whatever people call their files."""

from __future__ import annotations

from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.storage.links import content_disposition


def test_a_plain_name_stays_readable() -> None:
    assert content_disposition("portrait 1.png").startswith('attachment; filename="portrait 1.png"; filename*=')
    assert content_disposition(None) == "attachment"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_survives_and_none_breaks_out_of_the_header(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert unquote(header.partition("filename*=UTF-8''")[2]) == name
