"""Output names come from a template; none collides and none leaves its directory."""

from __future__ import annotations

import pytest

from orchestrator.errors import ConflictError, UsageError
from orchestrator.planning.naming import NameFacts, output_names


def facts(custom_id: str = "a", index: int = 0, identity: str = "ada+bruno") -> NameFacts:
    return NameFacts(custom_id=custom_id, index=index, identity=identity, seed=7, layout="group_2")


def test_a_template_says_all_it_may() -> None:
    template = "{identity}/{layout}_{index:04}_{custom_id}_{seed}.{ext}"

    assert output_names(template, [facts(index=3)]) == ["ada+bruno/group_2_0003_a_7.png"]


@pytest.mark.parametrize("second", ["b", "B"])
def test_two_outputs_of_one_name_are_a_conflict(second: str) -> None:
    with pytest.raises(ConflictError, match="same name"):
        output_names("{seed}.{ext}", [facts("a"), facts("b")])
    with pytest.raises(ConflictError) as caught:
        output_names("{custom_id}.{ext}", [facts("b"), facts("c"), facts(second)])
    assert caught.value.code == "name_collision"


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
