"""Versions are compared on measurements made alike, in one table and one page that loads nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, NotFoundError, UsageError
from orchestrator.ledger import models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.models import evaluations, registry
from orchestrator.results.comparison import write_comparison
from orchestrator.settings import Settings
from tests.unit.orchestrator.trained import measure


@pytest.fixture
def two(ledger: Ledger, settings: Settings) -> tuple[str, str]:
    first = registry.ensure_registered(ledger, settings)
    second = models.register(
        ledger, "local", preset="mini", tensor_sha256="b" * 64, location="x", licence="Apache-2.0", manifest={}
    )
    return first, second


def test_figures_of_two_versions_stand_side_by_side_with_their_intervals(
    ledger: Ledger, two: tuple[str, str], tmp_path: Path
) -> None:
    for version, mean in zip(two, (0.74, 0.78), strict=True):
        measure(ledger, version, mean - 0.2)  # an older one
        measure(ledger, version, mean)

    found = evaluations.compare(ledger, [*two])

    assert [(cell.value, cell.low, cell.high) for cell in found.rows["face_sim.mean"]] == [
        (0.74, 0.71, 0.77),
        (0.78, 0.75, 0.81),
    ]
    page = write_comparison(tmp_path / "page.html", found).read_text()
    assert page.count("<circle") == 2
    assert page.count("<line") == 2
    assert not re.search(r"(?:src|href)\s*=|https?://", page)
    with pytest.raises(ConflictError):
        write_comparison(tmp_path / "page.html", found)


def test_measurements_that_were_not_made_alike_are_not_compared(ledger: Ledger, two: tuple[str, str]) -> None:
    measure(ledger, two[0], 0.7)
    with pytest.raises(NotFoundError, match="not measured alike"):
        evaluations.compare(ledger, [*two])
    with pytest.raises(UsageError, match="two versions"):
        evaluations.compare(ledger, [two[0]])


def test_a_measurement_is_one_item_pinned_to_its_version(ledger: Ledger, two: tuple[str, str]) -> None:
    batch_id = evaluations.submit(ledger, owner="local", model=two[1], suites=["identity"], seed=3, count=8)

    with ledger.read() as session:
        batch = batches.get(session, "local", batch_id)
        (item,) = batches.items(session, batch_id)
    assert (batch.model_version_id, batch.options["pinned"]) == (two[1], True)
    assert item.params["evaluations"] == [{"suite": "identity", "seed": 3, "count": 8}]
    with pytest.raises(UsageError, match="beauty"):
        evaluations.submit(ledger, owner="local", model=two[1], suites=["beauty"])
