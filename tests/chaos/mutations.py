"""The product's guards, taken out one at a time, to see that the simulation notices.

python -m tests.chaos.mutations     # which seed catches each, and how many runs that took
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from orchestrator.ledger import artifacts
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.queue import batches, lifecycle, outcomes, sweeper
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.tables.rows import Stage
from tests.chaos import records
from tests.chaos.simulation import BrokenPromise, empty_ledger, simulate

Guards = Mapping[str, Callable[[], AbstractContextManager[object]]]
LIMIT = 100
_move, _take = lifecycle.move, lifecycle.take


def _claim_by_id_only(*held: Claim) -> tuple[Any, ...]:
    return (Stage.id.in_([c.stage_id for c in held]),)


def _move_without_token(skip: str, session: Session, to: State, *where: Any, **values: Any) -> Any:
    if to == skip:
        values.pop("token", None)
    return _move(session, to, *where, **values)


def _take_without_token(session: Session, to: State, *where: Any, **values: Any) -> Any:
    return _take(session, to, *where, **{name: value for name, value in values.items() if name != "token"})


def _move_without_strikes(session: Session, to: State, *where: Any, **values: Any) -> Any:
    if values.pop("crashes", None) is not None and to == State.HELD:
        to = State.QUEUED
        values.pop("finished_at", None)
    return _move(session, to, *where, **values)


@contextmanager
def _tokens_never_rise() -> Iterator[None]:
    """Neither a claim nor the sweeper makes a new token: two holders look alike."""
    with (
        mock.patch.object(lifecycle, "move", partial(_move_without_token, "leased")),
        mock.patch.object(lifecycle, "take", _take_without_token),
    ):
        yield


@contextmanager
def _submit_forgets_keys() -> Iterator[None]:
    """A submit that is asked for again makes another batch."""
    submit = batches.submit

    def forgetful(ledger: Any, new: batches.NewBatch) -> batches.Submitted:
        return submit(ledger, replace(new, idempotency_key=None))

    with mock.patch.object(batches, "submit", forgetful):
        yield


GUARDS: Guards = {
    "the fence: writes name their token": lambda: mock.patch.object(outcomes, "ours", _claim_by_id_only),
    "a claim raises the token": _tokens_never_rise,
    "strikes are counted": lambda: mock.patch.object(lifecycle, "move", _move_without_strikes),
    "lost leases are swept": lambda: mock.patch.object(sweeper, "_recover", return_value=None),
    "rows are confirmed in the publishing transaction": lambda: mock.patch.object(artifacts, "confirm"),
    "a submit is known by its key": _submit_forgets_keys,
    "a batch closes by query": lambda: mock.patch.object(lifecycle, "close_batch", return_value=None),
    "a bad group is split": lambda: mock.patch.object(sweeper, "_recover", _recover_as_a_group),
    "times follow a clock that is turned back": lambda: mock.patch.object(sweeper, "_follow_the_clock"),
}


def _recover_as_a_group(session: Session, stage: Stage, settings: Any, moment: Any, swept: Any) -> None:
    """Everybody in a group that died gets a strike."""
    with mock.patch.object(session, "scalar", return_value=1):
        _recover(session, stage, settings, moment, swept)


_recover = sweeper._recover


def seeds_until_caught(guard: str, template: Path, *, limit: int) -> int | None:
    """How many seeds it takes until a world without this guard breaks a promise; None when none of `limit` does."""
    with GUARDS[guard]():
        for seed in range(limit):
            try:
                simulate(seed, template)
            except (BrokenPromise, SQLAlchemyError, AssertionError):
                return seed + 1
    return None


def main() -> int:
    """Command line; exit code 1 when a missing guard goes unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="add what was found to docs/reliability.jsonl")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        template = empty_ledger(Path(folder))
        for guard in GUARDS:
            found[guard] = runs = seeds_until_caught(guard, template, limit=LIMIT)
            sys.stdout.write(f"{guard:55} {f'caught by run {runs}' if runs else f'NOT NOTICED in {LIMIT} runs'}\n")
            sys.stdout.flush()
    missed = [guard for guard, runs in found.items() if runs is None]
    if options.record:
        caught = "; ".join(f"{guard} ({runs or f'NOT in {LIMIT}'})" for guard, runs in found.items())
        told = f"{len(found) - len(missed)} of {len(found)} guards taken out were noticed (by which run): {caught}"
        records.add({"rows": ["T03"], "sentence": told, "commit": records.commit()})
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
