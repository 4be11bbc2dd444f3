"""Keys are built one way, and nothing else passes as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.storage.keys import MAX_KEY_LENGTH, check_key, check_prefix, content_key, named_sha256

SHA256 = "ab" + "0" * 62


def test_a_content_key_names_owner_and_content() -> None:
    assert content_key("local", SHA256, ".png") == f"o/local/ab/{SHA256}.png"
    assert content_key("local", SHA256, "") == f"o/local/ab/{SHA256}"
    assert content_key("local", SHA256, ".tar.gz") == f"o/local/ab/{SHA256}.tar.gz"


@pytest.mark.parametrize(
    ("owner", "sha256", "suffix"),
    [
        ("", SHA256, ".png"),
        ("..", SHA256, ".png"),
        ("a/b", SHA256, ".png"),
        ("Ärger", SHA256, ".png"),
        ("local", SHA256.upper(), ".png"),
        ("local", SHA256[:-1], ".png"),
        ("local", SHA256, "png"),
        ("local", SHA256, "./../x"),
    ],
)
def test_what_makes_no_content_key_is_refused(owner: str, sha256: str, suffix: str) -> None:
    with pytest.raises(UsageError, match=r"wanted|do not make a key"):
        content_key(owner, sha256, suffix)


def test_a_key_promises_its_content_only_by_a_whole_hash() -> None:
    assert named_sha256(f"o/local/ab/{SHA256}.png") == SHA256
    assert named_sha256(SHA256) == SHA256
    assert named_sha256(f"{SHA256}/thumbnail.png") is None
    assert named_sha256(f"o/{SHA256}0.png") is None
    assert named_sha256("probe/x") is None


@given(st.text())
def test_an_allowed_key_is_a_plain_relative_path(key: str) -> None:
    try:
        check_key(key)
    except UsageError:
        return
    assert key.isascii()
    assert key.isprintable()
    assert 0 < len(key) <= MAX_KEY_LENGTH
    assert all(part and not part.startswith(".") for part in key.split("/"))


@given(st.from_regex(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,20}(/[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,20}){0,4}", fullmatch=True))
def test_every_beginning_of_a_key_is_a_prefix(key: str) -> None:
    assert check_key(key) == key
    for end in range(len(key) + 1):
        assert check_prefix(key[:end]) == key[:end]


@pytest.mark.parametrize("prefix", ["/", "../", "a//", ".hidden", "a/../"])
def test_a_prefix_of_no_key_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError):
        check_prefix(prefix)


def test_a_key_of_the_greatest_length_passes_and_one_more_does_not() -> None:
    longest = "/".join(["x" * 127] * 4)
    assert len(longest) == MAX_KEY_LENGTH - 1
    check_key(longest + "x")
    with pytest.raises(UsageError, match="513"):
        check_key(longest + "xx")
