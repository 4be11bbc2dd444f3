"""The whole way on a GPU through a real worker: faces, drawing, restoring small faces, verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.workers.rig import Rig

pytestmark = pytest.mark.gpu


def test_a_batch_is_drawn_and_judged_on_the_gpu(tmp_path: Path) -> None:
    with Rig(tmp_path, device="cuda") as rig:
        rig.start_worker()
        assert all(person.error is None for person in rig.enrol("ada", "bruno")), rig.logs()
        rows = [{"custom_id": "one", "people": ["ada"]}, {"custom_id": "two", "people": ["ada", "bruno"]}]
        batch_id = rig.submit([json.dumps(row) for row in rows])
        assert rig.wait_ended(batch_id) == "completed", rig.logs()
        outputs = rig.outputs(batch_id)
        assert all(output.record["profile"]["device"] != "cpu" for output in outputs)
        assert all(output.verdict for output in outputs)
