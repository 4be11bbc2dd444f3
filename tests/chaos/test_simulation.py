"""The simulation of random faults, and the proof that it would notice a missing guard."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.mutations import GUARDS, LIMIT, seeds_until_caught
from tests.chaos.simulation import empty_ledger, simulate


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_ledger(tmp_path_factory.mktemp("schema"))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_item_ends_once_and_nothing_is_left_over(seed: int, template: Path) -> None:
    simulate(seed, template)


def test_a_seed_is_a_replay(template: Path) -> None:
    assert simulate(11, template).trace == simulate(11, template).trace


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_whatever_happens_at_length_each_item_ends_once(seed: int, template: Path) -> None:
    simulate(seed, template)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("guard", GUARDS)
def test_a_missing_guard_is_noticed(guard: str, template: Path) -> None:
    assert seeds_until_caught(guard, template, limit=LIMIT) is not None
