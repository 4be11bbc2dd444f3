"""Real deployments under fire, at CI's size; `make chaos SEED=7` replays a seed, `make torture` does the full size."""

from __future__ import annotations

import os
import sys

import pytest

from tests.chaos.earlier import HistoryMissingError
from tests.chaos.runner import run
from tests.chaos.scenarios import SCENARIOS
from tests.services.server import ServiceMissingError

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]
SEED = int(os.environ.get("FPGA_TEST_SEED", "1"))
IN_CI = (
    ("kills", "sqlite+filesystem"),
    ("kills", "postgres+redis"),
    ("kills", "postgres+rabbitmq"),
    ("frozen", "postgres+redis"),
    ("power cuts", "sqlite+filesystem"),
    ("wiped broker", "postgres+rabbitmq"),
    ("sweepers", "postgres+redis"),
    ("wedge", "postgres+redis"),
    ("drained", "postgres+redis"),
    ("database restarts", "postgres+redis"),
    ("bad network", "postgres+redis"),
    ("newer stage", "sqlite+filesystem"),
    ("rolling update", "postgres+redis"),
    ("poison", "sqlite+filesystem"),
    ("full disk", "sqlite+filesystem"),
    ("soak", "postgres+redis"),
)
"""What fits beside the other slow tests; `python -m tests.chaos` runs every scenario on every pair."""


@pytest.mark.parametrize(("name", "pair"), IN_CI)
def test_nothing_is_lost_doubled_or_left_over(name: str, pair: str) -> None:
    if SCENARIOS[name].store_bytes and os.geteuid() != 0:
        pytest.skip("it takes root to mount a small file system")
    try:
        record = run(name, pair, seed=SEED)
    except ServiceMissingError as missing:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    except HistoryMissingError as missing:
        pytest.skip(str(missing))
    sys.stdout.write(f"{record}\n")
    assert record["bad"] == [], f"seed {SEED}: {SCENARIOS[name].do.__doc__}"
