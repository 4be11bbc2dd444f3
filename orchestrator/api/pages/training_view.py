"""What the pages of a model version, of two compared, and of a training run show, each in one object. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.api.pages.charts import Points, chart
from orchestrator.errors import NotFoundError
from orchestrator.ledger import evaluations as measurements
from orchestrator.ledger import models as versions
from orchestrator.ledger import training as runs
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.ledger.tables.rows_training import TrainRecord
from orchestrator.ledger.views import usage
from orchestrator.models import evaluations, lineage, registry, training
from orchestrator.results.comparison import WIDTH as PLOT_WIDTH
from orchestrator.results.comparison import side_by_side
from orchestrator.storage import ByteStore

PRIVATE = ("location", "identities")
"""Where files lie, and ids of other owners' people, are nobody's business on a page."""
VALIDATION = {"own_id": "own reference", "no_id": "no reference", "wrong_id": "another person's reference"}
"""What validation measures, in words for people."""


def all_versions(ledger: Ledger, owner: str) -> list[dict[str, Any]]:
    """Return every version with the gate's newest verdict: `passed`, `refused`, or None where it was not asked."""
    with ledger.read() as session:
        asked = {
            version.id: measurements.decisions(session, version.id) for version, _ in versions.listing(session, owner)
        }
    return [
        {**_public(one), "verdict": _verdict(asked[one["id"]][-1].passed if asked.get(one["id"]) else None)}
        for one in registry.list_versions(ledger, owner)
    ]


def version(ledger: Ledger, owner: str, wanted: str) -> dict[str, Any]:
    """Return a version with figures, decisions, history, ancestors, and this owner's runs and batches with it.

    Raises:
        NotFoundError: there is none.
    """
    found = registry.show_version(ledger, wanted, owner)
    with ledger.read() as session:
        made_by = usage.runs_of(session, owner, found["id"])
        drew = usage.batches_of(session, owner, found["id"])
    return {
        **_public(found),
        "verdict": _verdict(found["decisions"][-1]["passed"] if found["decisions"] else None),
        "ancestors": lineage.lineage(ledger, found["id"], owner),
        "runs": [{"id": run.id, "name": run.name} for run in made_by],
        "batches": [{"id": batch.id, "name": batch.name, "pictures": count} for batch, count in drew],
    }


def compared(ledger: Ledger, owner: str, wanted: Sequence[str], suite: str) -> dict[str, Any]:
    """Return two or more versions side by side: figures with intervals, and pictures of the same requests.

    `figures` is None where the versions were never measured alike in this suite; `missing` then says so.

    Raises:
        NotFoundError: there is no such version.
        UsageError: fewer than two.
    """
    found = [registry.show_version(ledger, one, owner) for one in wanted]
    metrics, missing = None, None
    try:
        metrics = evaluations.compare(ledger, [one["id"] for one in found], suite=suite)
    except NotFoundError as error:
        missing = error.message
    with ledger.read() as session:
        alike = usage.drawn_alike(session, owner, [one["id"] for one in found])
    return {
        "versions": [_public(one) for one in found],
        "suite": suite,
        "figures": metrics,
        "sides": side_by_side(metrics) if metrics else None,
        "plot_width": PLOT_WIDTH,
        "missing": missing,
        "pictures": [
            {"custom_id": sides[0][0].custom_id, "seed": sides[0][1].seed, "sides": [_side(*side) for side in sides]}
            for sides in alike
        ],
    }


def run(
    ledger: Ledger, owner: str, wanted: str, *, beside: Sequence[str] = (), log: bool = False, smooth: float = 0.0
) -> dict[str, Any]:
    """Return a run with its curves, those of other runs in the same axes, and the steps of its validation pictures.

    Args:
        log, smooth: of the axes of losses and of all curves (`charts.chart`).

    Raises:
        NotFoundError: there is none, or none of those beside it.
    """
    found = training.show(ledger, owner, wanted)
    shown = {found["name"]: found["id"]}
    for other in beside:
        one = training.show(ledger, owner, other)
        shown[one["name"] if one["name"] not in shown else f"{one['name']} {one['id'][-6:]}"] = one["id"]
    with ledger.read() as session:
        steps = {name: runs.records(session, one, "step") for name, one in shown.items()}
        validations = {name: runs.records(session, one, "validation") for name, one in shown.items()}
        samples = [row.step for row in runs.records(session, found["id"], "sample") if row.artifact_id]

    def each(records: Mapping[str, Sequence[TrainRecord]], fact: str, said: str) -> dict[str, Points]:
        several = len(shown) > 1
        return {f"{name}: {said}" if several else said: _points(rows, fact) for name, rows in records.items()}

    held_out = {
        named: points for name, said in VALIDATION.items() for named, points in each(validations, name, said).items()
    }
    charts = [
        chart("Loss", each(steps, "loss", "loss"), log=log, smooth=smooth),
        chart("Loss on held-out people, by the reference given", held_out, log=log, smooth=smooth),
        chart("Learning rate", each(steps, "rate", "rate"), log=log),
    ]
    return {**found, "charts": [one for one in charts if one], "samples": samples}


def sample(ledger: Ledger, store: ByteStore, owner: str, wanted: str, step: int) -> bytes:
    """Return the validation picture (PNG) that a run made at a step.

    Raises:
        NotFoundError: no such run, or no picture of this step.
    """
    with ledger.read() as session:
        found = runs.get(session, owner, wanted)
        rows = [row for row in runs.records(session, found.id, "sample", after=step - 1, limit=1) if row.step == step]
        stored = session.get(Artifact, rows[0].artifact_id) if rows and rows[0].artifact_id else None
    if stored is None or stored.state != "live":
        raise NotFoundError(f"run {found.id} has no picture of step {step}", code="picture_not_found")
    return store.get(stored.key, sha256=stored.sha256)


def _points(records: Sequence[TrainRecord], name: str) -> Points:
    return [(row.step, float(row.facts[name])) for row in records if isinstance(row.facts.get(name), (int, float))]


def _side(item: Any, output: Any) -> dict[str, Any]:
    return {"item_id": item.id, "output_id": output.id, "verdict": output.verdict, "similarity": output.similarity}


def _verdict(passed: bool | None) -> str | None:
    return None if passed is None else "passed" if passed else "refused"


def _public(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in PRIVATE}
