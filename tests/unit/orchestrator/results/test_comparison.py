"""Versions side by side: what is better, worse, within its interval, moved without one, and in which order."""

from __future__ import annotations

from orchestrator.models.evaluations import Cell, Comparison
from orchestrator.results.comparison import SideBySide, side_by_side


def compared(rows: dict[str, tuple[Cell, ...]], *aliases: list[str]) -> SideBySide:
    versions = tuple(
        {"id": f"mdl_{n}", "preset": "mini", "number": n, "aliases": found, "evaluation": "e"}
        for n, found in enumerate(aliases, 1)
    )
    return side_by_side(Comparison(suite="identity", seed=0, count=8, dataset_id=None, versions=versions, rows=rows))


def cell(value: float, half: float | None = None) -> Cell:
    return Cell(value=value) if half is None else Cell(value=value, low=value - half, high=value + half)


def test_a_figure_is_better_or_worse_only_where_the_intervals_lie_apart() -> None:
    found = compared(
        {
            "face_sim.mean": (cell(0.9, 0.01), cell(0.8, 0.01)),
            "top1.mean": (cell(0.80, 0.05), cell(0.78, 0.05)),
            "position.landmark_error": (cell(0.1, 0.01), cell(0.2, 0.01)),
            "detection_rate": (cell(0.97), cell(0.95)),
            "seams": (cell(0.5), cell(0.5)),
            "position.real": (cell(0.5, 0.01), cell(0.9, 0.01)),
        },
        [],
        ["champion"],
    )

    verdicts = {row.name: row.verdicts[0] for _, rows in found.groups for row in rows}
    assert found.against == 1, "the champion is what the others are held against"
    assert verdicts == {
        "face_sim.mean": "better",
        "position.landmark_error": "better",
        "position.real": "moved",
        "detection_rate": "moved",
    }
    assert [row.name for row in found.alike] == ["top1.mean", "seams"]
    assert (found.count(0, "better"), found.count(0, "worse")) == (2, 0)


def test_judged_groups_come_first_and_the_largest_difference_before_all() -> None:
    found = compared(
        {
            "a.mean": (cell(0.5, 0.1), cell(0.8, 0.1)),
            "b.value": (cell(1.0), cell(9.0)),
            "c.mean": (cell(0.9, 0.01), cell(0.1, 0.01)),
            "c.rate": (cell(0.9, 0.1), cell(0.1, 0.1)),
        },
        ["champion"],
        [],
    )

    assert [group for group, _ in found.groups] == ["c", "a", "b"]
    assert [row.name for row in found.groups[0][1]] == ["c.mean", "c.rate"]
    assert found.count(1, "worse") == 2


def test_a_version_without_a_figure_is_neither() -> None:
    found = compared({"a.mean": (cell(0.5, 0.1), Cell(value=None))}, ["champion"], [])

    assert found.groups == ()
    assert found.alike[0].verdicts == (None, None)
