"""Reading manifests: good rows, numbered errors, and any bytes at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ManifestError, NotFoundError, UsageError
from orchestrator.planning import manifest
from orchestrator.planning.manifest import Format, read_manifest, read_manifest_file
from orchestrator.planning.rows import COLUMNS, ManifestRow, Person


def jsonl(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def row(**fields: object) -> dict[str, object]:
    return {"custom_id": "a", "people": ["ada"], **fields}


def only_error(data: bytes, form: Format = "jsonl") -> tuple[int, str | None, str]:
    found = read_manifest(data, form)
    assert len(found.errors) == 1, found.errors
    assert found.rows == ()
    error = found.errors[0]
    assert error.message
    return error.row, error.field, error.code


def test_jsonl_and_csv_of_the_same_rows_are_equal() -> None:
    lines = jsonl(
        row(prompt="in a red coat", size="128x192", seed=7, steps=12, guidance=2.5, x_shot="B4"),
        {"custom_id": "b", "people": [{"identity": "ada", "slot": "right"}, {"identity": "bruno"}], "x_shot": ""},
    )
    table = (
        "custom_id,people,prompt,size,seed,steps,guidance,x_shot\r\n"
        "a,ada,in a red coat,128x192,7,12,2.5,B4\r\n"
        "b,ada@right;bruno,,,,,,\r\n"
    )

    by_line, by_cell = read_manifest(lines, "jsonl"), read_manifest(table.encode(), "csv")

    assert by_line.errors == by_cell.errors == ()
    assert [r.model_dump(exclude={"row"}) for r in by_line.rows] == [
        r.model_dump(exclude={"row"}) for r in by_cell.rows
    ]
    assert [r.row for r in by_line.rows] == [1, 2]
    assert [r.row for r in by_cell.rows] == [2, 3]
    assert by_cell.rows[1].people == (Person(identity="ada", slot="right"), Person(identity="bruno"))


def test_a_byte_order_mark_and_blank_lines_are_accepted() -> None:
    found = read_manifest(b"\xef\xbb\xbf\n" + jsonl(row()) + b"\n\n", "jsonl")

    assert [r.row for r in found.rows] == [2]
    assert found.errors == ()


def test_csv_people_may_be_json_with_coordinates() -> None:
    people = json.dumps([{"identity": "ada", "box": [10, 10, 60, 60]}]).replace('"', '""')

    found = read_manifest(f'custom_id,people\na,"{people}"\n'.encode(), "csv")

    assert found.rows[0].people[0].box == (10, 10, 60, 60)


def test_own_columns_pass_through_untouched() -> None:
    own = {"x_text": " Größe ", "x_number": 1.0, "x_flag": True, "x_none": None}

    found = read_manifest(jsonl(row(**own)), "jsonl")

    assert found.rows[0].extra == own
    assert type(found.rows[0].extra["x_number"]) is float
    assert found.rows[0].extra["x_flag"] is True


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"promt": "x"}, "promt", "unknown_column"),
        ({"row": 3}, "row", "unknown_column"),
        ({"extra": {}}, "extra", "unknown_column"),
        ({"custom_id": "../up"}, "custom_id", "bad_name"),
        ({"custom_id": ""}, "custom_id", "bad_name"),
        ({"custom_id": "a" * 121}, "custom_id", "out_of_range"),
        ({"custom_id": 5}, "custom_id", "bad_value"),
        ({"people": []}, "people", "out_of_range"),
        ({"people": [{"slot": "left"}]}, "people[0].identity", "missing_field"),
        ({"people": [{"identity": "ada", "place": 1}]}, "people[0].place", "unknown_field"),
        ({"people": [{"identity": "ada", "box": [1, 2, 3]}]}, "people[0].box[3]", "missing_field"),
        ({"people": [{"identity": "ada", "kps5": [[1, 2]]}]}, "people[0].kps5", "out_of_range"),
        ({"people": [{"identity": "ada", "slot": "left", "box": [1, 2, 30, 40]}]}, "people[0]", "two_places"),
        ({"size": "big"}, "size", "bad_size"),
        ({"seed": -1}, "seed", "out_of_range"),
        ({"seed": 2**32}, "seed", "out_of_range"),
        ({"seed": True}, "seed", "bad_value"),
        ({"seed": 1.5}, "seed", "bad_value"),
        ({"count": 0}, "count", "out_of_range"),
        ({"guidance": "much"}, "guidance", "bad_value"),
        ({"control": "magic"}, "control", "bad_value"),
        ({"small_faces": "enlarge"}, "small_faces", "bad_value"),
        ({"prompt": "a\x00b"}, "prompt", "bad_text"),
        ({"prompt": "a" * 2001}, "prompt", "out_of_range"),
        ({"prompt": "\ud800"}, "prompt", "bad_value"),
        ({"x_deep": {"a": 1}}, "x_deep", "bad_value"),
        ({"x_bad": "\ud800"}, "x_bad", "bad_text"),
        ({"x_" + "\ud800": 1}, "x_\ufffd\ufffd\ufffd", "bad_value"),
        ({"x_big": 10**400}, "x_big", "out_of_range"),
    ],
)
def test_a_wrong_field_is_named_with_its_row(fields: dict[str, object], field: str, code: str) -> None:
    assert only_error(jsonl(row(**fields))) == (1, field, code)


def test_every_row_is_checked_and_every_fault_of_a_row_listed() -> None:
    found = read_manifest(jsonl(row(seed=-1, count=0), row(custom_id="b"), row(colour=1), row(steps="x")), "jsonl")

    assert [r.row for r in found.rows] == [2]
    assert [(e.row, e.field) for e in found.errors] == [(1, "seed"), (1, "count"), (3, "colour"), (4, "steps")]


def test_an_unknown_column_gets_a_hint() -> None:
    found = read_manifest(jsonl(row(negative_promt="x")), "jsonl")

    assert "did you mean 'negative_prompt'?" in found.errors[0].message


@pytest.mark.parametrize(
    ("data", "form", "number", "code"),
    [
        (b"", "jsonl", 1, "manifest_empty"),
        (b"custom_id,people\n", "csv", 1, "manifest_empty"),
        (b'{"custom_id": "a"', "jsonl", 1, "not_json"),
        (b"[1, 2]", "jsonl", 1, "not_an_object"),
        (b'{"custom_id": "a", "custom_id": "b", "people": "ada"}', "jsonl", 1, "not_json"),
        (b'{"custom_id": "a", "people": "ada", "guidance": NaN}', "jsonl", 1, "not_json"),
        (b'{"custom_id": "a", "people": "ada", "guidance": 1e999}', "jsonl", 1, "bad_value"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "jsonl", 1, "not_json"),
        (b"[" * 100_000, "jsonl", 1, "not_json"),
        (b" " * 140_000 + b"{}", "jsonl", 1, "row_too_long"),
        (b"\n\xff\xfe{}", "jsonl", 2, "not_utf8"),
        (b"\xff\xfea", "jsonl", 1, "not_utf8"),
        (b"custom_id,people\na,b\xffc\n", "csv", 2, "not_utf8"),
        (b"custom_id|people\na|ada\n", "csv", 1, "not_csv"),
        (b"custom_id,people,\na,ada,what\n", "csv", 2, "unknown_column"),
        (b"custom_id,people,people\na,ada,ada\n", "csv", 1, "duplicate_column"),
        (b"custom_id\na\n", "csv", 1, "missing_field"),
        (b"custom_id,people,size x\na,ada,\n", "csv", 1, "unknown_column"),
        (b"custom_id,people\na,ada,extra\n", "csv", 2, "not_csv"),
        (b'custom_id,people\na,"ada\n', "csv", 2, "not_csv"),
        (b"custom_id,people\na," + b"b" * 200_000 + b"\n", "csv", 2, "not_csv"),
        (b'custom_id,people\na,"[{"\n', "csv", 2, "not_json"),
    ],
)
def test_a_file_that_is_no_manifest_gets_one_numbered_error(data: bytes, form: Format, number: int, code: str) -> None:
    found_row, _, found_code = only_error(data, form)

    assert (found_row, found_code) == (number, code)


def test_too_many_rows_or_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_ROWS", 2)
    with pytest.raises(ManifestError, match="at most 2 rows"):
        read_manifest(b"{}\n{}\n{}\n", "jsonl")

    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    with pytest.raises(ManifestError) as caught:
        read_manifest(b"x" * 11, "csv")
    assert caught.value.code == "manifest_too_large"


def test_a_file_is_read_by_its_ending(tmp_path: Path) -> None:
    good = tmp_path / "tonight.JSONL"
    good.write_bytes(jsonl(row()))

    assert read_manifest_file(good).rows[0].custom_id == "a"
    with pytest.raises(NotFoundError):
        read_manifest_file(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="jsonl"):
        read_manifest_file(tmp_path / "tonight.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        read_manifest_file(tmp_path / "folder.csv")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def accepted_rows_can_be_stored(rows: tuple[ManifestRow, ...]) -> None:
    for found in rows:
        json.dumps(found.model_dump(), allow_nan=False, ensure_ascii=False).encode()


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), form=st.sampled_from(["jsonl", "csv"]))
def test_any_bytes_give_rows_or_errors(data: bytes, form: Format) -> None:
    found = read_manifest(data, form)

    assert found.rows or found.errors
    json.dumps([error.as_json() for error in found.errors], ensure_ascii=False).encode()


@settings(max_examples=150, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from([*COLUMNS, "x_a", "row", "extra"]) | st.text(max_size=5), json_values, max_size=5
    )
)
def test_any_json_object_gives_a_row_or_errors(fields: dict[str, object]) -> None:
    found = read_manifest(json.dumps(row(**fields)).encode(), "jsonl")

    assert bool(found.rows) != bool(found.errors)
    accepted_rows_can_be_stored(found.rows)
    json.dumps([error.as_json() for error in found.errors], ensure_ascii=False).encode()


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(st.text(max_size=12), min_size=3, max_size=6))
def test_any_cells_give_rows_or_errors(cells: list[str]) -> None:
    text = "custom_id,people,prompt\n" + ",".join(cells) + "\n"

    found = read_manifest(text.encode("utf-8", "surrogatepass"), "csv")

    assert found.rows or found.errors
    accepted_rows_can_be_stored(found.rows)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"custom_id;people\na;ada\n", "separated by ';'"),
        (b"sep=;\r\ncustom_id;people\r\na;ada\r\n", "separated by ';'"),
        (b"custom_id\tpeople\na\tada\n", "separated by"),
        (b"Custom_ID,People\na,ada\n", "capitals"),
        (b"custom_id,people,,\na,ada,,\n", "without a name"),
        (b",custom_id,people\n0,a,ada\n", "without a name"),
        ("custom_id,people\na,ada\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_what_spreadsheets_write_is_read_with_a_note(data: bytes, note: str) -> None:
    read = read_manifest(data, "csv")

    assert read.errors == ()
    assert [row.custom_id for row in read.rows] == ["a"]
    assert any(note in one for one in read.notes)
