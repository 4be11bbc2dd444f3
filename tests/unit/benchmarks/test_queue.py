"""The page of speeds shows the report that lies beside it, and nothing by hand."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.queue.measure import table

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_holds_the_table_of_its_report() -> None:
    report = json.loads((DOCS / "bench-queue.json").read_text())

    assert table(report).strip() in (DOCS / "performance.md").read_text()
