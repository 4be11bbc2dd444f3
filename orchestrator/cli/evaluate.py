"""`fpga evaluate`: measures a preset. The networks run in a process of their own; this one never imports them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import FinishError, JsonOption

app = typer.Typer(name="evaluate", help="Measure a preset.", no_args_is_help=True)
PROGRAM = "fpga_models.metrics.evaluate"


@app.callback()
def evaluate() -> None:
    """Measure a preset."""


@app.command()
def identity(
    preset: Annotated[str, typer.Option(help="Which preset.")] = "mini",
    seed: Annotated[int, typer.Option(help="Chooses the held-out people.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many portraits.")] = 200,
    sheet: Annotated[Path | None, typer.Option(help="Write references and portraits side by side to this PNG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure whether people are recognisable and who is who in groups, on people no training has seen."""
    import subprocess
    import sys

    from orchestrator.planning.presets import load_preset
    from orchestrator.settings import get_settings

    settings = get_settings()
    load_preset(settings.models_dir, preset)
    command = [sys.executable, "-m", PROGRAM, "identity", "--preset-dir", str(settings.models_dir / preset)]
    command += ["--seed", str(seed), "--count", str(count), *(["--json"] if as_json else [])]
    command += ["--sheet", str(sheet)] if sheet else []
    if code := subprocess.run(command, check=False).returncode:
        raise FinishError(code if code > 0 else 1)
