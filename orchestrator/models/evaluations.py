"""Evaluations for people and programs: ask for one, list them, compare versions in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.contracts.base import digest
from orchestrator.contracts.batches import BatchOptions
from orchestrator.contracts.training import EvaluateParams, Suite
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.ledger import datasets, evaluations, models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows_training import Evaluation
from orchestrator.models.lineage import flatten
from orchestrator.models.registry import find_version

KIND = "evaluate"
SUITES = ("identity", "restore", "swap", "stylized", "control", "ablate", "held_out")
NOT_FIGURES = ("seed", "count", "seconds")


def submit(
    ledger: Ledger,
    *,
    owner: str,
    model: str,
    suites: Sequence[str] = ("identity",),
    seed: int = 0,
    count: int = 48,
    dataset: str | None = None,
) -> str:
    """Queue a measurement of one version and return the batch that makes it.

    Args:
        model: id of a version, or `preset@alias`.
        dataset: a data set version whose held-out people are looked at, by the suite `held_out` alone.

    Raises:
        NotFoundError: no such version or data set.
        UsageError: a suite is not known, or count is below 1.
    """
    unknown = [suite for suite in suites if suite not in SUITES]
    if unknown or not suites or count < 1:
        raise UsageError(f"wanted suites of {', '.join(SUITES)} and a count of 1 or more, got {suites}, {count}")
    if any((suite == evaluations.ON_DATA_SET) != (dataset is not None) for suite in suites):
        raise UsageError(
            f"the suite {evaluations.ON_DATA_SET} wants a data set, and no other suite takes one", code="bad_suite"
        )
    with ledger.read() as session:
        version, _ = find_version(session, model, owner)
        chosen = datasets.resolve(session, owner, dataset).id if dataset else None
    wanted = tuple(Suite(suite=suite, seed=seed, count=count) for suite in suites)
    params = EvaluateParams(evaluations=wanted, evaluate_on=chosen).dump()
    return batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind=KIND,
            name=f"measure {version.preset} {version.number}",
            preset=version.preset,
            items=[NewItem(custom_id=version.id, params=params, params_sha256=digest([version.id, params]), seed=seed)],
            model_version_id=version.id,
            options=BatchOptions(pinned=True).dump(),
        ),
    ).batch_id


def list_evaluations(
    ledger: Ledger, model: str | None = None, *, limit: int = 100, owner: str | None = None
) -> list[dict[str, Any]]:
    """Return the newest measurements, of one version only where one is named.

    Raises:
        NotFoundError: no such version.
    """
    with ledger.read() as session:
        if model:
            wanted = [find_version(session, model, owner)[0].id]
        else:
            wanted = [] if owner is None else [version.id for version, _ in models.listing(session, owner)]
        return [evaluations.as_object(row) for row in evaluations.listing(session, wanted, limit=limit)]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of one version, with its interval where it has one."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Figures of several versions, measured alike; `rows` maps a figure's name to a cell for each version."""

    suite: str
    seed: int
    count: int
    dataset_id: str | None
    versions: tuple[dict[str, Any], ...]
    rows: dict[str, tuple[Cell, ...]]

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line prints."""
        return {
            "object": "evaluation.comparison",
            "suite": self.suite,
            "seed": self.seed,
            "count": self.count,
            "dataset_id": self.dataset_id,
            "versions": list(self.versions),
            "figures": {
                name: [{"value": cell.value, "low": cell.low, "high": cell.high} for cell in cells]
                for name, cells in self.rows.items()
            },
        }


def compare(ledger: Ledger, wanted: Sequence[str], *, suite: str = "identity", owner: str | None = None) -> Comparison:
    """Put versions side by side, on the newest measurement that was made of all of them alike.

    Raises:
        NotFoundError: no such version, or no measurement with the same seed, count and data set.
        UsageError: fewer than two versions.
    """
    if len(wanted) < 2:
        raise UsageError(f"comparing takes two versions or more, got {len(wanted)}")
    with ledger.read() as session:
        versions = [find_version(session, model, owner) for model in wanted]
        measured = [
            {_likeness(row): row for row in reversed(evaluations.listing(session, [version.id])) if row.suite == suite}
            for version, _ in versions
        ]
    common = set(measured[0]).intersection(*measured[1:])
    if not common:
        raise NotFoundError(
            f"these versions were not measured alike in suite {suite!r}; run `fpga evaluate run MODEL` for each",
            code="evaluation_not_found",
        )
    chosen = max(common, key=lambda like: measured[0][like].created_at)
    found = [of_version[chosen] for of_version in measured]
    return Comparison(
        suite=suite,
        seed=chosen[0],
        count=chosen[1],
        dataset_id=chosen[2],
        versions=tuple(
            {"id": v.id, "preset": v.preset, "number": v.number, "aliases": names, "evaluation": row.id}
            for (v, names), row in zip(versions, found, strict=True)
        ),
        rows=_rows([row.figures for row in found]),
    )


def _likeness(row: Evaluation) -> tuple[int, int, str | None]:
    return row.seed, row.count, row.dataset_id


def _rows(figures: Sequence[dict[str, Any]]) -> dict[str, tuple[Cell, ...]]:
    """Line the figures up by dotted name; an interval `x.ci95` belongs to the mean, accuracy or rate beside it."""
    flat = [flatten(one) for one in figures]
    names = dict.fromkeys(name for one in flat for name, value in one.items() if _is_figure(name, value))
    return {name: tuple(_cell(one, name) for one in flat) for name in names}


def _is_figure(name: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and name not in NOT_FIGURES


def _cell(flat: dict[str, Any], name: str) -> Cell:
    value = flat.get(name)
    if not isinstance(value, (int, float)):
        return Cell(value=None)
    group, _, last = name.rpartition(".")
    bounds = flat.get(f"{group}.ci95")
    if last in ("mean", "accuracy", "rate", "value") and isinstance(bounds, list) and len(bounds) == 2:
        return Cell(value=float(value), low=float(bounds[0]), high=float(bounds[1]))
    return Cell(value=float(value))
