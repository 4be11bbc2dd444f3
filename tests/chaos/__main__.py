"""Chaos runs by hand, each with its record: `python -m tests.chaos --seed 1 kills "wiped broker"`.

--full does the whole size instead of CI's; --record adds the records to docs/reliability.jsonl, and
`python -m tests.chaos.table` makes docs/reliability.md of them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import replace

from tests.chaos import records
from tests.chaos.ground import PAIRS
from tests.chaos.runner import run
from tests.chaos.scenarios import SCENARIOS


def main() -> int:
    """Command line; exit code 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--pair", choices=PAIRS, action="append")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--items", type=int, help="another number of items than the size has")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    bad = 0
    for name in options.names or SCENARIOS:
        scenario = SCENARIOS[name]
        for pair in scenario.pairs:
            if options.pair and pair not in options.pair:
                continue
            sys.stderr.write(f"{name} on {pair}, seed {options.seed}\n")
            size = scenario.full if options.full else scenario.small
            record = run(name, pair, seed=options.seed, size=replace(size, items=options.items or size.items))
            line = json.dumps(record)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            if options.record:
                records.add(record)
            bad += bool(record["bad"])
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
