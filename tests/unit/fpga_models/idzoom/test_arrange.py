"""Decisions over a whole data set: repeats, people, sides, and why something is left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from fpga_models.idzoom.arrange import INDEX_SCHEMA, Arrangement, ArrangeOptions, arrange, index_tables
from fpga_models.idzoom.errors import EmptySplitError, NoRecordsError
from fpga_models.idzoom.facts import face_look, schema
from fpga_models.idzoom.people import People

Faces = Sequence[tuple[str | None, np.ndarray]]

SCHEMA = schema(512)


def vector(person: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng([person, 7]).standard_normal(512)
    drawn += noise * np.random.default_rng([person, seed, 8]).standard_normal(512)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def table(pictures: Sequence[tuple[str, Faces]], looks: Sequence[list[int]] | None = None) -> pa.Table:
    rows = []
    for number, (key, faces) in enumerate(pictures):
        look = looks[number] if looks else np.random.default_rng(abs(hash(key))).integers(0, 2**63, 2).tolist()
        for place, (label, embedding) in enumerate(faces):
            rows.append(
                {
                    **{"key": key, "place": place, "faces": len(faces), "label": label, "width": 128, "height": 128},
                    **{"box": [0.0, 0.0, 40.0, 50.0], "quality": 0.5, "side_px": 50.0, "share": 0.39, "stratum": 4},
                    **{"views": 1, "look": look, "face_look": face_look([e for _, e in faces])},
                    "embedding": embedding.astype(np.float16),
                }
            )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def key(number: int) -> str:
    return f"{number:016x}" + "0" * 16


def decide(pictures: Sequence[tuple[str, Faces]], **options: object) -> Arrangement:
    made = table(pictures)
    half = len(made) // 2
    while half < len(made) and made["place"][half].as_py():
        half += 1
    return arrange(lambda: [made[:half], made[half:]], ArrangeOptions(**options))  # type: ignore[arg-type]  # fields by name


def people(count: int, each: int) -> list[tuple[str, Faces]]:
    return [
        (key(person * each + i), [(f"per_{person}", vector(person, 0.3, i))])
        for person in range(count)
        for i in range(each)
    ]


def test_nobody_is_on_both_sides_and_a_person_stays_when_others_come() -> None:
    few, many = decide(people(12, 3), split=0.5), decide(people(40, 3), split=0.5)

    def sides(made: Arrangement) -> dict[str, int]:
        found: dict[str, set[int]] = {}
        for name, side in zip(np.array(made.names)[made.person], made.side, strict=True):
            found.setdefault(str(name), set()).add(int(side))
        assert all(len(s) == 1 for s in found.values())
        return {name: next(iter(s)) for name, s in found.items()}

    assert set(sides(few).values()) == {0, 1}
    assert sides(few).items() <= sides(many).items()


def test_a_picture_with_people_of_both_sides_is_left_out() -> None:
    apart = decide(people(12, 3), split=0.5)
    side = dict(zip((apart.names[i] for i in apart.person), apart.side.tolist(), strict=True))
    here = next(name for name, s in side.items() if s == 0)
    there = next(name for name, s in side.items() if s == 1)
    pair = (key(999), [(here, vector(int(here[4:]))), (there, vector(int(there[4:])))])

    together = decide([*people(12, 3), pair], split=0.5)

    assert together.summary["left_out"] == {"mixed_split": 1}
    assert together.side[-1] == -1


def test_the_same_bytes_and_pictures_that_look_alike_count_once() -> None:
    a, b = vector(1), vector(2)
    look = [5, 9]
    pictures = [(key(i), [("per_1", a)]) for i in (1, 2, 3)] + [(key(1), [("per_1", a)]), (key(4), [("per_2", b)])]
    near = [look, [0xFFFF, 0xFF], [5, 8], look, look]  # the third differs in one bit, the last shows somebody else
    made = table(pictures, near)

    found = arrange(lambda: [made], ArrangeOptions(split=1.0, min_pictures=1))

    assert found.summary["left_out"] == {"duplicate": 1, "near_duplicate": 1}
    assert found.side.tolist() == [0, 0, -1, -1, 0]
    without = arrange(lambda: [made], ArrangeOptions(split=1.0, min_pictures=1, near_duplicates=False))
    assert without.summary["left_out"] == {"duplicate": 1}


def test_a_person_with_one_picture_is_left_out_and_whoever_is_only_seen_with_them() -> None:
    pictures = [
        *people(2, 2),
        (key(50), [("per_lone", vector(50))]),
        (key(51), [("per_x", vector(51)), ("per_y", vector(52))]),
        (key(52), [("per_x", vector(51, 0.1))]),
    ]

    found = decide(pictures, split=1.0)

    assert found.summary["left_out"] == {"single_picture": 3}
    assert found.summary["splits"]["train"]["people"] == 2


def test_people_without_labels_are_found_by_their_faces_in_any_order() -> None:
    pictures = [(key(i), [(None, vector(i % 5, 0.4, i))]) for i in range(40)]

    found = decide(pictures, split=1.0, same_person=0.6)
    turned = decide(pictures[::-1], split=1.0, same_person=0.6)

    assert found.summary["splits"]["train"]["people"] == turned.summary["splits"]["train"]["people"] == 5
    groups = {tuple(np.flatnonzero(found.person == p) % 5) for p in np.unique(found.person)}
    assert all(len(set(group)) == 1 for group in groups)


def test_a_face_without_a_label_joins_the_person_who_has_one() -> None:
    pictures = [(key(1), [(None, vector(3, 0.3, 1))]), (key(2), [("per_3", vector(3, 0.3, 2))])]

    found = decide(pictures, split=1.0)

    assert {found.names[i] for i in found.person} == {"per_3"}


def test_two_labels_are_two_people_however_alike_they_are() -> None:
    people = People(same_person=0.5)
    people.assign(np.stack([vector(1), vector(1), vector(1)]), ["a", "b", None], ["1.0", "2.0", "3.0"])

    roots = people.joined()

    assert roots[0] != roots[1]


def test_who_withheld_consent_is_left_out_with_everybody_beside_them() -> None:
    pictures = [*people(3, 2), (key(90), [("per_0", vector(0)), ("per_1", vector(1))])]
    made = table(pictures)

    found = arrange(
        lambda: [made],
        ArrangeOptions(split=1.0),
        library=frozenset({"per_0", "per_1", "per_2"}),
        without_consent=frozenset({"per_0"}),
    )

    assert found.summary["left_out"] == {"no_consent": 3}
    assert found.identities == {"per_1": 2, "per_2": 2}


def test_a_side_that_would_be_empty_is_refused_with_the_reason() -> None:
    with pytest.raises(EmptySplitError, match="train side would hold nobody"):
        decide(people(1, 3), split=0.01)


def test_nothing_that_can_be_used_is_refused_with_the_reasons() -> None:
    with pytest.raises(NoRecordsError, match="2 single_picture"):
        decide(people(2, 1))
    with pytest.raises(NoRecordsError, match="No picture"):
        arrange(lambda: [SCHEMA.empty_table()], ArrangeOptions())


def test_the_index_has_a_row_for_each_face_and_says_what_was_decided() -> None:
    tables = [table(people(2, 2)), SCHEMA.empty_table(), table([(key(77), [("per_9", vector(9))])])]
    found = arrange(lambda: tables, ArrangeOptions(split=1.0))

    index = pa.concat_tables(index_tables(tables, found))

    assert index.schema == INDEX_SCHEMA
    assert index["shard"].to_pylist() == [0, 0, 0, 0, 2]
    assert index["split"].to_pylist() == ["train"] * 4 + [None]
    assert index["left_out"].to_pylist() == [None] * 4 + ["single_picture"]
    assert index["person"].to_pylist() == ["per_0", "per_0", "per_1", "per_1", "per_9"]
