"""Output names come from a template; none collides and none leaves its directory."""

from __future__ import annotations

import pytest

from orchestrator.errors import ConflictError, UsageError
from orchestrator.planning.naming import (
    DEFAULT_TEMPLATE,
    MAX_PART,
    NameFacts,
    distinct,
    folded,
    output_names,
    usable,
)


def facts(custom_id: str = "a", index: int = 0, identity: str = "ada+bruno") -> NameFacts:
    return NameFacts(custom_id=custom_id, index=index, identity=identity, seed=7, layout="group_2")


def test_a_template_says_all_it_may() -> None:
    template = "{identity}/{layout}_{index:04}_{custom_id}_{seed}.{ext}"

    assert output_names(template, [facts(index=3)]) == ["ada+bruno/group_2_0003_a_7.png"]


@pytest.mark.parametrize("second", ["b", "B"])
def test_two_outputs_of_one_name_are_a_conflict_of_whoever_writes_a_template(second: str) -> None:
    with pytest.raises(ConflictError, match="names that some systems take for one"):
        output_names("{seed}.{ext}", [facts("a"), facts("b")])
    with pytest.raises(ConflictError) as caught:
        output_names("x/{custom_id}/{ext}", [facts("b"), facts("c"), facts(second)])
    assert caught.value.code == "name_collision"
    assert "{index:04}" in caught.value.message


def test_by_the_default_a_name_that_is_taken_gets_a_number() -> None:
    assert output_names(DEFAULT_TEMPLATE, [facts("Cover"), facts("cover"), facts("cover.2"), facts("COVER")]) == [
        "Cover.png",
        "cover.2.png",
        "cover.2.2.png",
        "COVER.3.png",
    ]


@pytest.mark.parametrize(
    ("name", "usable_name"),
    [
        ("a/b.png", "a/b.png"),
        ("CON.png", "CON_.png"),
        ("nul", "nul_"),
        ("x/Aux.tar.gz", "x/Aux_.tar.gz"),
        ("com1 .txt", "com1_.txt"),
        ("LPT\u00b9.png", "LPT\u00b9_.png"),
        ("console.png", "console.png"),
        ("ends with a dot.", "ends with a dot._"),
        ("folder /a.png", "folder _/a.png"),
    ],
)
def test_a_name_that_some_system_does_not_keep_is_changed_a_little(name: str, usable_name: str) -> None:
    assert usable(name) == usable_name


def test_a_name_that_is_too_long_is_cut_keeps_its_ending_and_stays_one_of_its_own() -> None:
    one, other = (usable("\u00fc" * 150 + end + ".png") for end in "ab")
    assert one != other
    assert one.endswith(".png")
    assert len(one.encode()) <= MAX_PART


@pytest.mark.parametrize(
    ("one", "other"), [("a", "A"), ("e\u0301", "\u00e9"), ("a.", "a"), ("x /b", "x/b"), ("stra\u00dfe", "STRASSE")]
)
def test_names_that_some_system_takes_for_one_are_told_apart(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    first, second = distinct({0: one, 1: other}).values()
    assert folded(first) != folded(second)


@pytest.mark.parametrize(
    "template",
    [
        "{prompt}.png",
        "{custom_id.__class__}",
        "{custom_id[0]}",
        "{custom_id",
        "{}",
        "{index:999999999}",
        "{index:{seed}}",
        "{custom_id:d}",
        "../{custom_id}.png",
        "/{custom_id}.png",
        ".{custom_id}",
        "",
        "a\n{custom_id}",
    ],
)
def test_a_template_that_is_no_plain_name_is_refused(template: str) -> None:
    with pytest.raises(UsageError):
        output_names(template, [facts()])


def test_a_hostile_identity_label_cannot_leave_the_directory() -> None:
    with pytest.raises(UsageError, match="not a plain file name"):
        output_names("{identity}/{custom_id}.{ext}", [facts(identity="..")])
