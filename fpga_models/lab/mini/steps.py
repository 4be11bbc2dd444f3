"""How a recipe is written and run: commands in lanes, lanes in stages; whatever is made already is skipped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command; done when `product` exists, always run without one. `output` takes what the command prints."""

    module: str
    arguments: tuple[str, ...]
    product: Path | None
    output: Path | None = None


Lane = Sequence[Step]
"""Steps one after the other."""
Stage = Sequence[Lane]
"""Lanes beside each other, one core each."""


def run_step(step: Step) -> None:
    """Run one step in a process of its own; its output file appears only when it succeeded."""
    command = [sys.executable, "-m", step.module, *step.arguments]
    if step.output is None:
        subprocess.run(command, check=True)
        return
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    step.output.write_text(finished.stdout)


def run_lane(lane: Lane) -> None:
    """Run the steps of a lane that are not done."""
    for step in lane:
        title = f"{step.module} {' '.join(step.arguments)}\n"
        if step.product and step.product.exists():
            sys.stderr.write(f"done {title}")
            continue
        sys.stderr.write(f"begin {title}")
        run_step(step)


def run_stages(stages: Iterable[Stage]) -> None:
    """Run the stages in order, the lanes of each at the same time.

    Raises:
        subprocess.CalledProcessError: a step failed; the lanes beside it went on to their ends first.
    """
    for stage in stages:
        with ThreadPoolExecutor(len(stage)) as pool:
            for running in [pool.submit(run_lane, lane) for lane in stage]:
                running.result()


def one_by_one(steps: Iterable[Step]) -> list[Stage]:
    """Stages of one step each."""
    return [[[step]] for step in steps]
