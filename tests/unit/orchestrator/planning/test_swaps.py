from __future__ import annotations

import pytest

from orchestrator.contracts.photos import Rule, SwapRule
from orchestrator.errors import ManifestError, UsageError
from orchestrator.planning.swaps import paired, read_map, rules_for


def test_a_map_is_read_from_csv_and_jsonl_alike() -> None:
    as_csv = b"photo,face,from,to\n1983/*.jpg,,anna,bruno\na.png,2,,clara\n"
    as_lines = b'{"photo": "1983/*.jpg", "from": "anna", "to": "bruno"}\n{"photo": "a.png", "face": 2, "to": "clara"}\n'

    rules = read_map(as_csv, "csv")

    assert rules == read_map(as_lines, "jsonl")
    assert rules == [Rule(photo="1983/*.jpg", of="anna", to="bruno"), Rule(photo="a.png", face=2, to="clara")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"photo,to\nx.jpg,\n", "who the face becomes"),
        (b"photo,face,to\nx.jpg,left,anna\n", "counted from the left"),
        (b"photo,face,from,to\nx.jpg,1,bruno,anna\n", "not both"),
        (b"picture,to\nx.jpg,anna\n", "no column 'picture'"),
        (b"photo,to\n", "holds no row"),
    ],
)
def test_a_wrong_map_is_refused_with_its_row(data: bytes, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        read_map(data, "csv")


def test_the_first_rule_of_a_person_counts_and_patterns_reach_into_folders() -> None:
    rules = read_map(b"photo,from,to\na/x.jpg,anna,bruno\n*,anna,clara\n*,emil,clara\n", "csv")

    assert rules_for("a/x.jpg", rules) == [
        SwapRule(of="anna", to="bruno"),
        SwapRule(of="emil", to="clara"),
    ]
    assert rules_for("b.jpg", rules)[0].to == "clara"


def test_product_makes_a_picture_for_each_person_and_zip_one_for_each_photo() -> None:
    people = [("idn_1", "anna"), ("idn_2", "bruno")]

    assert [made.path for made in paired("a/x.jpg", 5, people, "product", None)] == ["a/x.anna.jpg", "a/x.bruno.jpg"]
    assert [made.path for made in paired("a/x.jpg", 0, people[:1], "product", None)] == ["a/x.jpg"]
    [made] = paired("a/y.jpg", 1, people, "zip", "idn_9")
    assert (made.path, made.rules) == ("a/y.jpg", (SwapRule(of="idn_9", to="idn_2"),))
    with pytest.raises(UsageError, match="more photos"):
        paired("a/z.jpg", 2, people, "zip", None)
