"""`fpga bench`: what things cost, as ratios that hold on any machine. Networks run in a process of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.common import JsonOption
from orchestrator.cli.evaluate import PresetOption, measure_in_process

app = typer.Typer(name="bench", help="Measure what things cost.", no_args_is_help=True)
PROGRAM = "fpga_models.metrics.speed"


@app.callback()
def bench() -> None:
    """Measure what things cost."""


@app.command()
def model(
    preset: PresetOption = "mini",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each comparison.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the networks on a CPU.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Merged and branch form, identities, DIIR and batching against their alternatives; exit 1 if the run is void."""
    arguments = ["--rounds", str(rounds), "--threads", str(threads), "--device", device]
    measure_in_process(PROGRAM, preset, [*arguments, *(["--json"] if as_json else [])])
